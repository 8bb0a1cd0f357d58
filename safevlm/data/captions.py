"""Decides which text of a tar belongs to which image.

Texts that lie beside the images of their sample are joined as the tar is read. Where images have no words there,
the tar is read once more, for its texts alone: the members of a sample need not be neighbours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from posixpath import splitext

MAX_APART = 1 << 26
"""Characters of texts apart from their images that are held, 64 Mi, each text counted as 256 at least."""

_LEAST = 1 << 8
_MAX_PARTS = 32
"""Dots of a name that are told apart."""


@dataclass(frozen=True)
class Caption:
    """A `.txt` or `.json` of a sample.

    Args:
        name: of the member.
        text: its words; empty without any.
        error: why it cannot be read; empty where it can.
    """

    name: str
    text: str = ""
    error: str = ""


def captions_of(images: Sequence[str], captions: Sequence[Caption]) -> list[tuple[str, str]]:
    """The text of each image of a sample, and the error of a text that it should have; empty without one.

    A caption belongs to the images whose names share the most dotted parts with its own: `a.b.txt` to `a.b.jpg`
    rather than `a.c.jpg`, `photo.txt` to `photo.v2.jpg`. Of several, the one that shares the most is taken, of
    equal ones `.txt` before `.json`.

    Args:
        images: names of members with one key.
        captions: texts with the same key.
    """
    stems = [list(_stems(name)) for name in images]
    known = {stem for image in stems for stem in image}
    found: defaultdict[str, list[Caption]] = defaultdict(list)
    for caption in sorted(captions, key=_rank):
        own = next((stem for stem in _stems(caption.name) if stem in known), None)
        if own is None:  # a key that is no stem, such as that of `d/.x.txt`
            found[""].append(caption)
        else:
            found[own].append(caption)
    told = {stem: _told(group) for stem, group in found.items()}
    return [_first(told[stem] for stem in [*image, ""] if stem in told) for image in stems]


def _rank(caption: Caption) -> tuple[bool, int]:
    """`.txt` before `.json`, `a.txt` before `a.en.txt`."""
    return caption.name.lower().endswith(".json"), caption.name.count(".")


def _first(told: Iterator[tuple[str, str]]) -> tuple[str, str]:
    """The first text, and the first error up to it."""
    error = ""
    for text, reason in told:
        error = error or reason
        if text:
            return text, error
    return "", error


def _told(captions: Sequence[Caption]) -> tuple[str, str]:
    """The first text and the first error of captions that belong to the same images."""
    words: dict[str, str] = {}
    error = next((caption.error for caption in captions if caption.error), "")
    for caption in captions:
        if words.setdefault(caption.name, caption.text) != caption.text:
            error = error or "a text of its name is in the tar twice, with different words; remove one"
    return next((caption.text for caption in captions if caption.text), ""), error


def _stems(name: str) -> Iterator[str]:
    """The name without its last suffix, and without further dotted parts, the longest first."""
    stem = splitext(name)[0]
    for _ in range(_MAX_PARTS):
        yield stem
        stem, dot, last = stem.rpartition(".")
        if not dot or "/" in last:
            return


@dataclass
class TextsApart:
    """The texts of a tar that lie apart from their images, by key.

    Args:
        broken: why the tar could not be read to its end; empty where it could.
    """

    broken: str = ""
    _apart: defaultdict[bytes, list[Caption]] = field(default_factory=lambda: defaultdict(list))
    _images: Counter[bytes] = field(default_factory=Counter)
    _beside: set[bytes] = field(default_factory=set)
    _dropped: set[bytes] = field(default_factory=set)
    _held: int = 0

    def add(self, key: str, has_images: bool, captions: Sequence[Caption]) -> None:
        """Note members of one key that follow one another."""
        digest = key_digest(key)
        self._images[digest] += has_images
        if has_images:
            if captions:
                self._beside.add(digest)
            return
        for caption in captions:
            self._held += max(_LEAST, len(caption.text))
            if self._held > MAX_APART:
                self._dropped.add(digest)
            else:
                self._apart[digest].append(caption)

    def find(self, key: str) -> tuple[Sequence[Caption], str]:
        """Look up the captions of images that have none beside them.

        Returns:
            The captions, and an empty text; or no captions and the reason why it is unknown which belong to the
            images. Both are empty if the tar has none.
        """
        digest = key_digest(key)
        runs = self._images[digest]
        if runs > 1 and (digest in self._beside or digest in self._apart or digest in self._dropped):
            return (), (
                f"the tar has images of its sample in {runs} places and texts apart from them, so it is unknown "
                "which belong together; write a sample's members one after another"
            )
        if digest in self._dropped:
            return (), (
                f"its text lies apart from it in the tar, behind {MAX_APART >> 20} MiB of such texts; "
                "write a sample's members one after another"
            )
        if digest not in self._apart and self.broken:
            return (), f"the tar breaks off, maybe before its text ({self.broken})"
        return self._apart.get(digest, ()), ""


def key_digest(key: str) -> bytes:
    """16 bytes that stand for a key, so that long keys are not held."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
