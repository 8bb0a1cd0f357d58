"""Folders of classes as a table."""

from __future__ import annotations

import pytest

from safevlm import Taxonomy
from safevlm.errors import DataError
from safevlm.labelled import read_table
from tests.training.builders import png, shade

TAXONOMY = Taxonomy.preset("safevlm")


def test_class_folders(tmp_path):
    for place in ("clean/a.png", "illegal/b.png", "illegal/caution/c.png", "val/insults/d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(png(shade(0, len(place))))
    found = {row.image.name: row for row in read_table(tmp_path, TAXONOMY)}
    names = TAXONOMY.category_names
    assert {
        name: (names[row.category], TAXONOMY.levels[row.level], row.split) for name, row in found.items()
    } == {
        "a.png": ("clean", "safe", ""),
        "b.png": ("illegal", "refuse", ""),
        "c.png": ("illegal", "caution", ""),
        "d.png": ("insults", "refuse", "tune"),
    }
    (tmp_path / "weapons").mkdir()
    (tmp_path / "weapons" / "e.png").write_bytes(png(shade(0, 0)))
    (tmp_path / "loose.png").write_bytes(png(shade(0, 0)))
    with pytest.raises(DataError) as raised:
        read_table(tmp_path, TAXONOMY)
    assert "is 'weapons', not in taxonomy" in str(raised.value)
    assert "loose.png: row 1, column (path): does not stand in" in str(raised.value)


def test_class_folders_whatever_their_case(tmp_path):
    for place in ("Clean/a.png", "ILLEGAL/Caution/b.png", "Val/Insults/c.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(png(shade(0, len(place))))
    names = TAXONOMY.category_names
    assert {
        row.image.name: (names[row.category], TAXONOMY.levels[row.level], row.split)
        for row in read_table(tmp_path, TAXONOMY)
    } == {
        "a.png": ("clean", "safe", ""),
        "b.png": ("illegal", "caution", ""),
        "c.png": ("insults", "refuse", "tune"),
    }


def test_class_folders_lose_no_file_silently(tmp_path, caplog):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for place in (inside / "illegal", inside / ".cache", inside / "holdout" / "illegal", outside):
        place.mkdir(parents=True)
    for place in ("illegal/a.png", ".cache/b.png", "illegal/.c.png", "holdout/illegal/d.png"):
        (inside / place).write_bytes(png(shade(0, len(place))))
    (inside / "illegal" / "noimage").write_text("words")
    (inside / "privacy").symlink_to(outside)
    with pytest.raises(DataError) as raised:
        read_table(inside, TAXONOMY)
    assert "3 bad of 4 rows" in str(raised.value)
    assert "d.png: row 1, column (path): 'holdout' is no split; known are train" in str(raised.value)
    assert "privacy: row 1, column (path): is a symlink to a folder" in str(raised.value)
    assert "noimage: row 1, column image: " in str(raised.value)
    assert "passed over 2 hidden files and folders" in caplog.text
