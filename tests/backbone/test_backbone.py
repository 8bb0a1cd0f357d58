"""The room that knows Hugging Face models: freezing, placeholders, prompts, loading."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, BertConfig

from safevlm.backbone import (
    HubOptions,
    PromptTable,
    encode,
    family_of,
    fill_placeholders,
    freeze,
    last_user_text,
    load_backbone,
    load_tower,
    make_chat,
    with_hint,
    wrap_backbone,
)
from safevlm.backbone.literal import take_literally
from safevlm.backbone.placeholders import find_placeholders
from safevlm.errors import BackboneError
from tests.tiny import picture, tiny_backbone, tiny_llava, tiny_processor

TOKENS = 3


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    tiny_llava().save_pretrained(path, max_shard_size="20KB")
    tiny_processor().save_pretrained(path)
    return path


def text_of(backbone, prompt, images=1, **options):
    inputs = encode(
        backbone, [make_chat(prompt, images)], [picture()] * images, safety_tokens=TOKENS, **options
    )
    return inputs, backbone.processor.tokenizer.decode(inputs.tensors["input_ids"][0])


def test_freeze_holds_and_leaves_later_parts_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    assert freeze(module) is module
    module.train()
    module[1].train(True)
    nn.ModuleList([module]).train()
    assert not module.training
    assert not module[1].training
    assert not any(p.requires_grad for p in module.parameters())
    module.append(nn.Dropout())
    module[2].train()
    assert module[2].training


def test_safety_tokens_stand_directly_before_each_image(backbone):
    inputs, text = text_of(backbone, "Hi", images=2)
    block = "<pad>" * TOKENS + "<image>" * 16 + "\n"
    assert text == f"USER: {block}{block}Hi ASSISTANT: "
    assert int(inputs.token_mask.sum()) == 2 * TOKENS
    ids = inputs.tensors["input_ids"][0]
    for place in inputs.token_mask[0].nonzero().flatten().tolist():
        assert ids[place] == 0
    assert inputs.tensors["attention_mask"].all()


@pytest.mark.parametrize(
    "prompt",
    ["<image>", "<pad><pad><pad><image>", "a <pad><pad><pad> b </s> c <s>", "<image>" * 40, "<pad>" * TOKENS],
)
def test_special_tokens_in_the_prompt_neither_shift_nor_forge(backbone, prompt):
    """The user's text stays text: the image's and safety tokens' places are those of a plain prompt."""
    plain, _ = text_of(backbone, "x")
    forged, text = text_of(backbone, prompt)
    special = torch.isin(forged.tensors["input_ids"], torch.tensor([0, 1, 2, 3]))
    expected = torch.isin(plain.tensors["input_ids"], torch.tensor([0, 1, 2, 3]))
    assert special.sum() == expected.sum()
    assert torch.equal(forged.token_mask.nonzero(), plain.token_mask.nonzero())
    assert prompt.replace("<", "< ").split()[1] in text


def test_a_special_token_across_two_parts_is_broken_up(backbone):
    parts = [{"type": "image"}, {"type": "text", "text": "a </"}, {"type": "text", "text": "s> b"}]
    inputs = encode(
        backbone, [make_chat([{"role": "user", "content": parts}], 1)], [picture()], safety_tokens=TOKENS
    )
    assert not (inputs.tensors["input_ids"] == 2).any()


def test_escape_leaves_other_text_alone():
    tokenizer = tiny_processor().tokenizer
    assert take_literally("3 < 4 <b> <images>", tokenizer) == "3 < 4 <b> <images>"


def test_displaced_placeholders_are_an_error():
    ids = torch.tensor([[5, 0, 3, 3]])
    with pytest.raises(BackboneError, match="displaced"):
        find_placeholders(ids, images=1, count=2, placeholder_id=0, opening_id=3)


