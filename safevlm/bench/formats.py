"""The same images in every format that a scan reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safevlm.errors import MissingExtraError
from safevlm.results.parts import Column, PartFile

IMAGES = "images"


def write_formats(root: Path, files: Sequence[Path]) -> dict[str, str]:
    """Write image files in each format below `root`.

    Returns:
        Kind of source -> URI that reads it.

    Raises:
        MissingExtraError: webdataset or pyarrow is not installed.
    """
    found = {"folder": f"folder:{files[0].parent}"}
    for kind, write in WRITERS.items():
        folder = root / kind
        folder.mkdir()
        found[kind] = f"{kind}:{write(folder, files)}"
    return found


def write_tars(folder: Path, files: Sequence[Path], *, per_tar: int) -> str:
    """Write WebDataset tars of up to `per_tar` images each; returns their brace pattern.

    Raises:
        MissingExtraError: webdataset is not installed.
    """
    try:
        from webdataset import TarWriter
    except ImportError as error:
        raise MissingExtraError("webdataset", "scan") from error
    count = -(-len(files) // per_tar)
    for number in range(count):
        with TarWriter(str(folder / f"{number:05d}.tar")) as tar:
            for path in files[number * per_tar : (number + 1) * per_tar]:
                tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "txt": path.stem})
    return f"{folder}/{{00000..{count - 1:05d}}}.tar"


def _wds(folder: Path, files: Sequence[Path]) -> str:
    return write_tars(folder, files, per_tar=len(files))


def _parquet(folder: Path, files: Sequence[Path]) -> str:
    columns = [Column("id", "string"), Column("image", "binary"), Column("caption", "string")]
    table = PartFile(folder / "part-00000.parquet", columns, mark="bench")
    for path in files:
        table.add([{"id": path.stem, "image": path.read_bytes(), "caption": path.stem}])
    table.commit()
    return str(folder)


def _hf(folder: Path, files: Sequence[Path]) -> str:
    return f"{_parquet(folder, files)}?split=train"


def _llava(folder: Path, files: Sequence[Path]) -> str:
    talk = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "Shapes."}]
    rows = [{"id": path.stem, "image": path.name, "conversations": talk} for path in files]
    return _json(folder / "llava.json", rows, files)


def _coco(folder: Path, files: Sequence[Path]) -> str:
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(files)]
    captions = [{"id": n, "image_id": n, "caption": path.stem} for n, path in enumerate(files)]
    return _json(folder / "coco.json", {"images": images, "annotations": captions}, files)


def _jsonl(folder: Path, files: Sequence[Path]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"image": file.name, "text": file.stem}) + "\n" for file in files))
    return f"{path}?{IMAGES}={files[0].parent}"


def _json(path: Path, content: Any, files: Sequence[Path]) -> str:
    path.write_text(json.dumps(content))
    return f"{path}?{IMAGES}={files[0].parent}"


WRITERS: Mapping[str, Callable[[Path, Sequence[Path]], str]] = {
    "wds": _wds,
    "parquet": _parquet,
    "hf": _hf,
    "llava": _llava,
    "coco": _coco,
    "jsonl": _jsonl,
}
"""Kind -> function that writes the images into a folder and returns the location for the kind's URI."""
