"""FolderSource: what counts, in which order, and what is reported."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from safevlm.data import FolderSource, ShardError, open_source
from safevlm.data.folder import APPLE_DOUBLE, OTHER_FILES, SIDE_FILES
from safevlm.errors import DataError
from tests.data.builders import decoded


def save(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2), colour).save(path, "PNG")
    return path


class Sample(NamedTuple):
    """An item with its image, or with the reason why there is none."""

    id: str
    image: Image.Image | None
    error: str
    data: bytes | None


def samples_of(source: FolderSource) -> list[Sample]:
    return [
        Sample(item.id, *decoded(item), item.data) for shard in source.shards() for item in source.read(shard)
    ]


def test_recursive_sorted_relative_ids(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpeg", "a/b/c.tiff", "a.webp", ".hidden.gif"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    samples = samples_of(FolderSource(tmp_path))
    assert [sample.id for sample in samples] == [".hidden.gif", "a.webp", "a/b/c.tiff", "a/z.jpeg", "b.PNG"]
    assert all(sample.image is not None and sample.image.size == (3, 2) for sample in samples)


def test_shards_are_runs_of_the_sorted_listing(tmp_path: Path) -> None:
    for number in range(7):
        save(tmp_path / f"{number}.png")
    source = FolderSource(tmp_path, files_per_shard=3)
    shards = source.shards()
    assert [(shard.name, shard.images) for shard in shards] == [
        ("files-00000000", 3),
        ("files-00000003", 3),
        ("files-00000006", 1),
    ]
    assert [item.id for item in source.read(shards[1])] == ["3.png", "4.png", "5.png"]
    assert FolderSource(tmp_path, files_per_shard=3).shards() == shards
    save(tmp_path / "4.png", 99)
    changed = FolderSource(tmp_path, files_per_shard=3).shards()
    assert [one == other for one, other in zip(shards, changed, strict=True)] == [True, False, True]


def test_a_file_added_after_planning_is_noticed_by_a_copy(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    source = FolderSource(tmp_path)
    (shard,) = source.shards()
    save(tmp_path / "a.png")
    assert [item.id for item in source.read(shard)] == ["b.png"]
    with pytest.raises(ShardError, match="added or removed"):
        list(pickle.loads(pickle.dumps(source)).read(shard))  # noqa: S301


def test_pictures_are_read_when_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    gone = save(tmp_path / "b.png")
    source = FolderSource(tmp_path)
    (shard,) = source.shards()
    gone.unlink()
    (first, _), (second, error) = map(decoded, source.read(shard))
    assert first is not None
    assert second is None
    assert "no such file" in error


def test_pictures_of_formats_that_are_not_read_are_rows(tmp_path: Path) -> None:
    others = ("avif", "heic", "heif", "ppm", "jp2", "jxl", "SVG")
    for number, kind in enumerate(others):
        (tmp_path / f"{number}.{kind}").write_text("<svg/>")
    for name in ("x.jfif", "y.JPE", "z.svg"):
        save(tmp_path / name)
    samples = samples_of(FolderSource(tmp_path))
    assert len(samples) == len(others) + 3
    assert [sample.image is not None for sample in samples] == [False] * len(others) + [True] * 3
    assert all("convert it to one of JPEG" in sample.error for sample in samples[: len(others)])


def test_unreadable_files_are_samples_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    os.mkfifo(tmp_path / "pipe.jpg")
    samples = {sample.id: sample for sample in samples_of(FolderSource(tmp_path))}
    assert all(sample.image is None for sample in samples.values())
    assert "is empty" in samples["empty.jpg"].error
    assert "not an image" in samples["text.jpg"].error
    assert samples["text.jpg"].data == b"hello"
    assert "not a regular file" in samples["pipe.jpg"].error


def test_symlinks(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    save(outside / "secret.png")
    inside = save(root / "real.png")
    (root / "inner.png").symlink_to(inside)
    (root / "leaves.png").symlink_to(outside / "secret.png")
    (root / "leaves-too").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "readme").symlink_to(outside / "readme.txt")
    samples = {sample.id: sample for sample in samples_of(FolderSource(root))}
    assert set(samples) == {"real.png", "inner.png", "leaves.png", "leaves-too", "self.png"}
    assert samples["inner.png"].image is not None
    for name in ("leaves.png", "leaves-too"):
        assert samples[name].image is None
        assert "leaves the folder" in samples[name].error
    assert samples["self.png"].error


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")))
    (sample,) = samples_of(FolderSource(tmp_path))
    assert sample.id == "caf\\xe9.png"
    assert sample.image is not None


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="no such folder"):
        FolderSource(tmp_path / "none").shards()
    with pytest.raises(DataError, match="is a file"):
        FolderSource(tmp_path / "file.txt").shards()
    with pytest.raises(DataError, match=r"holds no images.*jpeg"):
        FolderSource(tmp_path).shards()


def test_files_that_are_passed_over_are_counted_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(APPLE_DOUBLE[0] + bytes(100))
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "BMW").write_text("BM are words, too")
    (tmp_path / "more.zip").write_bytes(b"PK\3\4")
    os.symlink(tmp_path.parent / "elsewhere", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    source, passed_over = FolderSource(tmp_path, files_per_shard=2), Counter[str]()
    ids = [item.id for shard in source.shards() for item in source.read(shard, passed_over)]
    assert ids == ["a.png", "b.png", "c.png"]
    assert passed_over == {SIDE_FILES: 1, OTHER_FILES: 5}


def test_an_image_is_known_by_its_first_bytes_where_its_name_is_none(tmp_path: Path) -> None:
    for name in ("4f2a", "d/scan.img", "e.txt", "._side"):
        save(tmp_path / name)
    (tmp_path / "._side").write_bytes(APPLE_DOUBLE[0] + bytes(100))
    (tmp_path / "words").write_text("BM are words, too")
    os.symlink(tmp_path / "4f2a", tmp_path / "link")
    source, passed_over = open_source(str(tmp_path)), Counter[str]()
    ids = [item.id for shard in source.shards() for item in source.read(shard, passed_over)]
    assert ids == ["4f2a", "d/scan.img", "link"]
    assert passed_over == {OTHER_FILES: 3}


@pytest.mark.parametrize(("files", "size"), [(20, 32), (1024, 32), (1025, 64), (20_000, 1024)])
def test_a_small_folder_has_small_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, size: int
) -> None:
    found = [(f"{number}.png", "") for number in range(files)]
    monkeypatch.setattr("safevlm.data.folder._walk", lambda root, *, follow: iter(found))
    assert FolderSource(tmp_path).files_per_shard == size


def test_symlinks_that_leave_are_followed_where_asked_for(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    save(outside / "a/far.png")
    (outside / "a/words").write_text("words")
    inside = save(root / "sub/real.png")
    (root / "file.png").symlink_to(outside / "a/far.png")
    (root / "folder").symlink_to(outside)
    (root / "again").symlink_to(outside)
    (root / "sub/loop").symlink_to(root)
    (outside / "back").symlink_to(root)
    (root / "inner").symlink_to(inside.parent)
    source = open_source(f"folder:{root}?follow_symlinks=yes")
    samples = samples_of(source)
    assert [sample.id for sample in samples] == ["again/a/far.png", "file.png", "sub/real.png"]
    assert all(sample.image is not None for sample in samples)
    assert [item.id for item in samples_of(open_source(source.uri))] == [item.id for item in samples]
    assert pickle.loads(pickle.dumps(source)).shards() == source.shards()  # noqa: S301
    with pytest.raises(DataError, match="it is yes or no"):
        open_source(f"folder:{root}?follow_symlinks=maybe")


def test_an_image_that_is_called_like_a_side_file_is_read(tmp_path: Path) -> None:
    save(tmp_path / "._a.png")
    assert [sample.error for sample in samples_of(FolderSource(tmp_path))] == [""]
