"""Sources behind URLs: in memory, and over HTTP from this machine."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from safevlm.data import Item, ShardError, open_source
from safevlm.data.image_root import ImageRoot
from safevlm.data.storage import matching
from safevlm.errors import DataError, ImageError
from tests.data.builders import make_source, picture_bytes

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(5)]
TEXTS = [f"caption {number}" for number in range(5)]
REMOTE = ("folder", "wds", "parquet", "llava", "coco", "jsonl")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of `tmp_path`."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """A place in memory that `upload` copies `tmp_path` to."""
    yield "memory://store"
    fsspec.filesystem("memory").rm("/store", recursive=True)


def upload(tmp_path: Path, url: str) -> None:
    files = fsspec.filesystem("memory")
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            files.pipe(f"/store/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())


def items_of(uri: str) -> list[Item]:
    source = open_source(uri)
    return [item for shard in source.shards() for item in source.read(shard)]


@pytest.mark.parametrize("kind", REMOTE)
def test_memory_and_http_read_what_the_disk_reads(kind: str, tmp_path: Path, memory: str, http: str) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    upload(tmp_path, memory)
    here = items_of(uri)
    assert [item.data for item in here] == [data for _, data in IMAGES]
    for place in (memory, http):
        there = open_source(uri.replace(str(tmp_path), place))
        assert [item for shard in there.shards() for item in there.read(shard)] == here
        assert [s.signature for s in there.shards()] == [s.signature for s in open_source(there.uri).shards()]


@pytest.mark.parametrize("kind", ["folder", "wds", "parquet", "llava", "coco", "jsonl"])
def test_a_change_in_memory_changes_signatures(kind: str, tmp_path: Path, memory: str) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS).replace(str(tmp_path), memory)
    upload(tmp_path, memory)
    before = [shard.signature for shard in open_source(uri).shards()]
    make_source(kind, tmp_path, [*IMAGES[:-1], ("004.jpg", b"other")], [*TEXTS[:-1], "other"])
    fsspec.filesystem("memory").rm("/store", recursive=True)
    upload(tmp_path, memory)
    assert [shard.signature for shard in open_source(uri).shards()] != before


def test_globs_and_folders_in_memory(tmp_path: Path, memory: str) -> None:
    make_source("wds", tmp_path, IMAGES)
    upload(tmp_path, memory)
    assert list(matching(f"{memory}/*.tar", (".tar",))) == ["0.tar", "1.tar"]
    assert list(matching(memory, (".tar",))) == ["0.tar", "1.tar"]
    assert open_source(memory).uri == f"wds:{memory}"
    with pytest.raises(DataError, match="no such file"):
        open_source(f"{memory}/x.tar").shards()


def test_a_signed_url_keeps_its_query(tmp_path: Path, http: str) -> None:
    make_source("wds", tmp_path, IMAGES)
    for uri in (f"{http}/0.tar?signature=a%2Fb&x=1", f"wds:{http}/0.tar?signature=a"):
        assert [item.data for item in items_of(uri)] == [data for _, data in IMAGES[:3]]


def test_names_in_data_reach_nothing_else_on_the_server(tmp_path: Path, http: str, memory: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    names = ["a b#c?d%41.jpg", "../secret.jpg", "%2e%2e/secret.jpg", "/secret.jpg", "x/../../secret.jpg"]
    names += [f"{http}/secret.jpg", "x::http://127.0.0.1/secret.jpg", "none.jpg"]
    (tmp_path / "data" / names[0]).write_bytes(b"inside")
    (tmp_path / "data" / "a.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    upload(tmp_path, memory)
    for place in (http, memory):
        items = items_of(f"{place}/data/a.jsonl")
        assert [item.data for item in items] == [b"inside"] + [None] * 7, place
        assert all(item.error for item in items[1:])


def test_a_server_that_fails(tmp_path: Path, http: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "gone.jpg"}\n')
    (item,) = items_of(f"{http}/a.jsonl")
    assert "gone.jpg: cannot be read" in item.error
    with pytest.raises(DataError):
        items_of(f"wds:{http}/none.tar")
    source = open_source(f"wds:{http}/{{0..1}}.tar")
    make_source("wds", tmp_path, IMAGES[:1])
    shards = source.shards()
    with pytest.raises(ShardError, match="1.tar"):
        list(source.read(shards[1]))


def test_a_protocol_that_is_not_installed_or_not_known() -> None:
    with pytest.raises(DataError, match="nosuch"):
        open_source("wds:nosuch://bucket/a.tar").shards()


def test_a_picture_that_is_too_large_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(101))
    assert ImageRoot(str(tmp_path), max_bytes=101).read("a.jpg") == bytes(101)
    large = bytes(range(256)) * 5000
    (tmp_path / "b.jpg").write_bytes(large)
    assert ImageRoot(str(tmp_path)).read("b.jpg") == large
    with pytest.raises(ImageError, match="more than 100 bytes"):
        ImageRoot(str(tmp_path), max_bytes=100).read("a.jpg")
