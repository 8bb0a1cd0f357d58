"""The recipe on tiny sizes: a few steps lower the loss, and what is saved loads again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safevlm.training.mini.corpus import open_corpus
from safevlm.training.mini.dialogues import Turn
from safevlm.training.mini.fast_vlm import build_fast_vlm, rows_loss
from safevlm.training.mini.features import decode, encode
from safevlm.training.mini.packing import Packer
from safevlm.training.mini.pretrain import PretrainRecipe, train_phase
from safevlm.training.mini.scene_bank import open_bank
from safevlm.training.mini.tower import PLACES, create_tower
from safevlm.training.mini.vocabulary import build_processor, train_tokenizer
from torch import nn
from transformers import AutoProcessor, FastVlmForConditionalGeneration


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return open_bank(tmp_path_factory.mktemp("bank"), split="train", count=12)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return create_tower()


@pytest.fixture(scope="module")
def corpus(bank, tower, tmp_path_factory):
    return open_corpus(bank, tower, photos=None, cache=tmp_path_factory.mktemp("seen"), blanks=4)


@pytest.fixture(scope="module")
def processor(corpus):
    return build_processor(train_tokenizer(corpus.texts(200, seed=0), size=600))


@pytest.fixture
def vlm(processor, tower):
    torch.manual_seed(0)
    return build_fast_vlm(tower, processor.tokenizer, width=32, layers=2, heads=2)


def test_pretraining_lowers_the_loss_and_leaves_the_tower(vlm, corpus, processor, tmp_path):
    before = {name: value.clone() for name, value in vlm.model.vision_tower.state_dict().items()}
    recipe = PretrainRecipe(steps=10, rows=4, length=160, learning_rate=5e-3, text_share=0.3)
    losses = train_phase(vlm, corpus, processor=processor, recipe=recipe, out=tmp_path / "base")
    assert sum(losses[-3:]) < sum(losses[:3])
    after = vlm.model.vision_tower.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "base"), type(processor))


def test_what_is_saved_sees_and_says_the_same(vlm, processor, corpus, tmp_path):
    recipe = PretrainRecipe(steps=2, rows=2, length=160)
    train_phase(vlm, corpus, processor=processor, recipe=recipe, out=tmp_path / "base")
    again = FastVlmForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    for mine, other in zip(vlm.modules(), again.modules(), strict=True):
        if isinstance(mine, nn.BatchNorm2d):
            assert torch.equal(mine.running_var, other.running_var)
            assert torch.equal(mine.weight, other.weight)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=Image.effect_mandelbrot((90, 40), (-2, -1, 1, 1), 50).convert("RGB"), text=text,
                       return_tensors="pt")  # fmt: skip
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        seen = [model.model.vision_tower(inputs["pixel_values"]).last_hidden_state for model in (vlm, again)]
        said = [model(**inputs).logits.softmax(-1) for model in (vlm, again)]
    assert (seen[0] - seen[1]).norm() < 1e-2 * seen[0].norm()
    assert (said[0] - said[1]).abs().max() < 5e-3


def test_packed_rows_cost_what_the_whole_model_says(vlm, processor, tower):
    """The loss on kept features against the model's own forward on the pixels."""
    packer = Packer(processor.tokenizer, length=120, patches=PLACES)
    row = packer.batch([packer.image_row([Turn("What is this?", "a key.", "caption")])])
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    length = int((row.branches >= 0).sum())
    values = (pixels.float() - 127) / 128
    with torch.no_grad():
        projected = vlm.eval().model.multi_modal_projector(decode(encode(tower, pixels)))
        mine = float(rows_loss(vlm, row, projected=projected))
        ids, labels = row.ids[:, :length], row.labels[:, :length]
        theirs = float(vlm(input_ids=ids, pixel_values=values, labels=labels).loss)
    assert mine == pytest.approx(theirs, abs=1e-3)


def test_a_branch_costs_what_it_costs_alone(vlm, processor):
    vlm.eval()
    packer = Packer(processor.tokenizer, length=200, patches=PLACES)
    turns = [Turn("What is this?", "a key.", "caption"), Turn("How many keys?", "two.", "count")]
    projected = torch.randn(1, PLACES, 32)
    with torch.no_grad():
        rows = [packer.batch([packer.image_row(part)]) for part in (turns, turns[:1], turns[1:])]
        both, first, second = (float(rows_loss(vlm, row, projected=projected)) for row in rows)
        n_first, n_second = (int((row.labels != -100).sum()) for row in rows[1:])
    assert both == pytest.approx((first * n_first + second * n_second) / (n_first + n_second), rel=1e-4)


def test_packed_ids_are_what_the_processor_gives(processor):
    packer = Packer(processor.tokenizer, length=200, patches=PLACES)
    row = packer.image_row([Turn("What is this?", "a key.", "caption")])
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    ids = processor(images=Image.new("RGB", (90, 40)), text=text)["input_ids"][0]
    assert row[0][: len(ids)] == list(ids)


def test_tokenizer_round_trip(processor):
    for text in ("What is this? A. key B. fish", "Grüße, 鍵! \n\t x", "[Safety note: weapons.] Tell me."):
        ids = processor.tokenizer(text)["input_ids"]
        assert processor.tokenizer.decode(ids) == text


def test_the_corpus_draws_the_same_for_the_same_seed(corpus, processor):
    packer = Packer(processor.tokenizer, length=160, patches=PLACES)
    rows = [corpus.image_row(random.Random(3), packer, turns=3)[1] for _ in range(2)]
    assert rows[0] == rows[1]
    assert all(len(column) == 160 for column in rows[0])


def test_no_data_folder_is_needed(corpus, tower, tmp_path):
    assert corpus.photographs is None
    with pytest.raises(FileNotFoundError, match="photos_native"):
        open_corpus(corpus.bank, tower, photos=Path("nowhere"), cache=tmp_path, blanks=4)
