"""The same pictures in every format that a scan reads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from safevlm.data import Item, ShardError, Source, decode_item, open_source
from safevlm.errors import DataError, ImageError

KINDS = ("folder", "wds", "parquet", "hf", "llava", "coco", "jsonl")
"""Every kind of source; all but `folder` carry texts."""

SECRET = b"secret"
"""What a file holds that must not be read."""


def picture_bytes(seed: int = 0, size: tuple[int, int] = (24, 16)) -> bytes:
    """A PNG of coarse noise: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """The picture's bytes in a format."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(item: Item) -> tuple[Image.Image | None, str]:
    """The item's image, or why there is none."""
    try:
        return decode_item(item), ""
    except (DataError, ImageError) as error:
        return None, str(error)


def make_source(
    kind: str, folder: Path, images: Sequence[tuple[str, bytes]], texts: Sequence[str] | None = None
) -> str:
    """Write pictures in a format and return the URI that reads them back in this order.

    Args:
        kind: one of `KINDS`.
        folder: where to write; made if it is not there.
        images: file names (unique without their suffix, in sorted order) with their bytes.
        texts: one per picture; none where left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = list(texts) if texts is not None else [""] * len(images)
    return globals()[f"_{kind}"](folder, list(images), words)


def drain(source: Source) -> tuple[list[Item], str]:
    """What a source gives until a shard breaks off, and what the error says; empty without one."""
    items: list[Item] = []
    try:
        for shard in source.shards():
            for item in source.read(shard):
                items.append(item)
    except ShardError as error:
        return items, str(error)
    return items, ""


def drain_uri(uri: str) -> tuple[list[Item], str]:
    """As `drain`, of an unopened source; if it is refused, the error says why."""
    try:
        return drain(open_source(uri))
    except DataError as refused:
        return [], str(refused)


def id_of(kind: str, name: str) -> str:
    """The id that a picture of this file name has in a source of this kind."""
    return name if kind == "folder" else Path(name).stem


def _files(folder: Path, images: Sequence[tuple[str, bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images:
        (folder / name).write_bytes(data)
    return folder


def _folder(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    return f"folder:{_files(folder / 'pictures', images)}"


def _wds(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    import webdataset

    half = (len(images) + 1) // 2
    for number, part in enumerate((range(half), range(half, len(images)))):
        with webdataset.TarWriter(str(folder / f"{number}.tar")) as tar:
            for index in part:
                name, data = images[index]
                tar.write({"__key__": Path(name).stem, Path(name).suffix[1:]: data, "txt": texts[index]})
    return f"wds:{folder}/{{0..1}}.tar" if len(images) > 1 else f"wds:{folder}/0.tar"


def _table(images: list[tuple[str, bytes]], texts: list[str]) -> pa.Table:
    return pa.table(
        {
            "id": [Path(name).stem for name, _ in images],
            "image": [{"bytes": data, "path": name} for name, data in images],
            "caption": texts,
        },
        schema=pa.schema(
            {
                "id": pa.string(),
                "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
                "caption": pa.string(),
            }
        ),
    )


def _parquet(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    pq.write_table(_table(images, texts), folder / "data.parquet", row_group_size=2)
    return f"parquet:{folder}/data.parquet"


def _hf(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    half = (len(images) + 1) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        if images[part]:
            pq.write_table(_table(images[part], texts[part]), folder / f"train-{number}.parquet")
    return f"hf:{folder}?split=train"


def _llava(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    _files(folder / "images", images)
    rows = [
        {"id": Path(name).stem, "image": name, "conversations": _turns(text)}
        for (name, _), text in zip(images, texts, strict=True)
    ]
    (folder / "llava.json").write_text(json.dumps(rows, indent=1))
    return f"llava:{folder}/llava.json?images={folder}/images"


def _turns(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": "an answer"}]


def _coco(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    _files(folder / "images", images)
    content = {
        "info": {"description": "pictures of noise"},
        "annotations": [
            {"id": i, "image_id": Path(name).stem, "caption": text}
            for i, ((name, _), text) in enumerate(zip(images, texts, strict=True))
        ],
        "images": [{"id": Path(name).stem, "file_name": name} for name, _ in images],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return f"coco:{folder}/coco.json?images={folder}/images"


def _jsonl(folder: Path, images: list[tuple[str, bytes]], texts: list[str]) -> str:
    _files(folder / "images", images)
    rows = [
        {"id": Path(name).stem, "image": name, "text": text}
        for (name, _), text in zip(images, texts, strict=True)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{folder}/rows.jsonl?images={folder}/images"
