"""What is taken for an image, and that a single one stands for a list of one."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from safevlm.opening import open_image
from safevlm.types import Verdict
from tests.tiny import picture, tiny_guard

PICTURE = picture(1, (6, 5))
PIXELS = np.asarray(PICTURE)


def encoded() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    return buffer.getvalue()


def tensor(dtype: torch.dtype) -> torch.Tensor:
    values = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    return values if dtype is torch.uint8 else (values / 255).to(dtype)


@pytest.fixture(scope="module")
def guard():
    return tiny_guard()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    return tmp_path / "a.png"


def test_every_kind_of_image_has_the_same_pixels(path):
    data, url = encoded(), f"data:image/png;base64,{base64.b64encode(encoded()).decode()}"
    half_read = io.BytesIO(data)
    half_read.read(5)
    with path.open("rb") as file:
        kinds = [PICTURE, path, str(path), data, bytearray(data), memoryview(data), file, half_read, url, f" {url.upper()[:5]}{url[5:]}",
                 PIXELS, np.asfortranarray(PIXELS), PIXELS[::-1][::-1], tensor(torch.uint8), tensor(torch.float32), tensor(torch.float64).requires_grad_()]  # fmt: skip
        for kind in kinds:
            found = open_image(kind)
            assert isinstance(found, Image.Image), (type(kind), found)
            assert np.array_equal(np.asarray(found), PIXELS), type(kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds(dtype):
    found = np.asarray(open_image(tensor(dtype))).astype(int)
    assert np.abs(found - PIXELS).max() <= (1 if dtype is torch.bfloat16 else 0)


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (PIXELS.transpose(2, 0, 1), ValueError, "(H, W, 3), RGB; got (3, 5, 6): transpose"),
        (PIXELS[..., 0], ValueError, "repeat a grey"),
        (PIXELS[None], ValueError, "list(batch)"),
        (np.zeros((3, 9, 3), np.uint8), ValueError, "may be (H, W, 3) or (3, H, W)"),
        (PIXELS / 255, TypeError, "uint8, 0..255; got float64"),
        (PIXELS.astype(np.uint16), TypeError, "got uint16"),
        (torch.from_numpy(PIXELS.copy()), ValueError, "(3, H, W), RGB; got (5, 6, 3): permute"),
        (tensor(torch.uint8)[None], ValueError, "list(batch)"),
        (torch.zeros(3, 9, 3), ValueError, "may be (3, H, W) or (H, W, 3)"),
        (tensor(torch.float32) * 255, ValueError, "not in [0, 1]; undo a normalisation"),
        (tensor(torch.float32) - 0.5, ValueError, "not in [0, 1]"),
        (torch.full((3, 4, 5), float("nan")), ValueError, "not in [0, 1]"),
        (tensor(torch.uint8).int(), TypeError, "got torch.int32"),
        (io.StringIO("x"), TypeError, "mode 'rb'"),
        (5, TypeError, "an image is a PIL image, a path"),
        ([PICTURE], TypeError, "got list"),
    ],
)
def test_what_is_ambiguous_is_refused_by_a_sentence(guard, wrong, kind, said):
    for call in (
        lambda: guard.scorer.assess([PICTURE, wrong]),
        lambda: guard.generate([[wrong]], ["Hi"], max_new_tokens=1),
    ):
        with pytest.raises(kind, match=re.escape(said)):
            call()


@pytest.mark.parametrize(
    ("unreadable", "said"),
    [
        (np.zeros((0, 7, 3), np.uint8), "no pixels"),
        (torch.zeros(3, 7, 0), "no pixels"),
        ("data:image/png;base64,AAAA", "not an image"),
        ("data:image/png,plain", "without base64"),
        ("https://example.org/cat.png", "not fetched unless asked for; give allow_urls=True"),
        ("HTTP://127.0.0.1/cat.png", "allow_urls=True"),
    ],
)
def test_what_cannot_be_read_is_undecided(guard, unreadable, said):
    found = guard.assess([unreadable, PICTURE])
    assert (found[0].verdict, found[0].score) == (Verdict.UNDECIDED, None)
    assert said in found[0].reason
    assert found[1].score is not None


def test_a_closed_file_is_undecided(guard, path):
    with path.open("rb") as file:
        pass
    assert "closed file" in guard.assess(file)[0].reason


def test_an_inner_address_is_undecided_where_urls_are_allowed(guard):
    url = "http://127.0.0.1:9/cat.png"
    assert "no address of the public internet" in guard.assess(url, allow_urls=True)[0].reason
    assert "no address of the public internet" in guard.scorer(url, allow_urls=True)[0].reason
    reply = guard.generate(url, "Hi", allow_urls=True, max_new_tokens=1)[0]
    assert "no address of the public internet" in reply.assessment.reason
    reply = guard.stream(url, "Hi", allow_urls=True, max_new_tokens=1)
    assert "no address of the public internet" in reply.assessment.reason


def test_a_single_image_and_prompt_stand_for_a_list_of_one(guard, path):
    alone, together = guard.assess([PICTURE]), guard.assess([PICTURE], ["Hi"])
    with path.open("rb") as file:
        for image in (path, str(path), encoded(), PICTURE, PIXELS, tensor(torch.uint8), file):
            assert guard.assess(image) == alone
            assert guard.scorer(image, "Hi") == together
    assert guard.scorer.assess((one for one in [PICTURE]), "Hi") == together


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ((None,), TypeError, "images is a NoneType; give an image"),
        (({"image": PICTURE},), TypeError, "images is a dict"),
        (([],), ValueError, "got no images"),
        (([PICTURE, PICTURE], "Hi"), ValueError, "2 images and 1 prompts; give one per image, such as [prompt] * 2"),
        ((PICTURE, [{"role": "user", "content": "Hi"}]), TypeError, "prompt 0 is a dict; assess takes text"),
        ((PICTURE, b"Hi"), TypeError, "prompt 0 is a bytes"),
        ((PICTURE, 5), TypeError, "prompt 0 is a int"),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_by_a_sentence(guard, arguments, kind, said):
    for assess in (guard.assess, guard.scorer.assess):
        with pytest.raises(kind, match=re.escape(said)):
            assess(*arguments)
