"""Folders of real checkpoints lack entries: answers are those of the complete folder, or loading names the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from safevlm import SafeVLM
from safevlm.backbone import load_backbone, wrap_backbone
from safevlm.errors import BackboneError
from safevlm.guard import lm_losses
from tests.families import family_backbone, family_parts
from tests.tiny import picture, tiny_config, tiny_llava, tiny_processor

PROCESSOR, TOKENIZER = "processor_config.json", "tokenizer_config.json"
COUNTS = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens", "image_token")
MISSING = {
    "no pad token": {TOKENIZER: ["pad_token"]},
    "no pad token anywhere": {TOKENIZER: ["pad_token"], "config.json": ["pad_token_id"], "generation_config.json": ["pad_token_id"]},
    "no eos token": {TOKENIZER: ["eos_token"]},
    "no end of generation": {"generation_config.json": ["eos_token_id", "pad_token_id"], "config.json": ["eos_token_id"]},
    **{f"no {name}": {PROCESSOR: [name]} for name in COUNTS},
    "an older processor": {PROCESSOR: [*COUNTS]},
}  # fmt: skip
IMAGES, PROMPTS = [picture(1), picture(2, (40, 18))], ["Hi", "What is on this picture?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("complete")
    backbone = family_backbone("llava")
    backbone.model.save_pretrained(path)
    backbone.processor.save_pretrained(path)
    return path


def edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def without(folder: Path, missing: dict[str, list[str]]) -> None:
    for file, names in missing.items():
        path = folder / file
        values = json.loads(path.read_text())
        for name in names:
            values.pop(name, None)
            values.get("text_config", {}).pop(name, None)
        path.write_text(json.dumps(values))


def outcome(folder: Path) -> tuple[list[str], torch.Tensor]:
    """Answers, and the losses of a training row."""
    torch.manual_seed(0)
    guard = SafeVLM.attach(load_backbone(folder), tiny_config())
    losses = lm_losses(guard.backbone, guard.safety, IMAGES, PROMPTS, ["a", "two"])
    with guard.disabled():
        replies = guard.generate(IMAGES, PROMPTS, max_new_tokens=5, do_sample=False)
    return [reply.text for reply in replies], losses


@pytest.fixture(scope="module")
def complete(folder):
    return outcome(folder)


def check(folder: Path, complete) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    texts, losses = outcome(folder)
    assert texts == complete[0]
    assert torch.equal(losses, complete[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("case", MISSING)
def test_what_the_config_knows_is_filled_in(folder, complete, tmp_path, case):
    copied = shutil.copytree(folder, tmp_path / "copied")
    without(copied, MISSING[case])
    check(copied, complete)


def test_a_preprocessor_config_alone_and_padding_on_the_right(folder, complete, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    values = json.loads((copied / PROCESSOR).read_text())
    (copied / PROCESSOR).unlink()
    (copied / "preprocessor_config.json").write_text(json.dumps(values["image_processor"]))
    edit(copied / TOKENIZER, lambda values: values.update(padding_side="right"))
    check(copied, complete)


@pytest.mark.parametrize("place", ["chat_template.json", TOKENIZER, "a list of them"])
def test_chat_templates_in_their_older_places(folder, complete, tmp_path, place):
    copied = shutil.copytree(folder, tmp_path / "copied")
    template = (copied / "chat_template.jinja").read_text()
    (copied / "chat_template.jinja").unlink()
    if place == "chat_template.json":
        (copied / place).write_text(json.dumps({"chat_template": template}))
    else:
        named = [{"name": "default", "template": template}, {"name": "rag", "template": "x"}]
        given = template if place == TOKENIZER else named
        edit(copied / TOKENIZER, lambda values: values.update(chat_template=given))
    check(copied, complete)


def test_a_template_that_is_missing_or_for_text_alone(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    for template, said in (
        ("", "no chat template; put the model's chat_template.jinja"),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}",
            "does not write an image part as '<image>'",
        ),
        ("{{ raise_exception('text only') }}", "does not write an image part .*text only"),
    ):
        (copied / "chat_template.jinja").write_text(template)
        with pytest.raises(BackboneError, match=said):
            load_backbone(copied)


def test_no_end_of_answers_anywhere_is_refused():
    model, processor = tiny_llava(), tiny_processor()
    processor.tokenizer.eos_token = None
    for config in (model.generation_config, model.config.text_config, model.config):
        config.eos_token_id = None
    with pytest.raises(BackboneError, match="names a eos token, which ends answers; set `eos_token`"):
        wrap_backbone(model, processor)


def test_an_end_of_generation_that_is_no_token(caplog):
    model = tiny_llava()
    model.generation_config.eos_token_id = [99999, 2]
    assert wrap_backbone(model, tiny_processor()).end_ids == (2,)
    assert "99999" in caplog.text


def test_an_image_token_that_the_tokenizer_does_not_have():
    model = tiny_llava()
    model.config.image_token_id = 263
    with pytest.raises(BackboneError, match="no image token with the id 263"):
        wrap_backbone(model, tiny_processor())
    with pytest.raises(BackboneError, match="without tokenizer"):
        wrap_backbone(tiny_llava(), tiny_processor().image_processor)


@pytest.mark.parametrize(
    ("kind", "part", "attribute"),
    [
        ("llava_next", "", "patch_size"),
        ("llava_next", "image_processor", "image_grid_pinpoints"),
        ("llava_onevision", "", "num_image_tokens"),
        ("vipllava", "", "num_additional_image_tokens"),
        ("gemma3", "", "image_seq_length"),
        ("internvl", "", "image_seq_length"),
        ("idefics3", "", "image_seq_len"),
        ("smolvlm", "", "image_seq_len"),
        ("qwen2_5_vl", "image_processor", "patch_size"),
        ("qwen3_vl", "image_processor", "merge_size"),
    ],
)
def test_every_familys_counts_come_from_the_config(kind, part, attribute):
    _, processor = family_parts(kind)
    holder = getattr(processor, part) if part else processor
    right = getattr(holder, attribute)
    wrong = [[99, 99]] if isinstance(right, list) else 7
    setattr(holder, attribute, wrong)
    model = family_backbone(kind).model
    wrap_backbone(model, processor)
    assert getattr(holder, attribute) == right
