"""The training table: every row is checked, image included, before anything is trained.

| column | value |
|---|---|
| image | Parquet: `{bytes, path}` (Hugging Face), raw bytes, or a path; JSON: a path. Empty: text alone |
| prompt, response | text; may be missing where only the head is trained |
| risk_level, risk_category | a name of the taxonomy; empty: a label that the loss leaves out |
| split | train, tune (or validation, val, dev), test (left out); empty: drawn by the image's hash |

Paths are relative to the table's folder and stay inside it. The authors' JSON
(`safe_type` 0-6, `safe_level` 0-3, `image`, `conversations`) and folders of classes
(`root[/<split>]/<category>[/<level>]/file`) are read as they are, and so are the marks that a scan's
report exports.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import DataError, ImageError
from safevlm.taxonomy import Taxonomy

from .formats import SPLITS, BadRowError, RawRow, read_rows
from .marks import with_marked_images

LOGGER = logging.getLogger(__name__)
IGNORED = -100
"""Label that the loss leaves out, as in PyTorch."""
SHOWN = 20
"""Bad rows that an error message lists; the log has them all."""
DECODERS = 4


@dataclass(frozen=True)
class Row:
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
    path: str | Path, taxonomy: Taxonomy, *, needs: Needs | None = None, skip_bad: bool = False
) -> list[Row]:
    """Read and check every row of a table.

    Args:
        path: a .parquet, .jsonl or .json file, a folder of Parquet files, or folders of classes.
        taxonomy: the names that labels may have.
        needs: what every row must have; an image when None.
        skip_bad: log and drop bad rows instead of raising.

    Raises:
        DataError: bad rows (file, row, column and reason of each), no row at all, or none that is good.
    """
    path = Path(path)
    check = _Checker(path if path.is_dir() else path.parent, taxonomy, needs or Needs())
    rows: list[Row] = []
    bad: list[str] = []
    for checked in _in_order(check, with_marked_images(read_rows(path, taxonomy))):
        if isinstance(checked, Row):
            rows.append(checked)
        else:
            bad.append(checked)
            LOGGER.warning("bad row: %s", checked)
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

    def __call__(self, raw: RawRow) -> Row | str:
        where = f"{raw.file}: row {raw.number}"
        try:
            if raw.error is not None:
                raise raw.error
            return self._row(raw, where)
        except BadRowError as error:
            return f"{where}, column {error.column}: {error.reason}"

    def _row(self, raw: RawRow, where: str) -> Row:
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
        key = "" if image is None else self._decode(image)
        return Row(image, key, prompt, response, level, category, SPLITS.get(split, ""), where)

    def _text(self, values: dict[str, Any], column: str) -> str:
        value = values.get(column)
        if value is not None and not isinstance(value, str):
            raise BadRowError(column, f"is a {type(value).__name__}, not text")
        if value and any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRowError(
                column, "has half of a surrogate pair, which is no text; write it again as UTF-8"
            )
        return value or ""

    def _label(self, values: dict[str, Any], column: str, names: tuple[str, ...]) -> int:
        value = values.get(column)
        if value is None or value == "":
            return IGNORED
        if value not in names:
            raise BadRowError(
                column, f"is {value!r}, not in taxonomy {self.taxonomy.name!r}: {', '.join(names)}"
            )
        return names.index(value)

    def _image(self, raw: RawRow) -> bytes | Path | None:
        value = raw.values.get("image")
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if value is None or value in ("", b""):
            if self.needs.image:
                raise BadRowError("image", "is empty; this stage needs one in every row")
            return None
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise BadRowError("image", f"is a {type(value).__name__}, not bytes or a path")
        path = (raw.file.parent.resolve() / value).resolve()
        if not path.is_relative_to(self.folder):
            raise BadRowError(
                "image", f"{value!r} leads out of the table's folder {self.folder}; move it inside"
            )
        return path

    def _decode(self, image: bytes | Path) -> str:
        try:
            read_image(image)
            return hashlib.sha256(image if isinstance(image, bytes) else image.read_bytes()).hexdigest()
        except (ImageError, OSError) as error:
            raise BadRowError("image", str(error)) from error


def _in_order(check: _Checker, rows: Iterable[RawRow]) -> Iterator[Row | str]:
    """Check in threads (decoding releases the GIL), a chunk at a time, in the rows' order."""
    rows = iter(rows)
    with ThreadPoolExecutor(DECODERS) as pool:
        while chunk := list(islice(rows, 256)):
            yield from pool.map(check, chunk)
