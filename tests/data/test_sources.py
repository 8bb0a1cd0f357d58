"""What holds for every source: the same pictures in every format read back the same, the bad ones, too."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import time
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from safevlm.data import Item, Source, open_source
from safevlm.data.open import KINDS as SOURCE_KINDS
from safevlm.errors import DataError
from tests.data.builders import KINDS, decoded, drain, encoded, id_of, make_source, picture_bytes

COUNT = 7
IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(COUNT)]
TEXTS = [f"a caption <b>{number}</b> ä" for number in range(COUNT)]


def items_of(source: Source) -> list[Item]:
    return [item for shard in source.shards() for item in source.read(shard)]


@cache
def bad_images() -> list[tuple[str, bytes, str]]:
    """Name, bytes, and what the error says; empty where the picture is read."""
    plain = Image.open(io.BytesIO(picture_bytes(1)))
    exif = Image.Exif()
    exif[274] = 6
    animated = io.BytesIO()
    plain.save(animated, "GIF", save_all=True, append_images=[plain.rotate(90)])
    cases = [
        ("animated.gif", animated.getvalue(), ""),
        ("bomb.png", encoded(Image.new("1", (20_000, 20_000))), "more than the limit"),
        ("cmyk.jpg", encoded(plain.convert("CMYK"), "JPEG"), ""),
        ("deep.png", encoded(plain.convert("L").convert("I;16")), ""),
        ("empty.jpg", b"", "is empty"),
        ("extension.jpg", picture_bytes(2), ""),
        ("one.png", encoded(plain.resize((1, 1))), ""),
        ("text.jpg", b"this is no picture", "not an image"),
        ("thin.png", encoded(Image.new("L", (1, 20_000))), "thinner than"),
        ("transparent.png", encoded(plain.convert("RGBA")), ""),
        ("truncated.png", picture_bytes(3)[: len(picture_bytes(3)) // 2], "truncated"),
        ("turned.jpg", encoded(plain, "JPEG", exif=exif), ""),
    ]
    return [("000.png", picture_bytes(0), ""), *cases, ("zzz.png", picture_bytes(9), "")]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_what_was_written_is_read_back(kind: str, tmp_path: Path) -> None:
    source = open_source(make_source(kind, tmp_path, IMAGES, TEXTS))
    items = items_of(source)
    assert [item.id for item in items] == [id_of(kind, name) for name, _ in IMAGES]
    assert [item.data for item in items] == [data for _, data in IMAGES]
    assert [item.text for item in items] == ([""] * COUNT if kind == "folder" else TEXTS)
    assert {(item.number, item.error) for item in items} == {(0, "")}


def test_shards_are_named_once_and_the_same_every_time(kind: str, tmp_path: Path) -> None:
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    shards = list(open_source(uri).shards())
    assert len({shard.name for shard in shards}) == len(shards)
    assert list(open_source(uri).shards()) == shards
    for shard in shards:
        assert shard.images in (None, len(list(open_source(uri).read(shard))))


def test_the_uri_opens_the_same_source(kind: str, tmp_path: Path) -> None:
    source = open_source(make_source(kind, tmp_path, IMAGES, TEXTS))
    again = open_source(source.uri)
    assert source.uri.startswith(f"{kind}:")
    assert again.uri == source.uri
    assert items_of(again) == items_of(source)


def test_a_copy_in_another_process_reads_the_same(kind: str, tmp_path: Path) -> None:
    source = open_source(make_source(kind, tmp_path, IMAGES, TEXTS))
    fresh = pickle.loads(pickle.dumps(source))  # noqa: S301
    shards = source.shards()
    used = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert [list(fresh.read(shard)) for shard in shards] == [list(used.read(shard)) for shard in shards]
    assert items_of(fresh) == items_of(source)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_file_stays_open(kind: str, tmp_path: Path) -> None:
    source = open_source(make_source(kind, tmp_path, IMAGES, TEXTS))
    items_of(source)
    for shard in source.shards():
        half = source.read(shard)
        next(half)
        half.close()
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [path for path in held if path.startswith(str(tmp_path))]


def test_signatures_change_with_the_content_and_only_then(kind: str, tmp_path: Path) -> None:
    def signatures() -> list[str]:
        return [shard.signature for shard in open_source(uri).shards()]

    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    before = signatures()
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    assert signatures() == before
    changed = [(name, data if name != "003.png" else picture_bytes(99)) for name, data in IMAGES]
    make_source(kind, tmp_path, changed, TEXTS)
    assert signatures() != before


def test_reading_changes_nothing(kind: str, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[str, int]]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), os.stat(p).st_mtime_ns) for p in files}

    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    before = state()
    items_of(open_source(uri))
    assert state() == before


def test_every_bad_image_costs_one_item_in_its_place(kind: str, tmp_path: Path) -> None:
    cases = bad_images()
    uri = make_source(kind, tmp_path, [(name, data) for name, data, _ in cases], [n for n, _, _ in cases])
    items = items_of(open_source(uri))
    assert [item.id for item in items] == [id_of(kind, name) for name, _, _ in cases]
    for item, (name, data, error) in zip(items, cases, strict=True):
        image, found = decoded(item)
        assert item.data == data, name
        assert (image is None) == bool(error), (name, found)
        assert error in found
        if kind != "folder":
            assert item.text == name
        if name == "turned.jpg":
            assert image is not None
            assert image.size == (16, 24)


def test_an_empty_source_is_refused_with_a_remedy(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(holds|names|has) no .*; |any data files.*check") as caught:
        items_of(open_source(make_source(kind, tmp_path, [], [])))
    assert str(tmp_path) in str(caught.value) or kind == "wds"


def test_a_source_that_is_not_there_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_source(f"{kind}:{tmp_path}/nowhere/x.{kind}").shards()


@pytest.mark.parametrize("kind", ["wds", "parquet", "llava", "coco", "jsonl"])
def test_damaged_files_give_items_or_a_reason(kind: str, tmp_path: Path) -> None:
    """Bytes are changed, cut out and put in; nothing but a DataError comes out, and rows can be written."""
    uri = make_source(kind, tmp_path, IMAGES, TEXTS)
    path = next(path for path in sorted(tmp_path.iterdir()) if path.is_file())
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 5)):
            place, size = dice.randrange(len(data)), dice.randrange(0, 30)
            data[place : place + dice.randrange(0, 30)] = dice.randbytes(size)
        path.write_bytes(data)
        try:
            items, _ = drain(open_source(uri))
        except DataError:  # refused as a whole
            continue
        for item in items:
            image, error = decoded(item)
            assert (image is None) == bool(error)
            (item.id + item.text + error).encode()


def test_the_page_on_sources_shows_every_kind_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    for kind, (_, options, example) in SOURCE_KINDS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert f"`{example}`" in row
        assert all(f"`{option}`" in row for option in options)
