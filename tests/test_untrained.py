"""Modules that `attach` made say that they are untrained wherever their scores are seen, until they are trained."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from safevlm import RiskScorer, SafeVLM
from safevlm.cli import main
from safevlm.data import open_source
from safevlm.model_card import UNTRAINED
from safevlm.scan import scan, write_report
from tests.tiny import picture, tiny_backbone, tiny_config, tiny_guard

SHORT = {"max_new_tokens": 1, "do_sample": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`base`: the tiny model; `guard`: untrained modules on it; `images`: two."""
    found = tmp_path_factory.mktemp("untrained")
    backbone = tiny_backbone()
    backbone.model.save_pretrained(found / "base")
    backbone.processor.save_pretrained(found / "base")
    SafeVLM.attach(backbone, tiny_config(backbone=str(found / "base"))).save_pretrained(found / "guard")
    (found / "images").mkdir()
    for seed in range(2):
        picture(seed).save(found / "images" / f"{seed}.png")
    return found


def test_assess_and_generate_warn_once_and_the_assessment_says_so(caplog):
    guard = SafeVLM.attach(tiny_backbone(), tiny_config())
    with caplog.at_level(logging.WARNING):
        (found,) = guard.assess(picture())
        (reply,) = guard.generate(picture(), "Hi", **SHORT)
        guard.scorer(picture())
    assert len(caplog.records) == 1
    assert "UNTRAINED" in caplog.text
    assert "mean nothing" in caplog.text
    assert found.untrained
    assert reply.assessment.untrained
    assert found.to_dict()["untrained"] is True
    assert repr(found).endswith(", untrained)")
    assert repr(guard).endswith(", untrained)")
    with torch.no_grad():
        guard.safety.head.query_vector.fill_(float("nan"))
    assert guard.assess(picture())[0].untrained  # undecided, too


def test_a_tower_alone_is_marked_too(folder, caplog):
    scorer = RiskScorer.attach(folder / "base", tiny_config())
    assert scorer.config.untrained
    assert scorer(picture())[0].untrained
    assert "UNTRAINED" in caplog.text


def test_trained_modules_say_nothing(caplog):
    guard = tiny_guard()
    assert not guard.assess(picture())[0].untrained
    assert "untrained" not in repr(guard)
    assert not caplog.records


def test_saving_keeps_the_mark_and_the_card_has_it(folder, tmp_path):
    scorer = RiskScorer.from_pretrained(folder / "guard")
    assert scorer.config.untrained
    scorer.save_pretrained(tmp_path)
    assert RiskScorer.from_pretrained(tmp_path).config.untrained
    assert SafeVLM.from_pretrained(folder / "guard").config.untrained
    for card in (folder / "guard" / "README.md", tmp_path / "README.md"):
        assert "**Do not use it: its safety modules are UNTRAINED" in card.read_text()
    tiny_guard().save_pretrained(tmp_path / "trained")
    assert "UNTRAINED" not in (tmp_path / "trained" / "README.md").read_text()


def test_the_command_line_and_the_summary_of_a_scan_say_so(folder, tmp_path, capsys):
    image, model = str(folder / "images" / "0.png"), ["--model", str(folder / "guard")]
    assert main(["assess", image, *model]) == 0
    assert "UNTRAINED" in capsys.readouterr().out
    assert main(["assess", image, *model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["untrained"] is True
    assert main(["scan", str(folder / "images"), "--out", str(tmp_path / "out"), *model]) == 0
    assert "UNTRAINED" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["untrained"] is True
    page = (tmp_path / "out" / "report.html").read_text()
    assert UNTRAINED in re.findall(r'<p class="notice" role="status">(.*?)</p>', page)[0]


def test_the_summary_of_trained_modules_does_not(folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    summary = scan(
        open_source(str(tmp_path / "a.png").rsplit("/", 1)[0]), tiny_guard().scorer, tmp_path.parent / "out"
    )
    assert not summary.untrained
    page = write_report(tmp_path.parent / "out", summary).read_text()
    assert "UNTRAINED" not in page
    assert "<dt>Untrained</dt>" not in page
