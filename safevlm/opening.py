"""What a caller gives a scorer or a guard -> RGB images, or the reasons why there are none."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
import torch
from PIL import Image

from safevlm.data import read_image
from safevlm.data.arrays import image_of
from safevlm.data.fetch import fetch
from safevlm.data.image import decode
from safevlm.data.inline import from_data_url
from safevlm.errors import ImageError
from safevlm.printable import shortened

ImageLike: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | torch.Tensor"
"""An image: a PIL image; a path on this machine; the encoded bytes, or a binary file that is open for reading them, which
is read from its start; a `data:` URL in base64; an http(s) URL, where `allow_urls` is set; an array (H, W, 3) of uint8;
a tensor (3, H, W) of uint8, or of floats in [0, 1]. Arrays and tensors are RGB."""

KINDS = "a PIL image, a path, encoded bytes, an open binary file, a data: URL, an array (H, W, 3) of uint8 or a tensor (3, H, W)"

_SINGLE = (Image.Image, str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, torch.Tensor)
_DATA, _HTTP = re.compile(r"\s*data:", re.IGNORECASE), re.compile(r"\s*https?:", re.IGNORECASE)


def is_image(value: object) -> TypeGuard[ImageLike]:
    """Whether a value is of a kind that is read as one image, readable or not."""
    return isinstance(value, _SINGLE) or hasattr(value, "read")


def image_list(images: ImageLike | Iterable[ImageLike]) -> Sequence[ImageLike]:
    """The images of an `assess`; a single one as a list of one.

    Raises:
        TypeError: neither an image nor a list of images.
        ValueError: no images.
    """
    if is_image(images):
        return [images]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise TypeError(f"images is a {type(images).__name__}; give an image ({KINDS}) or a list of them")
    found: Any = images if isinstance(images, Sequence) else list(images)
    if len(found) == 0:
        raise ValueError("assess got no images; give at least one")
    return found  # type: ignore[no-any-return]


def text_list(prompts: str | Iterable[str] | None, *, images: int) -> Sequence[str] | None:
    """The prompts of an `assess`, one per image; a single one as a list of one.

    Raises:
        TypeError: a prompt that is not text.
        ValueError: not as many as images.
    """
    if prompts is None:
        return None
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        found: Sequence[str] = [prompts]  # type: ignore[list-item]  # refused below unless it is text
    else:
        found = prompts if isinstance(prompts, Sequence) else list(prompts)
    for number, prompt in enumerate(found):
        if not isinstance(prompt, str):
            raise TypeError(
                f"prompt {number} is a {type(prompt).__name__}; assess takes text, one str per image"
            )
    if len(found) != images:
        raise ValueError(
            f"assess got {images} images and {len(found)} prompts; give one per image, such as [prompt] * {images}"
        )
    return found


def open_image(source: ImageLike, *, allow_urls: bool = False) -> Image.Image | str:
    """The RGB image, or the reason why it cannot be read.

    Args:
        allow_urls: whether an image at an http(s) URL is fetched.

    Raises:
        TypeError: the source is of no kind of `ImageLike`, or its numbers are of another dtype.
        ValueError: an array or tensor of another or of an ambiguous shape, or with values outside its range.
    """
    try:
        return _opened(source, allow_urls=allow_urls)
    except ImageError as error:
        return str(error)


def _opened(source: ImageLike, *, allow_urls: bool) -> Image.Image:
    if isinstance(source, np.ndarray):
        return read_image(image_of(source))
    if isinstance(source, torch.Tensor):
        return read_image(_image_of_tensor(source))
    if isinstance(source, str) and _DATA.match(source):
        return read_image(from_data_url(source))
    if isinstance(source, str) and _HTTP.match(source):
        if not allow_urls:
            remedy = "give allow_urls=True to fetch it, or download it first"
            raise ImageError(shortened(source), "is a URL, which is not fetched unless asked for", remedy)
        return read_image(fetch(source))
    if isinstance(source, bytearray | memoryview):
        return read_image(bytes(source))
    if isinstance(source, Image.Image | str | os.PathLike | bytes):
        return read_image(source)
    if hasattr(source, "read"):
        return _decoded(source)
    raise TypeError(f"an image is {KINDS}; got {type(source).__name__}")


def _decoded(file: Any) -> Image.Image:
    """The image in an open file, from its start."""
    name = str(getattr(file, "name", "the open file"))
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{name} is open for reading text; open it with mode 'rb'")
    try:
        file.seek(0)
        return decode(file, name)
    except (OSError, ValueError) as error:  # closed, not seekable, or the disk fails
        raise ImageError(
            ascii(name), f"cannot be read ({error})", "open it again, or give its bytes"
        ) from error


def _image_of_tensor(tensor: torch.Tensor) -> Image.Image:
    """A tensor (3, H, W) -> an image; floats in [0, 1] are scaled to 0..255 and rounded."""
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(
            f"a tensor of an image has the shape (3, H, W), RGB; got {shape}: permute (H, W, 3), repeat a grey channel, "
            "and give a batch as a list, list(batch)"
        )
    if shape[2] == 3:
        raise ValueError(f"a tensor of shape {shape} may be (3, H, W) or (H, W, 3); give a PIL image")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        values = values.double()
        if values.numel() and not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            raise ValueError(
                f"a tensor of floats has values from {float(values.min()):.3g} to {float(values.max()):.3g}, not in "
                "[0, 1]; undo a normalisation, or give 0..255 as uint8"
            )
        values = (values * 255).round().to(torch.uint8)
    if values.dtype != torch.uint8:
        raise TypeError(f"a tensor of an image is uint8, or floats in [0, 1]; got {tensor.dtype}")
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
