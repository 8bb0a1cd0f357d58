"""Every family on a tiny model of its real classes: the table in docs/families.md, cell by cell."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import encode, family_of, injected, make_chat
from safevlm.errors import BackboneError
from safevlm.types import Action
from tests.families import GREEDY, IMAGES, PROMPTS, family_backbone, plain_inputs
from tests.tiny import picture, tiny_config


def towers_runs(guard) -> list[int]:
    """Rows that the tower's first matrix product sees, call by call."""
    seen: list[int] = []
    module = next(
        part
        for part in guard.backbone.tower.module.modules()
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Conv3d))
    )
    guard.handle = module.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    return seen


def test_disabled_equals_the_plain_backbone_bit_for_bit(guard):
    plain = family_backbone(guard.backbone.model_type)  # the same weights, nothing was ever attached to it
    inputs = plain_inputs(plain, PROMPTS, IMAGES)
    expected = plain.model.generate(**inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
    texts = plain.tokenizer.batch_decode(
        expected.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    steps: list[torch.Tensor] = []
    head = guard.language_model.get_output_embeddings()
    handle = head.register_forward_hook(lambda *args: steps.append(args[2][:, -1].clone()))
    with guard.disabled():
        found = guard.generate(IMAGES, PROMPTS, **GREEDY)
    handle.remove()
    assert len(steps) == len(expected.logits)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(steps, expected.logits, strict=True))
    assert [reply.text for reply in found] == [text.strip() for text in texts]
    chats = [
        make_chat(prompt, len(images) if isinstance(images, list) else 1)
        for prompt, images in zip(PROMPTS, IMAGES, strict=True)
    ]
    flat = [image for images in IMAGES for image in (images if isinstance(images, list) else [images])]
    encoded = encode(guard.backbone, chats, flat, safety_tokens=0).tensors
    assert set(encoded) == set(inputs)
    with torch.no_grad(), guard.disabled():
        assert torch.equal(guard.language_model(**encoded).logits, plain.model(**inputs).logits)


def test_replayed_vision_features_are_those_of_the_backbones_own_pass(guard):
    flat = [picture(1, (20, 24)), picture(2, (40, 18))]
    chats = [make_chat(prompt, 1) for prompt in PROMPTS[:2]]
    tensors = encode(guard.backbone, chats, flat, safety_tokens=0).tensors
    tower = guard.backbone.tower
    with torch.no_grad():
        plain = guard.language_model(**tensors).logits
        with tower.replay(tower(tower.preprocess(flat)), [[0], [1]]):
            replayed = guard.language_model(**tensors).logits
    torch.testing.assert_close(replayed, plain, rtol=1e-4, atol=1e-4)


def test_safety_tokens_stand_directly_before_each_image(guard):
    flat = [IMAGES[0], *IMAGES[2]]
    chats = [make_chat(PROMPTS[0], 1), make_chat(PROMPTS[2], 2)]
    plain = encode(guard.backbone, chats, flat, safety_tokens=0)
    marked = encode(guard.backbone, chats, flat, safety_tokens=3)
    assert marked.token_mask.sum(dim=1).tolist() == [3, 6]
    for row in range(2):
        kept = marked.tensors["attention_mask"][row].bool() & ~marked.token_mask[row]
        own = plain.tensors["input_ids"][row][plain.tensors["attention_mask"][row].bool()]
        assert torch.equal(marked.tensors["input_ids"][row][kept], own)
        opening = guard.backbone.family.opening_id(guard.backbone.processor, guard.language_model.config)
        ends = (marked.token_mask[row][:-1] & ~marked.token_mask[row][1:]).nonzero()[:, 0] + 1
        assert set(marked.tensors["input_ids"][row][ends].tolist()) == {opening}


def test_batches_items_cache_and_stream_agree(guard):
    together = [reply.text for reply in guard.generate(IMAGES, PROMPTS, **GREEDY)]
    alone = [guard.generate([i], [p], **GREEDY)[0].text for i, p in zip(IMAGES, PROMPTS, strict=True)]
    assert together == alone
    uncached = [reply.text for reply in guard.generate(IMAGES, PROMPTS, use_cache=False, **GREEDY)]
    assert together == uncached
    streamed = "".join(guard.stream(IMAGES[0], PROMPTS[0], **GREEDY))
    assert streamed.strip() == together[0]


def test_tokens_change_the_answer_and_text_alone_passes(guard):
    inputs = [[picture(1, (20, 24))], ["Hi"]]
    with torch.no_grad():
        tensors = encode(guard.backbone, [make_chat("Hi", 1)], inputs[0], safety_tokens=0).tensors
        plain = guard.language_model(**tensors).logits[0, -1]
    out = guard(inputs[0], ["Hi"], ["Yes"])
    assert torch.isfinite(out.lm_losses).all()
    marked = encode(guard.backbone, [make_chat("Hi", 1)], inputs[0], safety_tokens=3)
    with torch.no_grad(), injected(guard.backbone, marked, tokens=guard.safety.tokens.prompt, passed=None):
        steered = guard.language_model(**marked.tensors).logits[0, -1]
    assert not torch.allclose(plain, steered)
    reply = guard.generate([None], ["Hello"], **GREEDY)[0]
    assert reply.assessment is None
    assert reply.action is Action.ALLOW


def test_text_alone_equals_the_plain_backbone(guard):
    if guard.backbone.model_type == "paligemma":
        pytest.skip("its processor refuses text without an image")
    prompts, images = ["Hello", "And what else?"], [[], []]
    plain = family_backbone(guard.backbone.model_type)
    inputs = plain_inputs(plain, prompts, images)
    made = plain.model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    expected = guard.backbone.tokenizer.batch_decode(made, skip_special_tokens=True)
    with guard.disabled():
        off = guard.generate(images, prompts, **GREEDY)
    on = guard.generate(None, prompts, **GREEDY)
    assert (
        [reply.text for reply in off] == [text.strip() for text in expected] == [reply.text for reply in on]
    )
    encoded = encode(guard.backbone, [make_chat(p, 0) for p in prompts], [], safety_tokens=3).tensors
    with torch.no_grad():
        assert torch.equal(guard.language_model(**encoded).logits, plain.model(**inputs).logits)


def test_rows_of_text_alone_are_the_same_in_any_batch(guard):
    images, prompts = (
        [None, IMAGES[0], IMAGES[2], None],
        ["Hello", *PROMPTS[:1], PROMPTS[2], "And what else?"],
    )
    together = [reply.text for reply in guard.generate(images, prompts, **GREEDY)]
    alone = [guard.generate([i], [p], **GREEDY)[0].text for i, p in zip(images, prompts, strict=True)]
    assert together == alone
    chats = [make_chat("Hello", 0), make_chat("Hi", 1)]
    mixed = encode(guard.backbone, chats, [IMAGES[0]], safety_tokens=0, answers=["Yes", "No"]).tensors
    own = encode(guard.backbone, chats[:1], [], safety_tokens=0, answers=["Yes"]).tensors
    kept = mixed["attention_mask"][0].bool()
    for name, tensor in own.items():
        assert torch.equal(mixed[name][0][kept], tensor[0]), name


def test_text_alone_is_written_as_after_an_image():
    backbone = family_backbone("paligemma")
    chats = [make_chat("Hello", 0), make_chat("Hello", 1)]
    tensors = encode(backbone, chats, [IMAGES[0]], safety_tokens=0).tensors
    text, both = (
        [token for token, kept in zip(ids.tolist(), mask.tolist(), strict=True) if kept]
        for ids, mask in zip(tensors["input_ids"], tensors["attention_mask"], strict=True)
    )
    assert text == [token for token in both if token != backbone.model.config.image_token_id]


def test_one_tower_pass(guard):
    seen = towers_runs(guard)
    try:
        guard.generate(IMAGES[:2], PROMPTS[:2], **GREEDY)
    finally:
        guard.handle.remove()
    assert len(seen) == 1


def test_scores_and_heatmaps_in_the_images_frame(guard):
    flat = [IMAGES[0], IMAGES[1], picture(5, (64, 16))]
    together = guard.assess(flat, heatmap=True)
    for one, image in zip(together, flat, strict=True):
        assert one.score == pytest.approx(guard.assess([image])[0].score, abs=1e-5)
        assert one.heatmap.max() == pytest.approx(1.0)
        assert one.heatmap.min() >= 0


@pytest.mark.training
def test_training_lowers_the_loss_and_reload_gives_equal_scores(guard, tmp_path):
    image, other = picture(1, (20, 24)), picture(2, (40, 18))
    fresh = SafeVLM.attach(guard.backbone, tiny_config())
    fresh.safety.requires_grad_(True)
    optimizer = torch.optim.AdamW(fresh.safety.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        out = fresh([image, other], ["Hi", "What?"], ["No", "Yes"])
        levels, _ = out.head.logits()
        loss = out.lm_loss + torch.nn.functional.cross_entropy(levels, torch.tensor([3, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    fresh.save_pretrained(tmp_path)
    again = SafeVLM.from_pretrained(tmp_path, backbone=guard.backbone)
    assert again.assess([image])[0].score == fresh.assess([image])[0].score
    assert fresh.config.vision_dim == guard.backbone.tower.dim


def test_the_tower_alone_scores_as_the_whole_model(guard, tmp_path):
    guard.language_model.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    guard.backbone.processor.save_pretrained(tmp_path / "base")
    guard.save_pretrained(tmp_path / "adapter")
    scorer = RiskScorer.from_pretrained(tmp_path / "adapter", backbone=tmp_path / "base")
    flat = [IMAGES[0], IMAGES[1]]
    own, whole = scorer.assess(flat, ["Hi", ""]), guard.assess(flat, ["Hi", ""])
    rounding = 1e-4 if guard.backbone.family.folds_norms else 0.0
    for one, other in zip(own, whole, strict=True):
        assert abs(one.score - other.score) <= rounding
    read = scorer.tower.layers_read
    if read is not None:
        assert scorer.tower.module.config.num_hidden_layers == read


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(BackboneError, match=r"bert.*known: .*gemma3.*qwen3_vl.*To add one"):
        family_of(BertConfig())
