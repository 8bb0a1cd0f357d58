"""Concept sets: images of named concepts in categories, risky or harmless, from a folder, a table or the hub."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from safevlm.errors import DataError
from safevlm.printable import shortened

from .concept_files import ConceptRow, folder_rows, is_table, table_rows
from .concept_hub import HUB_SETS, download

SHOWN = 3
"""Bad rows that an error names."""


@dataclass(frozen=True)
class ConceptImage:
    """One image of a concept set.

    Args:
        id: where it is from, for messages.
        image: what `safevlm.data.read_image` takes; nothing is decoded yet.
        category: what the concept belongs to.
        concept: what is shown; "" where the set tells no more than the category.
        unsafe: whether the right answer about it is "unsafe".
        phrase: the concept as a sentence names it, with its article where it needs one.
        source: where the image comes from; empty where the set does not tell.
    """

    id: str
    image: Image.Image | bytes | Path
    category: str
    concept: str
    unsafe: bool
    phrase: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.category.strip():
            raise DataError(f"{self.id}: has no category; every image of a concept set needs one")
        if not self.phrase:
            object.__setattr__(self, "phrase", self.concept)


@dataclass(frozen=True)
class ConceptSet:
    """Images of concepts.

    Args:
        name: of the set, for tables.
        images: at least one.

    Raises:
        DataError: no image, or a concept that stands in two categories or has both labels.
    """

    name: str
    images: tuple[ConceptImage, ...]

    def __post_init__(self) -> None:
        if not self.images:
            raise DataError(f"{self.name}: has no images; check the folder or the table")
        kinds: dict[str, tuple[str, bool]] = {}
        for image in self.images:
            kind = (image.category, image.unsafe)
            if image.concept and kinds.setdefault(image.concept, kind) != kind:
                raise DataError(
                    f"{self.name}: the concept {shortened(image.concept, 80)!r} stands in two categories, or is both unsafe "
                    f"and harmless ({image.id}); give each its own name"
                )

    @property
    def concepts(self) -> tuple[ConceptImage, ...]:
        """The first image of each named concept, in the set's order."""
        found: dict[str, ConceptImage] = {}
        for image in self.images:
            if image.concept:
                found.setdefault(image.concept, image)
        return tuple(found.values())

    def sample(self, n: int, seed: int) -> ConceptSet:
        """At most `n` images of each concept and label, the same for the same seed.

        Raises:
            ValueError: n < 1.
        """
        if n < 1:
            raise ValueError(f"n is {n}; take at least 1 image of each concept")
        groups: defaultdict[tuple[str, str, bool], list[int]] = defaultdict(list)
        for place, image in enumerate(self.images):
            groups[image.category, image.concept, image.unsafe].append(place)
        kept = set()
        for key, places in groups.items():
            kept.update(random.Random(f"concepts:{seed}:{key}").sample(places, min(n, len(places))))
        return replace(self, images=tuple(self.images[place] for place in sorted(kept)))

    def __add__(self, other: ConceptSet) -> ConceptSet:
        """Both sets' images as one set."""
        return ConceptSet(f"{self.name} + {other.name}", self.images + other.images)


def read_concepts(
    location: str | Path,
    *,
    harmless: bool = False,
    n: int | None = 100,
    seed: int = 0,
    token: str | None = None,
) -> ConceptSet:
    """Read a concept set.

    Args:
        location: a folder `<category>/<concept>/<images>`; a Parquet file or folder of them with the columns image,
            category, and unsafe_concept or safety_label; or a data set of the hub in this form: one of `HUB_SETS`,
            or `hf:<org>/<name>`. The category `safe` holds harmless concepts.
        harmless: all concepts are harmless ones, which the answers should call safe.
        n: images of each concept and label, at most; no others are kept in memory. None: all.
        seed: of the choice of these.
        token: of the hub, for gated sets; by default the one that `hf auth login` or HF_TOKEN left.

    Raises:
        DataError: no such set or no access to it, an image outside a concept's folder, a row without image, category or
            concept, or an unknown safety label.
        MissingExtraError: the set is a table, and pyarrow is not installed.
    """
    path = Path(location)
    if str(location) in HUB_SETS and not path.exists():
        path = download(str(location), token=token)
    elif str(location).startswith("hf:"):
        path = download(str(location).removeprefix("hf:"), token=token)
    rows = table_rows(path, n=n, seed=seed) if is_table(path) else folder_rows(path)
    found = ConceptSet(str(location), tuple(_checked(rows, str(location), harmless=harmless)))
    return found if n is None else found.sample(n, seed)


def _checked(rows: Iterator[ConceptRow], name: str, *, harmless: bool) -> Sequence[ConceptImage]:
    """The rows as images; raises DataError that names the first few bad ones."""
    images, bad = [], []
    for row in rows:
        if row.error:
            bad.append(f"{row.id}: {row.error}")
        elif row.image is not None:
            concept = " ".join(row.concept.split())
            unsafe, source = row.unsafe and not harmless, row.source.strip()
            images.append(
                ConceptImage(row.id, row.image, row.category.strip(), concept, unsafe, source=source)
            )
    if bad:
        others = f"\n  and {len(bad) - SHOWN} others" if len(bad) > SHOWN else ""
        listed = "\n  ".join(bad[:SHOWN])
        raise DataError(f"{name}: {len(bad)} images cannot be used:\n  {listed}{others}")
    return images
