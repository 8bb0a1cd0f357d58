"""One process at a time writes into a scan's folder, and a dead one is in nobody's way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import FolderSource
from safevlm.errors import DataError
from safevlm.scan import Checkpoint, ScanCounts, ScanOptions, export, merge, scan, write_report
from safevlm.scan.ledger import Ledger
from safevlm.scan.lock import locked
from safevlm.scan.summary import summarise
from tests.scan.tiny_checkpoint import files_below, rows_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders have locks on POSIX systems alone")


def test_a_second_writer_is_refused_and_hurts_nothing(
    pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out, refused = tmp_path / "out", []
    source = FolderSource(pictures, files_per_shard=6)
    summary: Any = scan(source, model, tmp_path / "one", ScanOptions(limit=6))
    others: list[Callable[[], object]] = [
        lambda: scan(source, model, out),
        lambda: scan(source, model, out, fresh=True),
        lambda: scan(source, model, out, ScanOptions(engine="ray")),
        lambda: merge([tmp_path / "one", tmp_path / "one"], out),
        lambda: export(out, tmp_path / "list.txt", form="txt"),
        lambda: write_report(out, summary),
    ]

    def try_others(_: object) -> None:
        before = files_below(out)
        for other in others:
            with pytest.raises(DataError, match="another scan is writing there") as caught:
                other()
            refused.append(str(caught.value))
        assert files_below(out) == before

    # every batch, so that a shard is half written in some of the calls
    found = scan(source, model, out, ScanOptions(batch_size=4), on_progress=try_others)
    assert len(refused) >= 5 * len(others)
    assert (found.n, found.complete, len(rows_of(out))) == (20, True, 20)
    if sys.platform == "linux":
        assert all(f"process {os.getpid()}" in message for message in refused)


def test_a_folder_is_not_replaced_while_its_rows_are_read(
    pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(FolderSource(pictures), model, out)
    with locked(out, shared=True):
        assert export(out, tmp_path / "list.txt", keep=["safe", "unsafe"], form="txt") == 20
        with pytest.raises(DataError, match="its rows are being read"):
            scan(FolderSource(pictures), model, out, fresh=True)
    assert len(rows_of(out)) == 20


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        with locked(tmp_path / "out"):
            os.write(told, b"x")
            signal.pause()
    assert os.read(ready, 1) == b"x"
    try:
        with pytest.raises(DataError, match="another scan is writing there"), locked(tmp_path / "out"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(tmp_path / "out"):
        (tmp_path / "out" / "mine").touch()


def test_a_scan_that_cannot_begin_leaves_no_folder(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        scan(FolderSource(tmp_path / "empty"), model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()  # one that was there stays
    with pytest.raises(DataError):
        scan(FolderSource(tmp_path / "empty"), model, tmp_path / "out")
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("name", [".summary.json.tmp", ".report.html.tmp"])
def test_no_link_is_followed(name: str, pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("mine")
    out.mkdir()
    (out / name).symlink_to(victim)
    (tmp_path / ".list.txt.tmp").symlink_to(victim)
    write_report(out, scan(FolderSource(pictures), model, out))
    export(out, tmp_path / "list.txt", keep=["safe", "unsafe"], form="txt")
    assert victim.read_text() == "mine"
    assert not [path for path in files_below(out) if path.endswith(".tmp")]


@pytest.mark.parametrize("name", ["rows/part-00000.parquet", "summary.json", "ledger.sqlite", "report.html"])
def test_a_list_does_not_take_the_place_of_what_the_scan_wrote(
    name: str, pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(FolderSource(pictures), model, out)
    before = (out / name).read_bytes() if (out / name).exists() else None
    with pytest.raises(DataError, match="belongs to the scan itself"):
        export(out, out / name, keep=["safe", "unsafe"], form="jsonl")
    assert ((out / name).read_bytes() if (out / name).exists() else None) == before


def test_a_report_is_written_anew_whatever_the_clock_says(
    pictures: Path, model: Checkpoint, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", FolderSource(pictures, files_per_shard=6)

    def interrupt(counts: ScanCounts) -> None:
        if counts.done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(source, model, out, on_progress=interrupt)
    with closing(Ledger(out / "ledger.sqlite")) as ledger:
        begun = summarise(ledger)
    page = write_report(out, begun)
    first, late = page.read_text(), 4_102_444_800  # the year 2100
    os.utime(page, (late, late))
    assert write_report(out, begun).stat().st_mtime == late  # the same rows: it stays
    summary = scan(source, model, out)
    assert (begun.n, summary.n) == (6, 20)
    assert write_report(out, summary).read_text() != first
