"""Recognises what a `.json` file holds: LLaVA's list, COCO's object, or JSON Lines."""

from __future__ import annotations

from safevlm.data import storage
from safevlm.data.json_stream import first_values
from safevlm.errors import DataError


def json_kind(url: str) -> str:
    """The kind of source that reads a JSON file, by its content.

    A list is LLaVA's. An object is COCO's, unless another value follows it: then there is one per line. Where
    the first object is so large that it is not parsed here, it is taken for COCO's, which refuses the rest.

    Raises:
        DataError: if the file is neither a list nor an object, or compressed in a format that is not read.
    """
    with storage.open_binary(url) as file:
        try:
            first, several = first_values(file)
        except DataError as error:
            raise DataError(f"{url}: {error}") from error
    if first == "{":
        return "jsonl" if several else "coco"
    if first == "[":
        return "llava"
    raise DataError(
        f"{url}: is neither a JSON list (LLaVA) nor an object (COCO, JSON Lines); say which with llava:, "
        "coco: or jsonl:"
    )
