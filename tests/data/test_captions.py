"""Which text belongs to which image of a tar; the webdataset library is the oracle where it joins them."""

from __future__ import annotations

import io
import random
import tarfile
from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pytest
import webdataset

from safevlm.data import Item, ShardError, captions
from safevlm.data import webdataset as webdataset_source
from safevlm.data.captions import Caption, captions_of
from safevlm.data.webdataset import OTHER_IMAGES, SIDE_FILES, WITHOUT_IMAGE, WebDatasetSource
from tests.data.builders import picture_bytes

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100)


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read(path: Path | str) -> tuple[list[Item], dict[str, int]]:
    source, passed_over = WebDatasetSource(str(path)), Counter[str]()
    return [item for shard in source.shards() for item in source.read(shard, passed_over)], dict(passed_over)


def texts(path: Path) -> list[tuple[str, str, bool]]:
    return [(item.id, item.text, bool(item.text_error)) for item in read(path)[0]]


def sample(key: str, caption: bytes = b"") -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", key.encode()), (f"{key}.txt", caption or b"caption " + key.encode())]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_members_in_any_order_keep_their_captions(tmp_path: Path, mode: str) -> None:
    dice = random.Random(0)
    for trial in range(20):
        members = [member for key in ("1", "2", "d/3", "d/4") for member in sample(key)]
        if trial:
            dice.shuffle(members)
        found = texts(tar_of(tmp_path / "x.tar", members, mode))
        assert sorted(found) == [(key, f"caption {key}", False) for key in ("1", "2", "d/3", "d/4")]


def test_json_apart_from_its_image_is_read_and_its_damage_told(tmp_path: Path) -> None:
    members = [
        ("1.jpg", b""),
        ("2.jpg", b""),
        ("3.jpg", b""),
        ("1.json", b'{"caption": "one"}'),
        ("2.json", b'{"cap'),
    ]
    assert texts(tar_of(tmp_path / "x.tar", members)) == [
        ("1", "one", False),
        ("2", "", True),
        ("3", "", False),
    ]


@pytest.mark.parametrize(
    "members",
    [
        ["a.jpg", "a.txt", "b.jpg", "a.jpg"],  # two places of images, a text beside one
        ["a.jpg", "b.jpg", "a.jpg", "b.txt", "a.txt"],
        ["a.txt", "b.jpg", "a.jpg", "b.txt", "a.jpg"],
        ["a.0.jpg", "b.jpg", "a.1.jpg", "b.txt", "a.json"],
        ["a.jpg", "b.jpg", "a.txt", "b.txt", "a.txt"],  # two texts of one name
    ],
)
def test_what_may_belong_to_several_images_is_told(tmp_path: Path, members: list[str]) -> None:
    bodies = [b'{"text": "%d"}' % n if name.endswith("json") else b"%d" % n for n, name in enumerate(members)]
    items, _ = read(tar_of(tmp_path / "x.tar", zip(members, bodies, strict=True)))
    last = [item for item in items if item.id == "a"][-1]
    assert last.text_error
    assert all(item.text or item.text_error for item in items if item.id == "a")


def test_a_key_that_returns_with_a_text_of_its_own_or_without_any_text_is_no_fault(tmp_path: Path) -> None:
    members = [
        *sample("a", b"one"),
        *sample("b"),
        *sample("a", b"two"),
        ("c.jpg", b""),
        ("d.jpg", b""),
        ("c.jpg", b""),
    ]
    found = texts(tar_of(tmp_path / "x.tar", members))
    assert [text for id, text, _ in found if id == "a"] == ["one", "two"]
    assert not any(error for _, _, error in found)


def test_a_text_that_may_lie_behind_a_cut_is_told(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "x.tar",
        [*sample("0"), ("1.jpg", b"1"), ("2.jpg", b"2"), ("1.txt", b"one"), ("2.txt", b"two")],
    )
    path.write_bytes(path.read_bytes()[: 5 * 1024])
    source = WebDatasetSource(str(path))
    items: list[Item] = []
    with pytest.raises(ShardError, match="breaks off"):  # noqa: PT012
        for item in source.read(source.shards()[0]):
            items.append(item)
    assert [(item.text, bool(item.text_error)) for item in items] == [
        ("caption 0", False),
        ("one", False),
        ("", True),
    ]


def test_texts_apart_are_held_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MAX_APART", 600)
    members = [(f"{n}.jpg", b"") for n in range(4)] + [(f"{n}.txt", b"x" * 300) for n in range(4)]
    found = texts(tar_of(tmp_path / "x.tar", members))
    assert [(len(text), error) for _, text, error in found] == [(300, False)] * 2 + [(0, True)] * 2


def test_a_sample_of_very_many_members_is_held_in_part_and_none_of_its_texts_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset_source, "MAX_MEMBERS", 4)
    names = [name for n in range(6) for name in (f"IMG.{n}.jpg", f"IMG.{n}.txt")]
    found = texts(tar_of(tmp_path / "x.tar", [(name, name.encode()) for name in names]))
    assert found == [("IMG", f"IMG.{n}.txt", False) for n in range(6)]
    late = [f"IMG.{n}.jpg" for n in range(6)] + ["IMG.txt"]
    assert all(
        error for _, _, error in texts(tar_of(tmp_path / "y.tar", [(name, b"x") for name in late]))[:4]
    )


