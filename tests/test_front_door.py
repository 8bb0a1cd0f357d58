"""What a user of Hugging Face's libraries reaches for."""

from __future__ import annotations

import pickle

import pytest
import torch

import safevlm
from safevlm import Action, RiskAssessment, RiskScorer, SafeVLM, Verdict, load_backbone
from safevlm.errors import CheckpointError
from tests.tiny import picture, tiny_guard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`base`: the tiny model in bfloat16; `guard`: modules on it."""
    found = tmp_path_factory.mktemp("front-door")
    guard = tiny_guard()
    guard.config = guard.config.with_changes(backbone=str(found / "base"))
    guard.save_pretrained(found / "guard")
    guard.language_model.to(torch.bfloat16).save_pretrained(found / "base")
    guard.processor.save_pretrained(found / "base")
    return found


@pytest.fixture(params=[SafeVLM, RiskScorer])
def kind(request):
    return request.param


def test_the_front_door_has_them():
    assert {"Action", "Verdict", "load_backbone"} <= set(safevlm.__all__)
    assert (Action.REFUSE.value, Verdict.UNDECIDED.value) == ("refuse", "undecided")


def test_device_dtype_processor_and_tokenizer(guard):
    for model in (guard, guard.scorer):
        assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
        assert model.tokenizer is guard.backbone.tokenizer
    assert guard.processor is guard.backbone.processor
    assert guard.scorer.processor is guard.processor.image_processor


def test_the_tokenizer_of_a_scorer_is_loaded_when_it_is_asked_for(folder):
    scorer = RiskScorer.from_pretrained(folder / "guard")
    assert scorer.tokenizer("Hi")["input_ids"] == tiny_guard().tokenizer("Hi")["input_ids"]
    alone = RiskScorer.attach(
        folder / "base", safevlm.SafetyConfig(safevlm.Taxonomy.preset("safevlm"), hidden_dim=8, depth=1)
    )
    with pytest.raises(CheckpointError, match="read no prompts"):
        _ = alone.tokenizer


def test_to_moves_and_casts_in_place(folder):
    scorer = RiskScorer.from_pretrained(folder / "guard")
    (before,) = scorer(picture(), "Hi")
    assert scorer.to("cpu") is scorer
    assert scorer(picture(), "Hi")[0] == before
    assert scorer.to(torch.bfloat16).dtype is torch.bfloat16
    assert (
        scorer.safety.projector.last.weight.dtype is torch.float32
    )  # as it is loaded beside such a tower on a CPU
    assert scorer(picture(), "Hi")[0].score == pytest.approx(before.score, abs=0.1)
    assert scorer.to(dtype=torch.float32).dtype is torch.float32
    if torch.cuda.is_available():
        assert scorer.to("cuda").device.type == scorer.safety.projector.last.weight.device.type == "cuda"
        assert scorer(picture(), "Hi")[0].score == pytest.approx(before.score, abs=0.1)
    assert pickle.loads(pickle.dumps(scorer)).dtype is torch.float32  # noqa: S301


def test_a_guard_is_moved_as_any_module(guard):
    before = guard.assess(picture(), "Hi")[0].score
    assert guard.to(torch.bfloat16) is guard
    assert guard.dtype is guard.scorer.dtype is torch.bfloat16
    assert guard.assess(picture(), "Hi")[0].score == pytest.approx(before, abs=0.1)
    assert guard.generate(picture(), "Hi", max_new_tokens=2)[0].assessment.score is not None


def test_reprs_are_one_line(guard):
    assert repr(guard) == "SafeVLM('tiny', backbone='llava', 7 categories, cpu)"
    assert repr(guard.scorer) == "RiskScorer('tiny', tower='clip_vision_model', 7 categories, cpu)"
    found = RiskAssessment(0.91234, level="refuse", category="politics", verdict=Verdict.UNSAFE)
    assert repr(found) == "RiskAssessment(score=0.912, level='refuse', category='politics', verdict='unsafe')"
    hostile = repr(RiskAssessment(None, reason="a\nb\x1b[2J" * 100))
    assert hostile.startswith(
        "RiskAssessment(score=None, level=None, category=None, verdict='undecided', reason='a"
    )
    assert len(hostile) < 250
    assert hostile.isprintable()


def test_torch_dtype_is_the_older_name_of_dtype(folder, kind, caplog):
    assert kind.from_pretrained(folder / "guard", torch_dtype="bfloat16").dtype is torch.bfloat16
    assert "`torch_dtype` is deprecated! Use `dtype` instead!" in caplog.text
    assert load_backbone(folder / "base", torch_dtype=torch.float64).model.dtype is torch.float64
    with pytest.raises(ValueError, match="give dtype alone"):
        kind.from_pretrained(folder / "guard", torch_dtype="bfloat16", dtype="float32")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without a GPU")
def test_device_map_auto_on_a_cpu_is_float32(folder, kind):
    assert kind.from_pretrained(folder / "guard", device_map="auto").dtype is torch.float32
    assert kind.from_pretrained(folder / "guard", device_map="auto", dtype="auto").dtype is torch.bfloat16
