"""Stamps: a shard's signature depends on what is read, and on nothing else that the data names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safevlm.data import open_source
from safevlm.data.folder import FolderSource
from safevlm.data.image_root import ImageRoot
from safevlm.errors import ImageError
from tests.data.builders import picture_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image, and the ways that names leave its folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture_bytes())
    (tmp_path / "log.png").write_bytes(b"line\n")
    (folder / "link.png").symlink_to(tmp_path / "log.png")
    (folder / "alias").symlink_to(tmp_path)
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")
    return folder


def outside(folder: Path) -> list[str]:
    log = folder.parent / "log.png"
    return [
        str(log),
        "../log.png",
        "link.png",
        "alias/log.png",
        "sub/../../log.png",
        f"{folder}/link.png",
        str(folder.parent),
    ]


UNREAD = [
    "/proc/self/status",
    "/dev/null",
    "https://example.org/a.png",
    "pipe.png",
    "sub",
    "",
    "a\0b",
    "x" * 5000,
    "\ud800",
]


def named(kind: str, folder: Path, names: list[str]) -> str:
    """A file of this kind with a row for each name."""
    rows = [{"id": number, "image": name, "file_name": name} for number, name in enumerate(names)]
    path = folder / ("a.jsonl" if kind == "jsonl" else "a.json")
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows if kind == "llava" else {"images": rows}))
    return f"{kind}:{path}"


def signatures(uri: str) -> list[str]:
    return [shard.signature for shard in open_source(uri).shards()]


@pytest.mark.parametrize("kind", ["jsonl", "llava", "coco"])
def test_what_is_not_read_changes_no_signature(kind: str, folder: Path) -> None:
    uri = named(kind, folder, ["a.png", *outside(folder), *UNREAD])
    before = signatures(uri)
    (folder.parent / "log.png").write_bytes(b"line\nline\n")
    (folder / "sub" / "new").touch()
    (folder.parent / "new").touch()
    assert signatures(uri) == before
    items = [item for shard in open_source(uri).shards() for item in open_source(uri).read(shard)]
    assert [item.data is None for item in items] == [False] + [True] * (len(items) - 1)


@pytest.mark.parametrize("kind", ["jsonl", "llava", "coco"])
@pytest.mark.parametrize("name", ["a.png", "./a.png", "sub/../a.png", "alias/data/a.png", "new.png"])
def test_what_is_read_does(kind: str, name: str, folder: Path) -> None:
    uri = named(kind, folder, [name])
    before = signatures(uri)
    (folder / name).write_bytes(picture_bytes(1) + b"longer")
    assert signatures(uri) != before


def test_a_stamp_is_there_exactly_where_a_file_is_read(folder: Path) -> None:
    root = ImageRoot(str(folder))
    for name in [
        "a.png",
        f"{folder}/a.png",
        *outside(folder),
        *UNREAD,
    ]:
        try:
            assert root.read(name) == picture_bytes()
        except ImageError:
            assert root.stamp(name) in ("", "missing"), name
        else:
            assert "-" in root.stamp(name), name


def test_symlinks_out_of_a_folder_of_images(folder: Path) -> None:
    (folder / "status.png").symlink_to("/proc/self/status")
    before = [shard.signature for shard in FolderSource(folder).shards()]
    (folder.parent / "log.png").write_bytes(b"line\nline\n")
    assert [shard.signature for shard in FolderSource(folder).shards()] == before
    (folder / "a.png").write_bytes(b"other")
    assert [shard.signature for shard in FolderSource(folder).shards()] != before


@pytest.mark.parametrize("name", ["x" * 256, f"{'x' * 256}/a.png", "/".join(["x" * 200] * 21), "é" * 128])
def test_a_name_that_no_path_can_have_costs_its_row(name: str, folder: Path) -> None:
    uri = named("jsonl", folder, [name, "a.png"])
    source = open_source(uri)
    items = [item for shard in source.shards() for item in source.read(shard)]
    assert "longer than a path may be" in items[0].error
    assert items[1].data == picture_bytes()
