"""Documents name only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "training" / "README.md"])
NAMED = re.compile(r"(?<![\w./-])(?:safevlm|training|tests|docs|examples|checkpoints)/[\w./-]*\w(?:\.\w+|/)")
LINKED = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_is_there(page):
    text = page.read_text("utf-8")
    named = {ROOT / name for name in NAMED.findall(text)}
    linked = {page.parent / name for name in LINKED.findall(text)}
    missing = sorted(str(path) for path in named | linked if not path.exists())
    assert not missing
