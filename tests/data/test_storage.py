"""Sources behind URLs: in memory, and over HTTP from this machine."""

from __future__ import annotations

import errno
import functools
import io
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from safevlm.data import FolderSource, Item, ShardError, open_source, storage
from safevlm.data.image_root import PAUSES, ImageRoot
from safevlm.data.storage import fingerprint, matching
from safevlm.errors import DataError, ImageError
from tests.data.builders import drain, make_source, picture_bytes

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(5)]
TEXTS = [f"caption {number}" for number in range(5)]
REMOTE = ("folder", "wds", "parquet", "llava", "coco", "jsonl")


class Quiet(SimpleHTTPRequestHandler):
    """Answers `status` as often as `failures` says for a name, then what is there."""

    failures: dict[str, int] = {}  # noqa: RUF012 - replaced by a test
    status = 503

    def send_head(self) -> Any:
        name = self.path.rpartition("/")[2]
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            self.send_error(self.status)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Name -> how many of its next requests fail; without pauses between them."""
    failures: dict[str, int] = {}
    monkeypatch.setattr(Quiet, "failures", failures)
    monkeypatch.setattr("safevlm.data.image_root.PAUSES", (0.0,) * len(PAUSES))
    return failures


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of `tmp_path`."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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


@pytest.mark.parametrize("kind", ["folder", "jsonl", "llava", "coco"])
def test_a_picture_that_the_server_gives_later_is_no_error(
    kind: str, tmp_path: Path, http: str, failing: dict[str, int]
) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    source = open_source(uri.replace(str(tmp_path), http))
    shards = source.shards()
    failing["002.png"] = 3  # HEAD and GET of the first look, HEAD of the second: its GET is enough
    assert [item.data for shard in shards for item in source.read(shard)] == [data for _, data in IMAGES]
    assert failing["002.png"] <= 0


@pytest.mark.parametrize("kind", ["folder", "jsonl"])
def test_a_server_that_stays_away_breaks_the_shard_and_loses_no_row(
    kind: str, tmp_path: Path, http: str, failing: dict[str, int]
) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    source = open_source(uri.replace(str(tmp_path), http))
    shards = source.shards()
    failing["002.png"] = 1000
    items, error = drain(source)
    assert re.search("002.png: cannot be read .*; the storage fails", error)
    assert [item.data for item in items] == [data for _, data in IMAGES[:2]]
    failing["002.png"] = 0
    assert [item.data for item in source.read(shards[0])] == [data for _, data in IMAGES]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_a_server_refuses_for_good_is_an_error_of_its_row(
    status: int, tmp_path: Path, http: str, failing: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quiet, "status", status)
    source = open_source(make_source("jsonl", tmp_path, IMAGES, TEXTS).replace(str(tmp_path), http))
    (shard,) = source.shards()
    failing["002.png"] = 1000
    items = list(source.read(shard))
    assert [item.data is None for item in items] == [False, False, True, False, False]
    assert "cannot be read" in items[2].error


@pytest.mark.parametrize("kind", ["wds", "parquet", "llava", "coco", "jsonl"])
def test_a_server_that_fails_is_not_taken_for_a_file_that_is_gone(
    kind: str, tmp_path: Path, http: str, failing: dict[str, int]
) -> None:
    make_source(kind, tmp_path, IMAGES, TEXTS)
    name = next(path.name for path in sorted(tmp_path.iterdir()) if path.is_file())
    told = fingerprint(f"{http}/{name}")
    failing[name] = 1000
    with pytest.raises(DataError, match="cannot be reached .*run the same command again"):
        fingerprint(f"{http}/{name}")
    failing[name] = 0
    assert fingerprint(f"{http}/{name}") == told
    assert fingerprint(f"{http}/none.tar") == fingerprint(str(tmp_path / "none.tar")) == "missing"


def failing_call(monkeypatch: pytest.MonkeyPatch, module: Any, call: str, name: str, number: int) -> None:
    """Let a call fail with an error number for every path that ends in a name."""
    real = getattr(module, call)

    def fail(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(module, call, fail)


@pytest.mark.parametrize("kind", ["folder", "llava", "jsonl", "coco"])
def test_a_disk_that_fails_breaks_the_shard(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safevlm.data.image_root.PAUSES", (0.0, 0.0))
    source = open_source(make_source(kind, tmp_path, IMAGES, TEXTS))
    (shard,) = source.shards()
    with monkeypatch.context() as patch:
        failing_call(patch, os, "open", "003.png", errno.EIO)
        items, error = drain(source)
        assert re.search(r"003.png: cannot be read \(.*Input/output error", error)
        assert [item.data for item in items] == [data for _, data in IMAGES[:3]]
    with monkeypatch.context() as patch:
        failing_call(patch, os, "open", "003.png", errno.EACCES)
        items = list(source.read(shard))
    assert [item.data is None for item in items] == [False, False, False, True, False]
    assert [item.data for item in source.read(shard)] == [data for _, data in IMAGES]


@pytest.mark.parametrize("kind", ["folder", "wds", "parquet", "llava", "jsonl", "coco"])
def test_a_disk_that_fails_while_planning_leaves_no_wrong_signature(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    before = [shard.signature for shard in open_source(uri).shards()]
    name = {"wds": "1.tar", "parquet": "data.parquet"}.get(kind, "003.png")
    with monkeypatch.context() as patch:
        failing_call(patch, os, "stat", name, errno.EIO)
        with pytest.raises(DataError, match="cannot be reached .*run the same command again"):
            open_source(uri).shards()
    assert [shard.signature for shard in open_source(uri).shards()] == before


def test_rows_that_cannot_be_read_while_planning_are_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = make_source("jsonl", tmp_path, IMAGES, TEXTS)

    class Failing(io.BytesIO):
        """Gives some of its bytes, and fails when it is asked for more."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 200:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(100)

    real = storage.open_binary

    @contextmanager
    def broken(url: str) -> Iterator[Any]:
        with real(url) as file:
            yield Failing(file.read()) if url.endswith(".jsonl") else file

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open_binary", broken)
        with pytest.raises(DataError, match="cannot be reached"):
            open_source(uri).shards()
    assert sum(shard.images or 0 for shard in open_source(uri).shards()) == 5


