"""A concept set as alignment needs it: every image checked, and known by the hash of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safevlm.errors import DataError
from safevlm.labelled import ConceptImage, read_concepts
from safevlm.labelled.image_keys import image_keys

from .gold import Gold

SHOWN = 20
"""Bad images that an error message lists."""


@dataclass(frozen=True)
class KeyedImage:
    """An image of a concept set.

    Args:
        image: encoded bytes, or a file.
        key: sha256 of the encoded bytes, 64 hex digits.
        concept, category: names; where the set names no concept, the category stands for it.
        gold: what it is.
        source: where it comes from; empty where the set does not say.
        where: file, or table and row, for messages.
    """

    image: bytes | Path
    key: str
    concept: str
    category: str
    gold: Gold
    source: str
    where: str


def keyed_images(location: str | Path) -> list[KeyedImage]:
    """Every image of a concept set, as `safevlm.labelled.read_concepts` reads it.

    Raises:
        DataError: what `read_concepts` refuses, an image that cannot be decoded, or one that is safe in one place and unsafe
            in another (file and reason of each).
        MissingExtraError: the set is a table, and pyarrow is not installed.
    """
    images = [_keyed(one) for one in read_concepts(location, n=None).images]
    checked = image_keys([one.image for one in images], decoded=True)
    bad = [f"{one.where}: {error}" for one, (_, error) in zip(images, checked, strict=True) if error]
    images = [replace(one, key=key) for one, (key, _) in zip(images, checked, strict=True)]
    bad += _contradictions([one for one in images if one.key])
    if bad:
        listed = "\n  ".join([*bad[:SHOWN], *["..."][: len(bad) > SHOWN]])
        raise DataError(
            f"{location}: {len(bad)} bad of {len(images)} images; correct or remove them:\n  {listed}"
        )
    return images


def _keyed(one: ConceptImage) -> KeyedImage:
    assert isinstance(one.image, bytes | Path), "sets that are read hold files or bytes"
    gold: Gold = "unsafe" if one.unsafe else "safe"
    return KeyedImage(one.image, "", one.concept or one.category, one.category, gold, one.source, one.id)


def _contradictions(images: Sequence[KeyedImage]) -> list[str]:
    first: dict[str, KeyedImage] = {}
    for one in images:
        first.setdefault(one.key, one)
    return [
        f"{one.where}: is {one.gold} here, and the same image is {first[one.key].gold} at {first[one.key].where}"
        for one in images
        if first[one.key].gold != one.gold
    ]
