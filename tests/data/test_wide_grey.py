"""Grey of 16 and 32 bits is scaled in strips, which nobody can tell from the picture."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from safevlm.data import read_image
from tests.data.builders import encoded


def grey_as_a_whole(image: Image.Image) -> np.ndarray:
    """The formula of `_grey` on all pixels at once."""
    limits = np.finfo(np.float32)
    values = np.asarray(image).astype(np.float64)
    finite = np.nan_to_num(values, nan=0.0, posinf=limits.max, neginf=limits.min)
    low, high = float(finite.min()), float(finite.max())
    whites = [65535.0] if image.mode.startswith("I;16") else [255.0, 65535.0]
    white = next(
        (w for w in ([1.0, *whites] if image.mode == "F" else whites) if low >= 0 and high <= w), None
    )
    low, high = (0.0, white) if white is not None else (low, high)
    return np.rint((finite - low) * (255.0 / (high - low or 1.0))).astype(np.uint8)


@pytest.mark.parametrize("strip", [1, 100, 1000, 1 << 20])
def test_wide_grey_in_strips_is_what_it_is_as_a_whole(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safevlm.data.image._STRIP", strip)
    rng = np.random.default_rng(0)
    special = rng.normal(0, 1e6, (37, 23)).astype(np.float32)
    special[3, 5], special[30, 2], special[7, 7] = np.nan, np.inf, -np.inf
    sixteen = rng.integers(0, 65536, (37, 23), dtype=np.uint16)
    images = [
        Image.fromarray(sixteen),
        Image.frombytes("I;16B", (23, 37), sixteen.astype(">u2").tobytes()),
        *(
            Image.fromarray(rng.integers(0, top, (37, 23), dtype=np.int32))
            for top in (200, 60_000, 2**31 - 1)
        ),
        Image.fromarray(rng.integers(-(2**31), 2**31 - 1, (37, 23), dtype=np.int32)),
        Image.fromarray(rng.random((37, 23), dtype=np.float32)),
        Image.fromarray(special),
        Image.fromarray(np.full((37, 23), -5, np.int32)),
    ]
    for image in images:
        assert np.array_equal(np.asarray(read_image(image))[..., 0], grey_as_a_whole(image)), image.mode
    keyed = Image.fromarray(np.repeat(np.arange(37, dtype=np.uint16), 23).reshape(37, 23))
    found = np.asarray(read_image(encoded(keyed, "PNG", transparency=30)))[..., 0]
    expected = grey_as_a_whole(keyed)
    expected[30] = 255
    assert np.array_equal(found, expected)


def test_a_large_deep_picture_takes_little_more_than_its_pixels() -> None:
    image = Image.new("I;16", (6000, 2000), 30_000)  # 24 MB; in float64 at once: 96 MB a copy
    tracemalloc.start()
    found = read_image(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.getpixel((0, 0)) == (117, 117, 117)
    assert peak < 80_000_000