def test_a_folder_that_fails_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(IMAGES[0][1])
    (tmp_path / "sub" / "b.png").write_bytes(IMAGES[1][1])
    with monkeypatch.context() as patch:
        failing_call(patch, os, "scandir", "sub", errno.EIO)
        with pytest.raises(DataError, match="cannot be reached"):
            FolderSource(tmp_path).shards()
    assert [shard.images for shard in FolderSource(tmp_path).shards()] == [2]


def test_a_broken_table_is_a_shard_and_one_out_of_reach_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = make_source("parquet", tmp_path, IMAGES, TEXTS).replace("data.parquet", "*.parquet")
    names = [shard.name for shard in open_source(uri).shards()]
    whole = (tmp_path / "data.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[:-28] + b"\xff" * 20 + whole[-8:])  # arrow calls it an OSError
    assert [shard.name for shard in open_source(uri).shards()] == [*names, "x.parquet"]
    failing_call(monkeypatch, os, "open", "data.parquet", errno.EIO)
    with pytest.raises(DataError, match="cannot be reached"):
        open_source(uri).shards()


def test_what_is_passed_over_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_source("wds", tmp_path / "data", IMAGES)
    make_source("wds", tmp_path / "data" / "_new", IMAGES)
    make_source("wds", tmp_path / "elsewhere", IMAGES)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "_new")
    with caplog.at_level(logging.WARNING):
        shards = open_source(f"wds:{tmp_path}/data").shards()
    assert [shard.name for shard in shards] == ["0.tar", "1.tar"]
    assert "passed over 2 files with . or _" in caplog.text
    assert caplog.text.count("symlink out of the folder") == 1
    assert "data/link" in caplog.text
    assert len(open_source(f"wds:{tmp_path}/data/_new/*.tar").shards()) == 2


@pytest.mark.parametrize("kind", ["folder", "wds", "parquet"])
def test_a_folder_that_no_path_reaches_costs_no_other_file(kind: str, tmp_path: Path) -> None:
    uri = make_source(kind, tmp_path / "data", IMAGES)
    place = uri.partition(":")[2] if kind == "folder" else str(tmp_path / "data")
    below = os.open(place, os.O_RDONLY)
    for _ in range(20):  # 20 * 251 characters, where a path has 4,096
        os.mkdir("y" * 250, dir_fd=below)
        above, below = below, os.open("y" * 250, os.O_RDONLY, dir_fd=below)
        os.close(above)
    os.close(below)
    source = open_source(place)
    items, errors = [], []
    for shard in source.shards():
        try:
            items += list(source.read(shard))
        except ShardError as error:
            errors.append(str(error))
    errors += [item.error for item in items if item.error]
    assert [item.data for item in items if not item.error] == [data for _, data in IMAGES]
    assert len(errors) == 1
    assert "File name too long" in errors[0]
