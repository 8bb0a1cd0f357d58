"""Several rows per prompt in every family: beams and samples, with several images in a prompt."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationMixin

from safevlm.backbone import encode, injected, make_chat
from tests.families import IMAGES, PROMPTS, family_backbone, plain_inputs

BEAMS = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2}
SAMPLES = {"max_new_tokens": 5, "do_sample": True, "num_return_sequences": 3, "suppress_tokens": [3]}
"""The image token is kept out: without a cache it would be read as one more image."""


OLD = not hasattr(GenerationMixin, "_expand_multimodal_outputs")
"""Older versions of transformers repeat pixel values for beams, not features."""
DEFECTS = {
    "paligemma": "without a cache this transformers lets the prompt read PaliGemma's answer",
    "llava_next": "this transformers gives the beams of several images each other's sizes",
}
"""Of older versions alone, and the same without safety tokens."""


def skip_defect(guard, kind):
    if OLD and guard.backbone.model_type == kind:
        pytest.skip(DEFECTS[kind])


def answers(guard, prompts=PROMPTS, images=IMAGES, **options):
    return [reply.text for reply in guard.generate(images, prompts, **options)]


def test_disabled_beams_equal_the_plain_backbones(guard):
    plain = family_backbone(guard.backbone.model_type)
    inputs = plain_inputs(plain, PROMPTS, IMAGES)
    made = plain.model.generate(**inputs, **BEAMS)
    texts = guard.backbone.tokenizer.batch_decode(
        made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    with guard.disabled():
        assert answers(guard, **BEAMS) == [text.strip() for text in texts]


def test_beams_of_batches_items_and_no_cache_agree(guard):
    skip_defect(guard, "paligemma")
    together = answers(guard, **BEAMS)
    assert together == answers(guard, use_cache=False, **BEAMS)
    assert together == [
        answers(guard, [prompt], [images], **BEAMS)[0] for prompt, images in zip(PROMPTS, IMAGES, strict=True)
    ]


def test_beams_see_what_one_row_sees(guard):
    """Each beam's first scores are those of a forward pass with the safety tokens in place."""
    skip_defect(guard, "llava_next")
    images = [image for entry in IMAGES for image in (entry if isinstance(entry, list) else [entry])]
    counts = [len(entry) if isinstance(entry, list) else 1 for entry in IMAGES]
    chats = [make_chat(prompt, count) for prompt, count in zip(PROMPTS, counts, strict=True)]
    tower = guard.backbone.tower
    passed = tower(tower.preprocess(images))
    inputs = encode(guard.backbone, chats, images, safety_tokens=3)
    with torch.no_grad(), injected(guard.backbone, inputs, tokens=guard.safety.tokens.prompt, passed=passed):
        plain = guard.language_model(**inputs.tensors).logits[:, -1]
        made = guard.language_model.generate(
            **inputs.tensors, max_new_tokens=1, num_beams=3, output_logits=True, return_dict_in_generate=True
        )
    torch.testing.assert_close(made.logits[0], plain.repeat_interleave(3, dim=0), rtol=1e-4, atol=1e-4)


def test_the_first_of_several_samples_is_the_reply(guard):
    torch.manual_seed(5)
    found = answers(guard, **SAMPLES)
    torch.manual_seed(5)
    assert found == answers(guard, use_cache=False, **SAMPLES)
    assert len(found) == len(PROMPTS)
    inputs = plain_inputs(guard.backbone, PROMPTS, IMAGES)
    torch.manual_seed(5)
    made = guard.language_model.generate(**inputs, **SAMPLES)[::3, inputs["input_ids"].shape[1] :]
    texts = guard.backbone.tokenizer.batch_decode(made, skip_special_tokens=True)
    with guard.disabled():
        torch.manual_seed(5)
        assert answers(guard, **SAMPLES) == [text.strip() for text in texts]
