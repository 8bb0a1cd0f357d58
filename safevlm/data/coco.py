"""COCO's JSON: an object with a list of images and one of annotations, joined by image_id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.json_stream import elements
from safevlm.data.rows import Row, RowSource
from safevlm.data.text import clean
from safevlm.errors import DataError


class CocoSource(RowSource):
    """`{"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}`.

    The text of a picture is its captions, one per line. Everything else (boxes, outlines, URLs) is
    passed over while it is read, so a file of any size takes the memory of its names and captions.
    """

    kind = "coco"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_all"}

    def rows(self, start: int, first: int) -> Iterator[tuple[Row, int]]:
        """See `RowSource.rows`; a place is the number of a picture."""
        images, captions = self._all
        for number in range(start, len(images)):
            key, name, error = images[number]
            id = f"{self.name}:{number}" if key is None else clean(str(key))
            text = clean("\n".join(captions.get(key, ())))
            yield Row(id, () if error else (name,), text, error and f"{id}: {error}"), number + 1

    @cached_property
    def _all(self) -> tuple[list[tuple[Any, str, str]], dict[Any, list[str]]]:
        """Every picture's id, name and error, and the captions by id."""
        images: list[tuple[Any, str, str]] = []
        captions: dict[Any, list[str]] = {}
        keys = set()
        with storage.open_binary(self.url) as file:
            for element in elements(file):
                keys.add(element.key)
                if element.key == "images":
                    images.append(_image(element.value))
                elif element.key == "annotations":
                    _add_caption(captions, element.value)
        if "images" not in keys:
            found = ", ".join(sorted(key for key in keys if key)) or "none"
            raise DataError(
                f"has no pictures in a list 'images' (lists with rows: {found}); COCO's JSON has one"
            )
        return images, captions


def _image(value: Any) -> tuple[Any, str, str]:
    if not isinstance(value, Mapping):
        return None, "", "is no object; correct the row of 'images'"
    key = value.get("id")
    name = value.get("file_name")
    key = key if isinstance(key, str | int) else name if isinstance(name, str) else None
    if not isinstance(name, str):
        return key, "", "has no 'file_name'; correct the row of 'images'"
    return key, name, ""


def _add_caption(captions: dict[Any, list[str]], value: Any) -> None:
    if isinstance(value, Mapping) and isinstance(value.get("caption"), str):
        key = value.get("image_id")
        if isinstance(key, str | int):
            captions.setdefault(key, []).append(value["caption"].strip())
