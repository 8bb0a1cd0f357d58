"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from safevlm.files import replacing, replacing_folder


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as replacement:
            replacement.file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert path.read_text() == "old"
    with replacing(path) as replacement:
        replacement.file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_folders_that_cannot_be_synced(
    number: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    told = None
    try:
        with replacing(tmp_path / "a") as replacement:
            replacement.file.write(b"new")
    except OSError as error:
        told = error.errno
    assert told == (None if passes else number)
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_folder_that_is_there_keeps_the_rest_and_gets_the_last_file_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    for name, text in {"config": "old", "weights": "old", "mine": "stays", "lora/old": "goes"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    order: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        order.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with replacing_folder(folder, last="config") as unfinished:
        for name in ("config", "weights", "lora/new"):
            (unfinished / name).parent.mkdir(exist_ok=True)
            (unfinished / name).write_text("new")
        assert (folder / "config").read_text() == "old"
    assert (sorted(order), order[-1]) == (["config", "lora", "weights"], "config")
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config": "new", "weights": "new", "mine": "stays", "lora/new": "new"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_folder_appears_whole_and_its_files_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, synced = tmp_path / "deep" / "out", set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing_folder(folder, last="config") as unfinished:
        (unfinished / "config").write_text("new")
        assert not folder.exists()
    assert (folder / "config").read_text() == "new"
    assert {(folder / "config").stat().st_ino, folder.parent.stat().st_ino} <= synced


def test_a_folder_that_a_killed_process_left_goes_with_the_next_one(tmp_path):
    left, other = tmp_path / ".out.0123abcd.tmp", tmp_path / ".out.mine.tmp"
    for folder in (left, other):
        folder.mkdir()
        (folder / "a").write_text("half")
    with replacing_folder(tmp_path / "out", last="a") as hidden:
        (hidden / "a").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mine.tmp", "out"]
    assert (tmp_path / "out" / "a").read_text() == "whole"
