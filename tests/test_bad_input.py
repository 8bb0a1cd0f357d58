"""What people and data throw at the guard: each case with the error or the reply that it gets."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from safevlm import SafeVLM
from safevlm.errors import BackboneError, SafeVLMError
from safevlm.types import Action, Verdict
from tests.tiny import picture, tiny_guard

SHORT = {"max_new_tokens": 2, "do_sample": False}


@pytest.fixture(scope="module")
def guard():
    return tiny_guard()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file per kind of unreadable image."""
    tmp_path = tmp_path_factory.mktemp("images")
    picture().save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "folder.jpg").mkdir()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("L", (1, 200_000)).save(tmp_path / "thin.png")  # small, but not once its short side is scaled
    return tmp_path


@pytest.mark.parametrize(
    "name", ["truncated.jpg", "empty.jpg", "text.jpg", "folder.jpg", "bomb.png", "thin.png", "missing.jpg"]
)
def test_an_unreadable_image_is_undecided_and_refused_and_costs_the_others_nothing(guard, files, name):
    found = guard.assess([files / "good.jpg", files / name], heatmap=True)
    assert found[1].verdict is Verdict.UNDECIDED
    assert found[1].score is None
    assert name in found[1].reason
    assert found[0].score == guard.assess([files / "good.jpg"])[0].score
    replies = guard.generate([files / name, None], ["What is it?", "Hello"], **SHORT)
    assert replies[0].action is Action.REFUSE
    assert replies[0].assessment.verdict is Verdict.UNDECIDED
    assert replies[1].action is Action.ALLOW


def test_the_plain_backbone_cannot_answer_about_an_unreadable_image(guard, files):
    with guard.disabled(), pytest.raises(ValueError, match="text.jpg"):
        guard.generate([files / "text.jpg"], ["What is it?"], **SHORT)


def test_one_unreadable_image_among_several_makes_the_prompt_undecided(guard, files):
    reply = guard.generate([[files / "good.jpg", files / "text.jpg"]], ["Compare"], **SHORT)[0]
    assert reply.action is Action.REFUSE
    assert reply.assessment.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_is_scored(guard, mode):
    image = (
        picture().convert("L").convert("I").convert(mode)
        if mode in ("I;16", "F")
        else picture().convert(mode)
    )
    assert guard.assess([image])[0].score is not None


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_tiny_and_thin_images_are_scored(guard, size):
    assert guard.assess([picture(size=size)])[0].score is not None


def test_empty_batches_are_refused(guard):
    with pytest.raises(ValueError, match="no images"):
        guard.assess([])
    with pytest.raises(ValueError, match="no prompts"):
        guard.generate([], [], **SHORT)


def test_counts_that_do_not_fit_are_refused(guard):
    with pytest.raises(ValueError, match="2 images and 1 prompts"):
        guard.assess([picture(), picture()], ["x"])
    with pytest.raises(ValueError, match="1 image entries and 2 prompts"):
        guard.generate([picture()], ["x", "y"], **SHORT)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
    with pytest.raises(ValueError, match="1 .* parts and 2 images"):
        guard.generate([[picture(), picture(1)]], [chat], **SHORT)
    with pytest.raises(ValueError, match="1 .* parts and 0 images"):
        guard.generate(None, [chat], **SHORT)


def test_an_empty_prompt_is_the_image_alone(guard):
    assert guard.assess([picture()], [""])[0].score == guard.assess([picture()])[0].score
    assert guard.generate([picture()], [""], **SHORT)[0].assessment is not None
    with pytest.raises(ValueError, match="empty and has no image"):
        guard.generate(None, ["  "], **SHORT)


def test_a_very_long_prompt_is_scored_but_not_cut_silently(guard):
    long = "word " * 20_000
    assert guard.assess([picture()], [long])[0].score is not None
    policy = guard.policy.from_dict(guard.policy.to_dict() | {"off": guard.config.taxonomy.risky_categories})
    with pytest.raises(ValueError, match="shorten it"):
        guard.generate([picture()], [long], policy=policy, **SHORT)


def test_placeholder_text_in_a_prompt_changes_no_other_tokens(guard):
    """The escaped text is what the model reads: the same as writing it with a space."""
    reply = guard.generate([picture()], ["<image><pad><pad><pad>"], **SHORT)[0]
    same = guard.generate([picture()], ["< image>< pad>< pad>< pad>"], **SHORT)[0]
    assert reply.text == same.text
    assert reply.assessment.score == same.assessment.score


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_undecided(guard, value):
    handle = guard.backbone.tower.module.embeddings.register_forward_hook(
        lambda _, __, output: torch.full_like(output, value)
    )
    try:
        found = guard.assess([picture()], heatmap=True)[0]
        reply = guard.generate([picture()], ["Hi"], **SHORT)[0]
    finally:
        handle.remove()
    assert found.verdict is Verdict.UNDECIDED
    assert found.score is None
    assert reply.action is Action.REFUSE
    assert guard.assess([picture()])[0].score is not None


def test_a_hub_id_without_a_network(tmp_path):
    with pytest.raises(SafeVLMError, match="network"):
        SafeVLM.from_pretrained("nobody/no-such-guard")
    guard = tiny_guard()
    guard.config = guard.config.with_changes(backbone="nobody/no-such-backbone")
    guard.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="no-such-backbone.*local folder"):
        SafeVLM.from_pretrained(tmp_path)
