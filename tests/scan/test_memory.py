"""Memory does not grow with the source."""

from __future__ import annotations

import pytest

from tests.scan.memory import measure

pytestmark = pytest.mark.slow
SMALL, LARGE = 1200, 6000
GROWTH = 15  # MB; a scan that kept 4 kB of each image would take 19 more. Real sizes: `python -m tests.scan.memory 10000 200000`


def test_five_times_the_images_take_the_same_memory() -> None:
    small, large = measure(SMALL), measure(LARGE)
    assert large["peak_mb"] - small["peak_mb"] < GROWTH
