"""Arrow tables, as Parquet files and the datasets library give them -> items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from safevlm.data.columns import Choice, Columns
from safevlm.data.image_root import ImageRoot
from safevlm.data.source import TEXT_ONLY, Item, ShardError
from safevlm.errors import DataError

ROWS_PER_BATCH = 16
"""Rows that are in memory at a time; a row may be a large picture."""


MAX_NESTING = 16
"""Types within a column's type; conversations take six. Deeper ones are neither words nor pictures."""


def columns_of(schema: Any, choice: Choice, name: str) -> Columns:
    """Which column of a schema is what. Raises ShardError where that cannot be told."""
    types = {field.name: _shortened(field.type) for field in schema}
    try:
        return choice.columns({field.name: _kind(field.type) for field in schema}, types, name)
    except DataError as error:
        raise ShardError(str(error)) from error


def items_of(
    tables: Iterable[Any],
    columns: Columns,
    root: ImageRoot,
    name: str,
    row: int,
    passed_over: Counter[str] | None = None,
) -> Iterator[Item]:
    """The pictures of tables or record batches; rows without an id are called `name:row`, counted on from `row`.

    Rows with an empty list of pictures are counted in `passed_over`.
    """
    for table in tables:
        for record in _lenient(table.select(columns.names), columns).to_pylist():
            where = f"{name}:{row}"
            id, text = columns.id_of(record, where), columns.text_of(record)
            pictures = columns.pictures_of(record, root, where)
            if not pictures and passed_over is not None:
                passed_over[TEXT_ONLY] += 1
            for number, (data, error) in enumerate(pictures):
                yield Item(id, number, data, error, text)
            row += 1


def is_list(kind: Any) -> bool:
    """Whether a type is some kind of list."""
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _lenient(table: Any, columns: Columns) -> Any:
    """Words and ids as bytes: files do not keep the promise that strings are UTF-8."""
    import pyarrow as pa

    for name in {columns.text, columns.id} - {columns.image, None}:
        index = table.schema.get_field_index(name)
        column = table.column(index)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            table = table.set_column(index, name, column.cast(pa.large_binary()))
    return table


def _kind(kind: Any) -> str:
    """What a column of this type may hold, in the words of `Choice.columns`."""
    import pyarrow.types as t

    kind = getattr(kind, "storage_type", kind)  # an extension type
    if _is_deep(kind, MAX_NESTING):
        return "other"
    if t.is_dictionary(kind):
        kind = kind.value_type
    if is_list(kind):
        inner = _kind(kind.value_type)
        return inner if inner in ("picture", "string") and not is_list(kind.value_type) else "words"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "picture"
    if t.is_struct(kind):
        fields = {field.name: _kind(field.type) for field in kind}
        return "picture" if fields.get("bytes") == "picture" else "other"
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "string"
    return "integer" if t.is_integer(kind) else "other"


def _is_deep(kind: Any, left: int) -> bool:
    """Whether a type holds types within each other that would have to be gone through more than `left` deep."""
    import pyarrow.types as t

    inner = [kind.value_type] if is_list(kind) or t.is_dictionary(kind) else []
    inner += [field.type for field in kind] if t.is_struct(kind) else []
    inner += [kind.key_type, kind.item_type] if t.is_map(kind) else []
    return any(not left or _is_deep(one, left - 1) for one in inner)


def _shortened(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:60]}…"