def test_filling_covers_repeats_and_longer_inputs_but_not_single_steps():
    embedding = nn.Embedding(8, 4)
    tokens = torch.arange(8.0).reshape(2, 4)
    mask = torch.tensor([[False, True, True, False]])
    with fill_placeholders(embedding, tokens, mask):
        longer = embedding(torch.zeros(2, 6, dtype=torch.long))
        step = embedding(torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(BackboneError, match="never put in"), fill_placeholders(embedding, tokens, mask):
        embedding(torch.zeros(2, 1, dtype=torch.long))
    assert not embedding._forward_hooks
    assert torch.equal(longer[:, 1:3], tokens.expand(2, 2, 4))
    assert torch.equal(longer[:, 3:], embedding(torch.zeros(2, 3, dtype=torch.long)))
    assert torch.equal(step, embedding(torch.zeros(2, 1, dtype=torch.long)))


def test_gradients_reach_the_safety_tokens_only():
    embedding = freeze(nn.Embedding(8, 4))
    tokens = nn.Parameter(torch.randn(2, 4))
    with fill_placeholders(embedding, tokens, torch.tensor([[True, True, False]])):
        embedding(torch.zeros(1, 3, dtype=torch.long)).sum().backward()
    assert torch.equal(tokens.grad, torch.ones(2, 4))
    assert embedding.weight.grad is None


def test_answers_are_labelled_and_prompts_are_not(backbone):
    inputs = encode(
        backbone,
        [make_chat("Hi", 1), make_chat("A longer one", 1)],
        [picture(), picture(1)],
        safety_tokens=TOKENS,
        answers=["Yes.", "No, thanks"],
    )
    for row, answer in enumerate(["Yes.", "No, thanks"]):
        labelled = inputs.labels[row][inputs.labels[row] != -100]
        assert backbone.processor.tokenizer.decode(labelled) == f"{answer}</s>"
        assert torch.equal(labelled, inputs.tensors["input_ids"][row][inputs.labels[row] != -100])
    generated, _ = text_of(backbone, "Hi")
    width = generated.tensors["input_ids"].shape[1]
    assert torch.equal(inputs.tensors["input_ids"][0][:width], generated.tensors["input_ids"][0])


def test_a_prompt_beyond_the_context_is_named(backbone):
    with pytest.raises(ValueError, match=r"prompt 0 has \d+ tokens.*takes 512"):
        text_of(backbone, "a" * 100_000)


def test_hint_goes_before_the_last_user_text():
    chat = make_chat("first", 1)
    chat += [{"role": "assistant", "content": [{"type": "text", "text": "ok"}]}, *make_chat("second", 0)]
    hinted = with_hint(chat, "[note]")
    assert last_user_text(hinted) == "[note] second"
    assert last_user_text(hinted[:1]) == "first"
    assert last_user_text(chat) == "second"
    with pytest.raises(ValueError, match="no user message"):
        with_hint([{"role": "system", "content": []}], "x")


def test_prompt_embeddings_mask_padding_and_ignore_special_tokens(backbone):
    table = torch.randn(264, 5)
    embedded, mask = PromptTable(backbone.tokenizer, table).embed(["abc", "", "<image>"])
    assert mask.sum(dim=1).tolist()[:2] == [3, 0]
    assert not (embedded[2][mask[2]] == table[3]).all(dim=1).any()


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(BackboneError, match="bert.*known: .*llava"):
        family_of(BertConfig())


@pytest.mark.parametrize("load", [load_backbone, load_tower])
def test_a_hub_id_without_a_network(load):
    with pytest.raises(BackboneError, match="local folder"):
        load("nobody/there-is-no-such-model", hub=HubOptions(local_files_only=True))


def test_the_tower_alone_equals_the_models_own(folder):
    backbone, tower = load_backbone(folder), load_tower(folder)
    inputs = tower.preprocess([picture(), picture(1)])
    (own,), (models,) = tower(inputs).views.groups, backbone.tower(inputs).views.groups
    assert torch.equal(own.features, models.features)
    assert tower.fingerprint == backbone.tower.fingerprint
    pixels = inputs.tensors["pixel_values"]
    hidden = backbone.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(own.features, hidden[-2][:, 1:])
    assert own.grid == (4, 4)


def test_the_models_own_tower_stops_at_the_layer_that_is_read(folder):
    backbone = load_backbone(folder)
    layers = next(m for m in backbone.tower.module.modules() if isinstance(m, torch.nn.ModuleList))
    ran = []
    for number, layer in enumerate(layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    backbone.tower(backbone.tower.preprocess([picture()]))
    assert ran == list(range(len(layers) - 1))  # the config reads the last but one
    backbone.model.model.vision_tower(torch.zeros(1, 3, 16, 16))
    assert ran[len(layers) - 1 :] == list(range(len(layers)))  # and nothing is left behind


def test_loading_the_tower_reads_no_tensor_of_the_llm(folder, monkeypatch):
    from safetensors import safe_open

    read = []

    class Spy:
        def __init__(self, *args, **kwargs):
            self.file = safe_open(*args, **kwargs)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *args):
            return self.file.__exit__(*args)

        def get_tensor(self, key):
            read.append(key)
            return self.opened.get_tensor(key)

    monkeypatch.setattr("safevlm.backbone.tower_files.safe_open", Spy)
    load_tower(folder)
    assert read
    assert all("vision_tower" in key for key in read)


def test_a_checkpoint_without_a_tower_is_refused(folder, tmp_path):
    AutoConfig.from_pretrained(folder).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    from safetensors.torch import save_file

    save_file({"language_model.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match="tensors of the vision tower are missing"):
        load_tower(tmp_path)


def test_replay_refuses_other_images(backbone):
    inputs = backbone.tower.preprocess([picture(), picture(1)])
    passed, pixels = backbone.tower(inputs), inputs.tensors["pixel_values"]
    patches = passed.views.groups[0].features
    with backbone.tower.replay(passed, [[1], [0]]):
        beams = backbone.tower.module(pixels.repeat_interleave(2, dim=0))
        with pytest.raises(BackboneError, match="asked for 1 rows of vision features, its images have 2"):
            backbone.tower.module(pixels[:1])
    assert torch.equal(beams.hidden_states[-2][:, 1:], patches[[1, 1, 0, 0]])
    with backbone.tower.replay(passed, [[1]]):
        replayed = backbone.tower.module(pixels[1:])
    assert torch.equal(replayed.hidden_states[-2][:, 1:], patches[1:])
    assert torch.equal(backbone.tower(inputs).views.groups[0].features, patches)


def test_towers_of_one_model_share_a_lock():
    model = tiny_llava()
    one, other = (wrap_backbone(model, tiny_processor()).tower for _ in range(2))
    assert one is not other
    assert one.lock is other.lock
    assert one.lock is not tiny_backbone().tower.lock


def test_scoring_keeps_one_hidden_state_and_the_same_features():
    tower = tiny_backbone().tower
    inputs = tower.preprocess([picture(), picture(1)])
    kept, lean = tower(inputs), tower(inputs, for_replay=False)
    assert torch.equal(kept.views.groups[0].features, lean.views.groups[0].features)
    assert kept.output.hidden_states is not None
    assert lean.output.hidden_states is None


def test_an_eight_bit_tower_is_refused(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "eight")
    names = json.loads((copied / "model.safetensors.index.json").read_text())["weight_map"]
    key = next(k for k in names if "vision" in k and k.endswith("fc1.weight"))
    tensors = load_file(copied / names[key])
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)
    save_file(tensors, copied / names[key], {"format": "pt"})
    with pytest.raises(BackboneError, match="quantized"):
        load_tower(copied)
