"""The training table: every row is checked, image included, before anything is trained.

| column | value |
|---|---|
| image | a path, base64, or in Parquet bytes or `{bytes, path}` (Hugging Face). Empty: text alone |
| prompt, response | text; may be missing where only the head is trained |
| risk_level, risk_category | a name of the taxonomy; empty: a label that the loss leaves out |
| read_text | the words that a reader finds in the image, which the head reads as at inference; may be missing |
| labels_of | what the labels hold for: image, or pair for the image together with prompt or words; empty: image |
| split | train, tune (or validation, val, dev), test (left out); empty: chosen by the image's hash |

Paths are relative to the table's folder and stay inside it. Conversations (LLaVA's `conversations`, chat
`messages`), the authors' numbers (`safe_type` 0-6, `safe_level` 0-3), folders of classes
(`root[/<split>]/<category>[/<level>]/file`) and the marks that a scan's report exports are read, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import DataError
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED

from .columns import label_name
from .formats import read_rows
from .image_keys import Distribute, image_keys
from .images import read_value
from .layout import Layout
from .marks import with_marked_images
from .raw import SPLITS, BadRowError, RawRow
from .tally import Tally

LOGGER = logging.getLogger(__name__)

SHOWN = 20
"""Bad rows that an error message lists; the log has them all."""


@dataclass(frozen=True)
class LabelledRow:
    """One checked example.

    Args:
        image: encoded bytes, or the path of a file; None for text alone.
        key: sha256 of the encoded bytes, 64 hex digits; empty without an image. It is of the bytes and not
            of the pixels, so that cached features are found without decoding the image.
        prompt, response: text; may be empty.
        level, category: numbers in the taxonomy's order, or -100.
        split: train, tune or test; empty where the table does not say.
        where: file and row, for messages.
        extra: the values, as text, of the columns in `Layout.extra` that are not empty.
        pair: whether the labels are those of image and prompt or words together, and say nothing of the image alone.
        read_text: words that a reader found in the image; may be empty.
    """

    image: bytes | Path | None
    key: str
    prompt: str
    response: str
    level: int
    category: int
    split: str
    where: str
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    pair: bool = False
    read_text: str = ""

    @property
    def paired_text(self) -> str:
        """What the labels hold for beside the image: the words in it, or else the prompt; empty for the image alone."""
        return (self.read_text or self.prompt) if self.pair else ""

    def open(self) -> Image.Image | None:
        """The image in RGB, None without one.

        Raises:
            ImageError: the file was changed since it was checked.
        """
        return None if self.image is None else read_image(self.image)


@dataclass(frozen=True)
class Needs:
    """What every row must have.

    Args:
        image: an image.
        text: a prompt and a response.
        decoded: images that can be decoded; False: their bytes are hashed alone.
    """

    image: bool = True
    text: bool = False
    decoded: bool = True


def read_table(
    path: str | Path,
    taxonomy: Taxonomy,
    *,
    needs: Needs | None = None,
    layout: Layout | None = None,
    skip_bad: bool = False,
    distribute: Distribute | None = None,
) -> list[LabelledRow]:
    """Read and check every row of a table.

    Args:
        path: a .parquet, .jsonl or .json file, a folder of Parquet files, or folders of classes.
        taxonomy: the names that labels may have.
        needs: what every row must have; None: an image that can be decoded.
        layout: column names of a table that was not written for training; None: the documented ones.
        skip_bad: log and drop bad rows instead of raising.
        distribute: splits the decoding of images among processes that read this table together; None: this
            process decodes all of them.

    Returns:
        The good rows, in the order of the table.

    Raises:
        DataError: bad rows (file, row, column and reason of each), no row at all, or none that is good.
        MissingExtraError: the table is Parquet, and pyarrow is not installed.
    """
    path, needs, layout = Path(path), needs or Needs(), layout or Layout()
    check = _Checker(path if path.is_dir() else path.parent, taxonomy, needs, layout)
    tally = Tally()
    raw = with_marked_images(tally.count(read_rows(path, taxonomy, layout)))
    checked = _with_keys([check(row) for row in raw], needs, distribute)
    rows = [row for row in checked if isinstance(row, LabelledRow)]
    bad = [reason for reason in checked if isinstance(reason, str)]
    for reason in bad:
        LOGGER.warning("bad row: %s", reason)
    tally.log(path)
    if bad and not (skip_bad and rows):
        raise DataError(_refusal(path, bad, len(checked), skip_bad=skip_bad))
    if not rows:
        raise DataError(f"{path}: has no rows; a table needs at least one")
    if bad:
        LOGGER.warning("%s: dropped %d bad rows, kept %d", path, len(bad), len(rows))
    return rows


def _refusal(path: Path, bad: Sequence[str], count: int, *, skip_bad: bool) -> str:
    listed = "\n  ".join(bad[:SHOWN]) + (f"\n  ... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")
    remedy = "correct them, or drop them with skip_bad (in training: --data.skip_bad true)"
    return (
        f"{path}: {len(bad)} bad of {count} rows; {'every row is bad' if skip_bad else remedy}:\n  {listed}"
    )


class _Checker:
    """A raw row -> a checked one, or a line that names file, row, column and reason."""

    def __init__(self, folder: Path, taxonomy: Taxonomy, needs: Needs, layout: Layout) -> None:
        self.folder, self.taxonomy, self.needs, self.layout = folder.resolve(), taxonomy, needs, layout

    def __call__(self, raw: RawRow) -> LabelledRow | str:
        where = f"{raw.file}: row {raw.number}"
        try:
            if raw.error is not None:
                raise raw.error
            return self._row(raw, where)
        except BadRowError as error:
            column = self.layout.level if error.column == "risk_level" else error.column
            return f"{where}, column {column}: {error.reason}"

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
        read = self._text(values, "read_text").strip()
        pair = self._pair(values, prompt + read)
        image = self._image(raw)
        split = SPLITS.get(split, "")
        return LabelledRow(image, "", prompt, response, level, category, split, where, raw.extra, pair, read)

    def _pair(self, values: dict[str, Any], words: str) -> bool:
        of = self._text(values, "labels_of").strip().lower()
        if of not in ("", "image", "pair"):
            raise BadRowError("labels_of", f"is {of!r:.80}; known are image and pair")
        if of == "pair" and not words.strip():
            raise BadRowError(
                "labels_of", "is pair, and prompt and read_text are empty; give one, or label the image"
            )
        return of == "pair"

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


def _with_keys(
    checked: Sequence[LabelledRow | str], needs: Needs, distribute: Distribute | None
) -> list[LabelledRow | str]:
    """The rows with the hashes of their images; a row whose image cannot be read becomes its reason."""
    images = [row.image for row in checked if isinstance(row, LabelledRow) and row.image is not None]
    keys = iter(image_keys(images, decoded=needs.decoded, distribute=distribute))

    def with_key(row: LabelledRow | str) -> LabelledRow | str:
        if isinstance(row, str) or row.image is None:
            return row
        key, error = next(keys)
        return f"{row.where}, column image: {error}" if error else replace(row, key=key)

    return [with_key(row) for row in checked]
