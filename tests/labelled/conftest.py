"""Images that the tables of these tests name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.builders import png, shade


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 0.png, 1.png and 2.png."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(shade(number, number)))
    return tmp_path
