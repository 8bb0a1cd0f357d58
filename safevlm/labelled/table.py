"""The training table: every row is checked, image included, before anything is trained.

| column | value |
|---|---|
| image | a path, base64, or in Parquet bytes or `{bytes, path}` (Hugging Face). Empty: text alone |
| prompt, response | text; may be missing where only the head is trained |
| risk_level, risk_category | a name of the taxonomy; empty: a label that the loss leaves out |
| split | train, tune (or validation, val, dev), test (left out); empty: drawn by the image's hash |

Paths are relative to the table's folder and stay inside it. Conversations (LLaVA's `conversations`, chat
`messages`), the authors' numbers (`safe_type` 0-6, `safe_level` 0-3), folders of classes
(`root[/<split>]/<category>[/<level>]/file`) and the marks that a scan's report exports are read, too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import DataError, ImageError
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED

from .columns import label_name
from .formats import read_rows
from .images import read_value
from .marks import with_marked_images
from .raw import SPLITS, BadRowError, RawRow
from .tally import Tally

LOGGER = logging.getLogger(__name__)

Decoded: TypeAlias = "list[tuple[str, str]]"
"""Per image the hash of its bytes and why it cannot be read, one of them empty."""
Share: TypeAlias = "Callable[[Sequence[bytes | Path], Callable[[Sequence[bytes | Path]], Decoded]], Decoded]"
"""Applies a function to all images, in order, and may split the work among processes."""

SHOWN = 20
"""Bad rows that an error message lists; the log has them all."""
DECODERS = 4


@dataclass(frozen=True)
class LabelledRow:
    """One checked example.

    Args:
        image: encoded bytes, or the path of a file that was decoded once; None for text alone.
        key: sha256 of the encoded bytes, 64 hex digits; empty without an image. Of the bytes and not
            of the pixels, so that a cached feature is found without decoding the picture.
        level, category: numbers in the taxonomy's order, or -100.
        split: train, tune or test; empty where the table does not say.
        where: file and row, for messages.
    """

    image: bytes | Path | None
    key: str
    prompt: str
    response: str
    level: int
    category: int
    split: str
    where: str

    def open(self) -> Image.Image | None:
        """The RGB picture; raises ImageError where the file was changed since it was checked."""
        return None if self.image is None else read_image(self.image)


@dataclass(frozen=True)
class Needs:
    """What a recipe cannot do without: an image, or prompt and response, in every row."""

    image: bool = True
    text: bool = False


def read_table(
    path: str | Path,
    taxonomy: Taxonomy,
    *,
    needs: Needs | None = None,
    skip_bad: bool = False,
    share: Share | None = None,
) -> list[LabelledRow]:
    """Read and check every row of a table.

    Args:
        path: a .parquet, .jsonl or .json file, a folder of Parquet files, or folders of classes.
        taxonomy: the names that labels may have.
        needs: what every row must have; an image when None.
        skip_bad: log and drop bad rows instead of raising.
        share: splits the decoding of images among processes that read this table together; None: this one
            decodes all.

    Raises:
        DataError: bad rows (file, row, column and reason of each), no row at all, or none that is good.
    """
    path = Path(path)
    check = _Checker(path if path.is_dir() else path.parent, taxonomy, needs or Needs())
    rows: list[LabelledRow] = []
    bad: list[str] = []
    tally = Tally()
    found = [check(raw) for raw in with_marked_images(tally.count(read_rows(path, taxonomy)))]
    for checked in _with_keys(found, share or _all_here):
        if isinstance(checked, LabelledRow):
            rows.append(checked)
        else:
            bad.append(checked)
            LOGGER.warning("bad row: %s", checked)
    tally.tell(path)
    if bad and not (skip_bad and rows):
        shown = "\n  ".join(bad[:SHOWN]) + (
            f"\n  ... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        )
        remedy = (
            "every row is bad" if skip_bad else "mend them, or drop them with skip_bad (--data.skip_bad true)"
        )
        raise DataError(f"{path}: {len(bad)} bad of {len(bad) + len(rows)} rows; {remedy}:\n  {shown}")
    if not rows:
        raise DataError(f"{path}: has no rows; a table needs at least one")
    if bad:
        LOGGER.warning("%s: dropped %d bad rows, kept %d", path, len(bad), len(rows))
    return rows


class _Checker:
    """A raw row -> a checked one, or a line that names file, row, column and reason."""

    def __init__(self, folder: Path, taxonomy: Taxonomy, needs: Needs) -> None:
        self.folder, self.taxonomy, self.needs = folder.resolve(), taxonomy, needs

    def __call__(self, raw: RawRow) -> LabelledRow | str:
        where = f"{raw.file}: row {raw.number}"
        try:
            if raw.error is not None:
                raise raw.error
            return self._row(raw, where)
        except BadRowError as error:
            return f"{where}, column {error.column}: {error.reason}"

    def _row(self, raw: RawRow, where: str) -> LabelledRow:
        values = raw.values
        prompt, response = self._text(values, "prompt"), self._text(values, "response")
        if self.needs.text:
            for column, text in (("prompt", prompt), ("response", response)):
                if not text.strip():
                    raise BadRowError(column, "is empty; this stage trains the language model's answers")
        level = self._label(values, "risk_level", self.taxonomy.levels)
        category = self._label(values, "risk_category", self.taxonomy.category_names)
        split = self._text(values, "split").strip().lower()
        if split and split not in SPLITS:
            raise BadRowError("split", f"is {split!r}; known are {', '.join(SPLITS)}")
        image = self._image(raw)
        return LabelledRow(image, "", prompt, response, level, category, SPLITS.get(split, ""), where)

    def _text(self, values: dict[str, Any], column: str) -> str:
        value = values.get(column)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise BadRowError(column, f"is a {type(value).__name__}, not text")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRowError(column, "has half of a surrogate pair, which no tokenizer takes; correct it")
        return value

    def _label(self, values: dict[str, Any], column: str, names: tuple[str, ...]) -> int:
        value = values.get(column)
        if value is None or value == "":
            return IGNORED
        name = label_name(value, names)
        if name is None:
            raise BadRowError(
                column, f"is {value!r:.80}, not in taxonomy {self.taxonomy.name!r}: {', '.join(names)}"
            )
        return names.index(name)

    def _image(self, raw: RawRow) -> bytes | Path | None:
        image = read_value(raw.values.get("image"), file=raw.file, folder=self.folder)
        if image is None and self.needs.image:
            raise BadRowError("image", "is empty; this stage needs one in every row")
        return image


def _with_keys(checked: Sequence[LabelledRow | str], share: Share) -> list[LabelledRow | str]:
    """The rows with the hashes of their images, each of which is decoded once, by one of the processes."""
    images = [row.image for row in checked if isinstance(row, LabelledRow) and row.image is not None]
    found = iter(share(images, _decode_all))

    def with_key(row: LabelledRow | str) -> LabelledRow | str:
        if isinstance(row, str) or row.image is None:
            return row
        key, error = next(found)
        return f"{row.where}, column image: {error}" if error else replace(row, key=key)

    return [with_key(row) for row in checked]


def _all_here(images: Sequence[bytes | Path], decode: Callable[[Sequence[bytes | Path]], Decoded]) -> Decoded:
    return decode(images)


def _decode_all(images: Sequence[bytes | Path]) -> Decoded:
    """Decode in threads; decoding releases the GIL."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(pool.map(_decode, images))


def _decode(image: bytes | Path) -> tuple[str, str]:
    try:
        read_image(image)
        return hashlib.sha256(image if isinstance(image, bytes) else image.read_bytes()).hexdigest(), ""
    except (ImageError, OSError) as error:
        return "", str(error)
