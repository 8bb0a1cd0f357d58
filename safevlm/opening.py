"""What a caller gives a scorer or a guard -> RGB images, or the reasons why there are none."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import ImageError
from safevlm.types import ImageLike


def check_arguments(images: Sequence[ImageLike], prompts: Sequence[str] | None) -> None:
    """Raise ValueError or TypeError for what `assess` does not take."""
    if len(images) == 0:
        raise ValueError("assess got no images; give at least one")
    if prompts is not None and len(prompts) != len(images):
        raise ValueError(f"assess got {len(images)} images and {len(prompts)} prompts; give one per image")
    for number, prompt in enumerate(prompts or ()):
        if not isinstance(prompt, str):
            raise TypeError(
                f"prompt {number} is a {type(prompt).__name__}; assess takes text, one str per image"
            )


def open_image(source: ImageLike) -> Image.Image | str:
    """The RGB image, or the reason why it cannot be read."""
    try:
        return read_image(source)
    except ImageError as error:
        return str(error)
