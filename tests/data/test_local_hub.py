"""A folder that the datasets library reads is read inside itself, without network, or refused."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import open_source
from safevlm.data.hub import FILES_UNREAD, IMAGES_UNREAD
from tests.data.builders import drain_uri, picture_bytes


def test_symlinks_out_of_the_folder_are_not_followed(folder: Path) -> None:
    (folder / "train.parquet").unlink()
    (folder / "train.parquet").symlink_to(folder.parent / "secret" / "s.parquet")
    items, error = drain_uri(f"hf:{folder}")
    assert (items, "leads out of the folder" in error) == ([], True)
    (folder / "train.parquet").unlink()
    (folder / "sub").symlink_to(folder.parent / "secret")
    items, error = drain_uri(f"hf:{folder}")
    assert items == []
    assert error
    (folder / "README.md").symlink_to(folder.parent / "secret" / "card.md")
    (folder.parent / "secret" / "card.md").write_text("x")
    assert "leads out of the folder" in drain_uri(f"hf:{folder}")[1]


def test_what_lies_outside_changes_no_signature(folder: Path) -> None:
    (folder / "log.txt").symlink_to("/proc/self/status")
    (folder / "other.txt").symlink_to(folder.parent / "secret" / "s.parquet")
    before = [shard.signature for shard in open_source(f"hf:{folder}").shards()]
    (folder.parent / "secret" / "s.parquet").write_bytes(b"other")
    assert [shard.signature for shard in open_source(f"hf:{folder}").shards()] == before
    pq.write_table(pa.table({"image": [b"another"]}), folder / "train.parquet")
    assert [shard.signature for shard in open_source(f"hf:{folder}").shards()] != before


@pytest.mark.parametrize(
    "name", ["a.tar", "a.h5", "a.eval", "a.lance", "a.zip", "a.toml", "folder.py", "a.pkl", "a.xml"]
)
def test_formats_that_lead_elsewhere_or_run_code_are_refused(name: str, folder: Path) -> None:
    (folder / "train.parquet").unlink()
    if name == "a.zip":
        shutil.make_archive(str(folder / "a"), "zip", folder.parent / "secret")
    else:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    items, error = drain_uri(f"hf:{folder}")
    assert items == []
    assert str(folder) in error
    assert not Path("ran").exists()


def test_names_of_files_that_read_as_chains_are_refused(folder: Path, asked: tuple[str, list[str]]) -> None:
    place = folder / f"x::{asked[0].replace('//', '/')}"
    place.mkdir(parents=True)
    shutil.move(folder / "train.parquet", place / "evil.parquet")
    assert drain_uri(f"hf:{folder}")[1]
    assert asked[1] == []


def test_urls_and_paths_in_rows_are_errors_of_their_rows(folder: Path, asked: tuple[str, list[str]]) -> None:
    (folder / "train.parquet").unlink()
    (folder / "a.png").write_bytes(picture_bytes())
    names = ["a.png", f"{asked[0]}/a.png", "/etc/passwd", "../secret/s.parquet", f"zip://x::{asked[0]}/a.zip"]
    (folder / "train.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    items, error = drain_uri(f"hf:{folder}?image=image")
    if error:  # the library sees a folder of images, since there is one
        os.remove(folder / "a.png")
        items, error = drain_uri(f"hf:{folder}?image=image")
    assert error == ""
    assert [bool(item.error) for item in items[1:]] == [True] * 4
    assert asked[1] == []


@pytest.mark.parametrize("name", ["../secret/s.parquet", "/etc/passwd", "{http}/b.png", "file:///etc/passwd"])
def test_metadata_of_a_folder_of_images_reaches_nothing_outside(
    name: str, folder: Path, asked: tuple[str, list[str]]
) -> None:
    (folder / "train.parquet").unlink()
    (folder / "a.png").write_bytes(picture_bytes())
    rows = f"file_name,text\n{name.format(http=asked[0])},y\n"
    (folder / "metadata.csv").write_text(rows)
    items, error = drain_uri(f"hf:{folder}")
    assert all(item.data is None for item in items)
    assert error or all(item.error for item in items)
    assert asked[1] == []


def test_a_parquet_file_that_breaks_its_promises(folder: Path) -> None:
    (folder / "train.parquet").unlink()
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    captions = pa.ListArray.from_arrays([0, 1, 2, 3], texts)
    pq.write_table(pa.table({"image": [b"0", b"1", b"2"], "captions": captions}), folder / "train.parquet")
    items, error = drain_uri(f"hf:{folder}")
    assert (error, [item.text for item in items]) == ("", ["a", "\\xff", "c"])
    table = pa.Table.from_arrays([pa.array([b"0"]), pa.array([b"1"])], names=["image", "image"])
    pq.write_table(table, folder / "train.parquet")
    assert str(folder) in drain_uri(f"hf:{folder}")[1]


def passed_over(folder: Path) -> tuple[int, Counter[str]]:
    """How many images a folder gives, and what it is said to pass over."""
    source, counts = open_source(f"hf:{folder}"), Counter[str]()
    return sum(1 for shard in source.shards() for _ in source.read(shard, counts)), counts


def test_files_that_no_split_reads_are_counted(folder: Path) -> None:
    (folder / "README.md").write_text("words")
    (folder / "1.png").write_bytes(picture_bytes(1))  # a path in a row may name it
    assert passed_over(folder) == (1, {})
    for name in ("more.parquet", "rows.jsonl"):
        shutil.copy(folder / "train.parquet", folder / name)
    assert passed_over(folder) == (1, {FILES_UNREAD: 2})


def test_images_that_metadata_do_not_name_are_counted(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(picture_bytes(number))
    (tmp_path / "hash").write_bytes(picture_bytes(4))
    assert passed_over(tmp_path) == (3, {FILES_UNREAD: 1})
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "2.png", "text": "two"}))
    assert passed_over(tmp_path) == (1, {FILES_UNREAD: 1, IMAGES_UNREAD: 2})


def test_a_folder_behind_a_symlink_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert passed_over(tmp_path / "link") == (1, {})
