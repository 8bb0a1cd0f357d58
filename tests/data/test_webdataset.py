"""WebDataset tars: the library is the oracle for whole ones; broken and hostile ones lose nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import webdataset

from safevlm.data import Item, ShardError, open_source
from safevlm.data.webdataset import MAX_TEXT_BYTES, WebDatasetSource
from safevlm.errors import DataError
from tests.data.builders import decoded, drain, picture_bytes


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read(path: Path | str, **options: int) -> list[Item]:
    source = WebDatasetSource(str(path), **options)
    return [item for shard in source.shards() for item in source.read(shard)]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_the_library_reads_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with webdataset.TarWriter(str(path), compress=suffix != ".tar") as tar:
        for number in range(5):
            key = f"part.v2/{number:04d}" if number % 2 else f"{number:04d}"
            tar.write({"__key__": key, "jpg": picture_bytes(number), "json": {"caption": f"c {number}"}})
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(item.id, item.data, item.text) for item in read(path)] == [
        (row["__key__"], row["jpg"], f"c {number}") for number, row in enumerate(theirs)
    ]


def test_multi_image_samples_keep_every_image(tmp_path: Path) -> None:
    names = ["a.0.jpg", "a.1.jpg", "a.txt", "b.left.png", "b.right.png", "c.jpg", "c.png", "c.json"]
    bodies = {"a.txt": b"two", "c.json": b'{"text": "jpg and png"}'}
    path = tar_of(tmp_path / "x.tar", [(name, bodies.get(name, name.encode())) for name in names])
    assert [(item.id, item.number, item.data, item.text) for item in read(path)] == [
        ("a", 0, b"a.0.jpg", "two"),
        ("a", 1, b"a.1.jpg", "two"),
        ("b", 0, b"b.left.png", ""),
        ("b", 1, b"b.right.png", ""),
        ("c", 0, b"c.jpg", "jpg and png"),
        ("c", 1, b"c.png", "jpg and png"),
    ]


def test_two_samples_with_one_key_are_both_there(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"one"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg", b"4")]
    items = read(tar_of(tmp_path / "x.tar", members))
    assert [(item.id, item.number, item.data, item.text) for item in items] == [
        ("a", 0, b"1", "one"),
        ("b", 0, b"2", ""),
        ("a", 1, b"3", ""),
        ("a", 2, b"4", ""),
    ]


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg"])
def test_a_path_that_climbs_out_is_an_error_and_writes_nothing(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = tar_of(inside / "x.tar", [("a.jpg", b"1"), (name, b"2"), ("b.jpg", b"3")])
    before = sorted(tmp_path.rglob("*"))
    items = read(path)
    assert [item.data for item in items] == [b"1", None, b"3"]
    assert "climbs out" in items[1].error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_errors(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    (item,) = read(tmp_path / "x.tar")
    assert item.data is None
    assert "link or device" in item.error


def test_a_name_without_a_key_is_not_passed_over(tmp_path: Path) -> None:
    items = read(tar_of(tmp_path / "x.tar", [(".hidden.jpg", b"1"), ("./dir.v1/b.jpg", b"2")]))
    assert [(item.id, item.data) for item in items] == [(".hidden.jpg", b"1"), ("./dir.v1/b", b"2")]


def test_what_was_read_before_a_cut_stands_wherever_the_cut_is(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", [(f"{number}.jpg", bytes([number]) * 700) for number in range(3)])
    whole, length = path.read_bytes(), 3 * (512 + 1024)  # a header and two blocks each
    for cut in range(0, length + 1, 256):
        path.write_bytes(whole[:cut])
        items, error = drain(WebDatasetSource(str(path)))
        complete = sum(cut >= number * 1536 + 512 + 700 for number in range(3))
        assert len(items) in (complete, max(0, (cut - 1) // 1536)), cut
        assert [item.data for item in items] == [bytes([n]) * 700 for n in range(len(items))]
        assert "breaks off" in error, cut
    path.write_bytes(whole)
    assert len(read(path)) == 3


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[1024:1030] = b"\xff" * 6  # in the second member's name, so that its checksum is wrong
    path.write_bytes(data)
    items, error = drain(WebDatasetSource(str(path)))
    assert [item.data for item in items] == [b"1"]
    assert "bad checksum" in error


def test_what_is_no_tar_at_all(tmp_path: Path) -> None:
    for data in (b"", b"hello" * 500, gzip.compress(b"hello")[:-3]):
        (tmp_path / "x.tar").write_bytes(data)
        assert drain(WebDatasetSource(str(tmp_path / "x.tar")))[1]


def test_a_tar_without_pictures_says_so(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", [("a.txt", b"words")])
    with pytest.raises(ShardError, match="holds no images"):
        read(path)


def test_a_member_or_sample_that_is_too_large_is_an_error_and_is_not_held(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", compresslevel=1) as tar:
        for name, size in (("a.jpg", 1 << 26), ("b.0.jpg", 600_000), ("b.1.jpg", 600_000), ("c.jpg", 10)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    tracemalloc.start()
    items = read(tmp_path / "x.tar.gz", max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25
    assert [item.id for item in items] == ["a", "b", "b", "c"]
    assert "more than the limit" in items[0].error
    assert (items[1].error, items[3].error) == ("", "")
    assert "its sample has more" in items[2].error


def test_an_extended_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind, size in (("a.jpg", tarfile.REGTYPE, 10), ("x", tarfile.XHDTYPE, 1 << 22)):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, size
            tar.addfile(info, io.BytesIO(bytes(size)))
    items, error = drain(WebDatasetSource(str(tmp_path / "x.tar")))
    assert len(items) == 1
    assert "extended header" in error


def test_patterns_globs_and_folders(tmp_path: Path) -> None:
    for name in ("a-00", "a-01", "b-00"):
        tar_of(tmp_path / f"{name}.tar", [("x.jpg", name.encode())])
    (tmp_path / ".hidden.tar").touch()

    def names(text: str) -> list[str]:
        return [shard.name for shard in WebDatasetSource(f"{tmp_path}{text}").shards()]

    assert names("/a-{00..01}.tar") == names("/a-*.tar") == ["a-00.tar", "a-01.tar"]
    assert names("") == names("/{a,b}-0*.tar") == ["a-00.tar", "a-01.tar", "b-00.tar"]
    with pytest.raises(DataError, match="matches no file"):
        names("/c-{00..09}.tar")


def test_a_tar_that_a_pattern_spells_out_and_is_missing_is_a_shard_that_fails(tmp_path: Path) -> None:
    tar_of(tmp_path / "0.tar", [("x.jpg", b"1")])
    source = open_source(f"wds:{tmp_path}/{{0..1}}.tar")
    here, missing = source.shards()
    assert [item.data for item in source.read(here)] == [b"1"]
    with pytest.raises(ShardError, match=r"1.tar.*no such file"):
        list(source.read(missing))


def test_captions_that_are_not_text_are_left_readable(tmp_path: Path) -> None:
    members = [
        *(("a.jpg", b"1"), ("a.txt", b"caf\xe9")),
        *(("b.jpg", b"1"), ("b.json", b"[" * 100_000)),
        *(("c.jpg", b"1"), ("c.json", b'{"caption": "\\ud800 x"}')),
    ]
    items = read(tar_of(tmp_path / "x.tar", members))
    assert [item.text for item in items] == ["caf\\xe9", "", "\\ud800 x"]
    assert [bool(item.text_error) for item in items] == [False, True, False]


def test_a_caption_in_many_lists_is_none(tmp_path: Path) -> None:
    for depth, told in ((2, "x"), (600, "")):
        words = b'{"caption": %s"x"%s}' % (b"[" * depth, b"]" * depth)
        (item,) = read(tar_of(tmp_path / "x.tar", [("a.jpg", b"1"), ("a.json", words)]))
        assert (item.data, item.text, item.text_error) == (b"1", told, "")


def test_a_text_that_cannot_be_read_is_told_with_the_picture(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (
            *(("a.jpg", b"1"), ("a.txt", b"x" * (MAX_TEXT_BYTES + 1))),
            *(("b.json", b'{"caption": "cut'), ("b.jpg", b"2")),
            *(("c.0.jpg", b"3"), ("c.1.jpg", b"4"), ("c.txt", None), ("c.json", b'{"text": "other"}')),
            *(("d.jpg", b"5"), ("d.txt", b"x" * MAX_TEXT_BYTES)),
            *(("e.jpg", b"6"), ("e.json", b'{"width": 5}')),
            *(("f.jpg", b"7"), ("f.json", b'{"caption": {"of_the_future": "words of a caption"}}')),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data or b""))
    items = {item.data: item for item in read(tmp_path / "x.tar")}
    assert set(items) == {b"1", b"2", b"3", b"4", b"5", b"6", b"7"}
    for data, told in (
        *((b"1", "more than the limit"), (b"2", "is no JSON"), (b"3", "link"), (b"4", "link")),
        (b"7", "written in a way that is not known"),
    ):
        assert told in items[data].text_error
        assert items[data].error == ""
    assert items[b"3"].text == "other"
    assert items[b"5"].text_error == items[b"6"].text_error == ""
    assert decoded(Item("x", 0, picture_bytes(), text_error="gone"))[1] == ""


def test_a_text_behind_the_cut_is_told_with_the_picture(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "x.tar", [("a.jpg", b"1"), ("a.txt", b"one"), ("b.jpg", b"2"), ("b.txt", b"two")]
    )
    path.write_bytes(path.read_bytes()[: 3 * 1024 + 512])
    (first, second), _ = drain(WebDatasetSource(str(path)))
    assert (first.text, first.text_error) == ("one", "")
    assert second.data == b"2"
    assert "breaks off" in second.text_error


def test_pictures_of_formats_that_are_not_read_are_items(tmp_path: Path) -> None:
    names = [
        f"{n}.{kind}"
        for n, kind in enumerate(("jfif", "JPE", "avif", "heic", "heif", "ppm", "jp2", "jxl", "svg"))
    ]
    items = read(tar_of(tmp_path / "x.tar", [(name, b"<not read>") for name in names]))
    assert len(items) == len(names)
    assert all("convert it to one of JPEG" in decoded(item)[1] for item in items)


PACKERS = ("gz", "bz2", "xz")


BOMB = """
import resource, sys
import webdataset
from safevlm.data.webdataset import WebDatasetSource
source = WebDatasetSource(sys.argv[1])
source.shards()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = [item.id for shard in source.shards() for item in source.read(shard)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, items)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKERS)
def test_a_packed_bomb_takes_no_memory(tmp_path: Path, kind: str) -> None:
    """A picture, a member of 160 MB that is no picture, a picture: in 10 kB of bzip2 they would be one piece."""
    head, size = io.BytesIO(), 160_000_000
    with tarfile.open(fileobj=head, mode="w") as tar:
        for name, data in (("a.jpg", b"1"), ("z.bin", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    info.size = size
    start = head.getvalue()[:1024] + info.tobuf()
    tail = tar_of(tmp_path / "tail", [("b.jpg", b"2")]).read_bytes()
    pieces = [start, *[bytes(8_000_000)] * 20, bytes(-size % 512), tail]
    with (tmp_path / f"x.tar.{kind}").open("wb") as file:
        for piece in _packed(kind, pieces):
            file.write(piece)
    assert (tmp_path / f"x.tar.{kind}").stat().st_size < 2_000_000
    told = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / f"x.tar.{kind}")], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    kilobytes, _, rest = told.stdout.partition(" ")
    assert rest.strip() == "['a', 'b']"
    assert int(kilobytes) < 50_000


def _packed(kind: str, pieces: list[bytes]) -> Iterable[bytes]:
    """One stream of all pieces."""
    packer = {
        "gz": lambda: zlib.compressobj(1, wbits=31),
        "bz2": lambda: bz2.BZ2Compressor(9),
        "xz": lambda: lzma.LZMACompressor(preset=0),
    }[kind]()
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def test_xz_that_needs_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    inner = tar_of(tmp_path / "inner", [("a.jpg", b"1")]).read_bytes()
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(inner, filters=filters))
    items, error = drain(WebDatasetSource(str(tmp_path / "x.tar.xz")))
    assert items == []
    assert "Memory usage limit" in error