# Names with dots


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["a.b.jpg", "a.b.txt"], ["a.b.txt"]),
        (["photo.v2.jpg", "photo.txt"], ["photo.txt"]),
        (["photo.jpg", "photo.en.txt"], ["photo.en.txt"]),
        (["a.b.jpg", "a.c.jpg", "a.b.txt", "a.c.txt"], ["a.b.txt", "a.c.txt"]),
        (["a.b.jpg", "a.c.jpg", "a.b.txt"], ["a.b.txt", ""]),
        (["a.jpg", "a.b.jpg", "a.b.txt", "a.txt"], ["a.txt", "a.b.txt"]),
        (["a.b.jpg", "a.c.jpg", "a.txt"], ["a.txt", "a.txt"]),
        (["a.b.jpg", "a.c.jpg", "a.txt", "a.c.json"], ["a.txt", "a.c.json"]),
        (["a.jpg", "a.txt", "a.en.txt", "a.json"], ["a.txt"]),
        (
            ["d.v1/a.b.c.jpg", "d.v1/a.b.d.jpg", "d.v1/a.b.txt", "d.v1/a.b.c.txt"],
            ["d.v1/a.b.c.txt", "d.v1/a.b.txt"],
        ),
        (["./a.x.JPG", "./a.y.JPG", "./a.x.TXT"], ["./a.x.TXT", ""]),
    ],
)
def test_a_caption_belongs_to_the_images_with_the_longest_common_stem(
    members: list[str], expected: list[str]
) -> None:
    images = [name for name in members if name.lower().endswith("jpg")]
    for order in permutations([name for name in members if name not in images]):
        found = captions_of(images, [Caption(name, name) for name in order])
        assert found == [(text, "") for text in expected]


def test_an_error_is_of_the_images_whose_text_it_is() -> None:
    told = captions_of(["a.b.jpg", "a.c.jpg"], [Caption("a.b.txt", error="damaged"), Caption("a.c.txt", "c")])
    assert told == [("", "damaged"), ("c", "")]
    both = [Caption("a.txt", error="damaged"), Caption("a.json", "other")]
    assert captions_of(["a.jpg"], both) == [("other", "damaged")]
    assert captions_of(["a.jpg"], [Caption("a.txt", "one"), Caption("a.txt", "two")])[0][1]
    assert captions_of(["a.jpg"], [Caption("a.txt", "one"), Caption("a.txt", "one")]) == [("one", "")]


def test_dotted_names_in_a_tar_keep_their_ids(tmp_path: Path) -> None:
    names = ["a.b.jpg", "a.c.jpg", "x.jpg", "a.c.txt", "a.b.txt"]
    found = texts(tar_of(tmp_path / "x.tar", [(name, name.encode()) for name in names]))
    assert found == [("a", "a.b.txt", False), ("a", "a.c.txt", False), ("x", "", False)]


# What is passed over


@pytest.mark.parametrize("folder", ["", "./", "data/", "data.v1/"])
def test_side_files_are_passed_over_and_counted(tmp_path: Path, folder: str) -> None:
    members: list[tuple[str, bytes]] = []
    for number in ("0001", "0002"):
        for suffix, data in (("jpg", picture_bytes(int(number))), ("txt", f"caption {number}".encode())):
            members += [
                (f"{folder}._{number}.{suffix}", APPLE_DOUBLE),
                (f"{folder}PaxHeaders.123/{number}.{suffix}", b"30 mtime=1700000000.123456789\n"),
                (f"{folder}{number}.{suffix}", data),
                (f"__MACOSX/{folder}._{number}.{suffix}", APPLE_DOUBLE),
                (f"{folder}.DS_Store", b"\0\0\0\1Bud1"),
            ]
    path = tar_of(tmp_path / "x.tar", members)
    items, passed_over = read(path)
    assert [(item.id, item.text, item.text_error) for item in items] == [
        (f"{folder}{number}", f"caption {number}", "") for number in ("0001", "0002")
    ]
    assert passed_over == {SIDE_FILES: 16}
    if not folder:  # where the library drops them, too
        plain = tar_of(tmp_path / "y.tar", [pair for pair in members if pair[0].startswith(("._", "0"))])
        theirs = {
            row["__key__"]: row["txt"].decode()
            for row in webdataset.WebDataset(str(plain), shardshuffle=False)
        }
        assert {item.id: item.text for item in items} == theirs


def test_an_image_with_the_name_of_a_side_file_is_read(tmp_path: Path) -> None:
    members = [
        (f"{folder}._a.png", picture_bytes(n))
        for n, folder in enumerate(("", "d/", "__MACOSX/", "PaxHeader/"))
    ]
    items, passed_over = read(tar_of(tmp_path / "x.tar", members))
    assert [item.data for item in items] == [data for _, data in members]
    assert passed_over == {}


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    members = [
        *sample("a"),
        *(("a.cls", b"1"), ("late.npy", b"1"), ("late.jpg", b"1"), ("__meta__/x.bin", b"1")),
        *(("film.mp4", b"1"), ("film.txt", b"a film"), ("only.json", b"{}"), ("README", b"")),
    ]
    items, passed_over = read(tar_of(tmp_path / "x.tar", members))
    assert [item.id for item in items] == ["a", "late"]
    assert passed_over == {WITHOUT_IMAGE: 3}


def test_images_of_other_names_are_counted(tmp_path: Path) -> None:
    image = picture_bytes(1)
    members = [("1.jpg", image), ("1.left", image), ("2", image), ("3.bin", image), ("4.cls", b"BMW")]
    items, passed_over = read(tar_of(tmp_path / "x.tar", members))
    assert [item.id for item in items] == ["1"]
    assert passed_over == {OTHER_IMAGES: 3, WITHOUT_IMAGE: 1}
