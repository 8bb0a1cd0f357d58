"""Reads items from Arrow tables, which Parquet files and the datasets library give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from safevlm.data.columns import Choice, Columns, Field
from safevlm.data.image_root import ImageRoot
from safevlm.data.source import TEXT_ONLY, Item, ShardError
from safevlm.data.text import unread_words
from safevlm.errors import DataError
from safevlm.printable import shortened

ROWS_PER_BATCH = 16
"""Rows that are in memory at a time; a row may be a large image."""


MAX_NESTING = 16
"""Types within a column's type; conversations take six. Deeper ones are neither words nor images."""


def columns_of(schema: Any, choice: Choice, name: str) -> Columns:
    """Decide which columns of a schema hold images, text and ids. Raises ShardError if that is ambiguous."""
    fields = [_field(field) for field in schema]
    try:
        return choice.columns(fields, name)
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
    """The images of tables or record batches; rows without an id are called `name:row`, counted on from `row`.

    Rows with an empty list of images are counted in `passed_over`, as are values of other columns that may be images.
    """
    for table in tables:
        for record in _records(table.select(columns.names), columns.image):
            where = f"{name}:{row}"
            id, text = columns.id_of(record, where), columns.text_of(record)
            text_error = unread_words(record, (columns.text,)) if columns.text else ""
            images = columns.images_of(record, root, where)
            if passed_over is not None:
                passed_over.update([*columns.unread(record), *[TEXT_ONLY] * (not images)])
            for number, (data, error) in enumerate(images):
                yield Item(id, number, data, error, text, text_error)
            row += 1


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of any kind."""
    import pyarrow.types as t

    return bool(
        t.is_list(kind)
        or t.is_large_list(kind)
        or t.is_fixed_size_list(kind)
        or t.is_list_view(kind)
        or t.is_large_list_view(kind)
    )


def _records(table: Any, image: str) -> list[dict[str, Any]]:
    """The rows as dictionaries, even if a string column holds bytes that are not UTF-8.

    Such bytes are kept as lone surrogates in file names, and written as `\\xNN` in texts and ids.
    """
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except UnicodeDecodeError:
        columns = {
            name: [
                _value(cell, "surrogateescape" if name == image else "backslashreplace") for cell in column
            ]
            for name, column in zip(table.schema.names, table.columns, strict=True)
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _value(cell: Any, errors: str) -> Any:
    """A scalar as `as_py` gives it, with `errors` as bytes.decode takes them."""
    import pyarrow as pa
    import pyarrow.types as t

    kind = cell.type
    if not cell.is_valid:
        return None
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return cell.as_buffer().to_pybytes().decode("utf-8", errors)
    if t.is_struct(kind):
        return {field.name: _value(cell[index], errors) for index, field in enumerate(kind)}
    if t.is_map(kind):
        return [(_value(pair[0], errors), _value(pair[1], errors)) for pair in cell.values]
    if is_list(kind):
        return [_value(value, errors) for value in cell.values]
    if t.is_dictionary(kind) or t.is_union(kind) or isinstance(cell, pa.ExtensionScalar):
        return _value(cell.value, errors)
    return cell.as_py()


def _field(field: Any) -> Field:
    kind = field.type
    return Field(
        field.name,
        _kind(kind),
        shortened(str(kind), 60),
        _repeats(kind, MAX_NESTING),
        _has_bytes(kind, MAX_NESTING),
    )


def _has_bytes(kind: Any, left: int) -> bool:
    """Whether a type is binary or contains a binary type."""
    import pyarrow.types as t

    is_bytes = t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind)
    return bool(is_bytes) or (left > 0 and any(_has_bytes(one, left - 1) for one in _inner(kind)))


def _repeats(kind: Any, left: int) -> bool:
    """Whether a struct within a type has several fields of one name."""
    import pyarrow.types as t

    kind = getattr(kind, "storage_type", kind)
    names = [field.name for field in kind] if t.is_struct(kind) else []
    return len(set(names)) < len(names) or (left > 0 and any(_repeats(one, left - 1) for one in _inner(kind)))


def _kind(kind: Any) -> str:
    """What a column of this type may hold: image, string, number, words or other (see `Field`)."""
    import pyarrow.types as t

    kind = getattr(kind, "storage_type", kind)  # an extension type
    if _is_deep(kind, MAX_NESTING):
        return "other"
    if t.is_dictionary(kind):
        kind = kind.value_type
    if is_list(kind):
        inner = _kind(kind.value_type)
        return inner if inner in ("image", "string") and not is_list(kind.value_type) else "words"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "image"
    if t.is_struct(kind):
        fields = {field.name: _kind(field.type) for field in kind}
        return "image" if fields.get("bytes") in ("image", "string") else "other"
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "string"
    return "number" if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) else "other"


def _is_deep(kind: Any, left: int) -> bool:
    """Whether types are nested more than `left` deep in a type."""
    return any(not left or _is_deep(one, left - 1) for one in _inner(kind))


def _inner(kind: Any) -> list[Any]:
    """The types that a type is made of."""
    import pyarrow.types as t

    kind = getattr(kind, "storage_type", kind)
    inner = [kind.value_type] if is_list(kind) or t.is_dictionary(kind) else []
    inner += [field.type for field in kind] if t.is_struct(kind) else []
    return inner + ([kind.key_type, kind.item_type] if t.is_map(kind) else [])
