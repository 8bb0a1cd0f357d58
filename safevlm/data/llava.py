"""LLaVA's JSON: a list of conversations, each about one image, several, or none."""

from __future__ import annotations

from collections.abc import Iterator

from safevlm.data import storage
from safevlm.data.json_stream import elements
from safevlm.data.rows import RowSource, SourceRow, row_of
from safevlm.errors import DataError


class LlavaSource(RowSource):
    """`[{"id": ..., "image": name or list of names, "conversations": [...]}, ...]`.

    The text of an image is what the human turns say. A row that names no image is text only.
    """

    kind = "llava"

    def rows(self, start: int, first: int) -> Iterator[tuple[SourceRow, int]]:
        """See `RowSource.rows`; a position is a byte of the UTF-8 text."""
        with storage.open_binary(self.url) as file:
            for number, element in enumerate(elements(file, start=start), first):
                if element.key:
                    raise DataError(
                        "is an object, not LLaVA's list; is it COCO? then write coco:; has it one object per "
                        "line? then write jsonl:"
                    )
                id = f"{self.name}:{number}"
                bad = SourceRow(id, error=f"{id}: {element.error}; correct the row")
                yield bad if element.error else row_of(element.value, id), element.end
