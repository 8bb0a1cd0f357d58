"""What one file makes its parser do stays with that file; Ctrl-C is never waited for."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import FolderSource, Item, Shard
from safevlm.errors import BackboneError, DataError, MissingExtraError
from safevlm.scan import Checkpoint, ScanOptions, reader, scan, worker
from safevlm.scan.boundary import MAX_REASON, contained
from safevlm.scorer import RiskScorer
from tests.data.builders import picture_bytes
from tests.scan.tiny_checkpoint import rows_of

RAISED = (
    AssertionError,
    KeyError,
    RecursionError,
    ZeroDivisionError,
    AttributeError,
    MemoryError,
    OSError,
    re.error,
)
HANG = 60  # seconds after which something that was stuck is let go, so that a failing test ends


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAUSE", 0)


@dataclass(frozen=True)
class Hostile:
    """Two images a shard; between them each shard but the last raises something else."""

    uri: str = "hostile:"

    def shards(self) -> list[Shard]:
        return [Shard(str(number), "same") for number in range(len(RAISED) + 1)]

    def read(self, shard: Shard, passed_over: Any = None) -> Iterator[Item]:
        number = int(shard.name)
        yield Item("first", data=picture_bytes(number))
        if number < len(RAISED):
            raise RAISED[number]("a hostile file")
        yield Item("second", data=picture_bytes(99))


def check_hostile(model: Checkpoint, out: Path, engine: str) -> None:
    """Scan `Hostile`: each shard that raises is reported as failed with the reason, and its rows stand."""
    summary = scan(Hostile(), model, out, ScanOptions(engine=engine))
    assert summary.shards == {"done": 1, "failed": len(RAISED), "pending": 0}
    assert not summary.complete
    for number, kind in enumerate(RAISED):
        assert re.match(rf"{number}: .*\b{kind.__name__}: .*a hostile file", summary.failures[str(number)])
    assert len(rows_of(out)) == len(RAISED) + 2  # what came before is kept


def test_any_exception_of_a_reader_fails_its_shard_alone(model: Checkpoint, tmp_path: Path) -> None:
    check_hostile(model, tmp_path, "local")


def test_a_limit_meets_the_same_exceptions(model: Checkpoint, tmp_path: Path) -> None:
    summary = scan(Hostile(), model, tmp_path, ScanOptions(limit=50))
    assert summary.shards["failed"] == len(RAISED)


def test_a_source_that_cannot_be_planned_is_an_error_with_its_name(model: Checkpoint, tmp_path: Path) -> None:
    class Broken(Hostile):
        def shards(self) -> list[Shard]:
            raise AssertionError("no index")

    with pytest.raises(DataError, match="hostile:: cannot be read .AssertionError: no index"):
        scan(Broken(), model, tmp_path)


def test_any_exception_of_a_decoder_is_the_row_of_its_image(
    pictures: Path,
    model: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    decode = worker.decode_item_reduced
    kinds = {f"{number:02d}.png": kind for number, kind in enumerate(RAISED)}

    def decoder(item: Item, **options: Any) -> Any:
        if item.id in kinds:
            raise kinds[item.id]("no palette")
        return decode(item, **options)

    monkeypatch.setattr(worker, "decode_item_reduced", decoder)
    with caplog.at_level(logging.DEBUG, "safevlm"):
        summary = scan(FolderSource(pictures), model, tmp_path / "out", ScanOptions(batch_size=5))
    assert summary.statuses == {"ok": 20 - len(RAISED), "error": len(RAISED)}
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    logged = [record.exc_info[0] for record in caplog.records if record.exc_info]
    for name, kind in kinds.items():
        assert (rows[name]["status"], rows[name]["verdict"], rows[name]["score"]) == (
            "error",
            "undecided",
            None,
        )
        assert re.match(rf"{name}: .*\b{kind.__name__}: .*no palette", rows[name]["reason"])
        assert kind in logged


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        BackboneError("no tower"),
        MissingExtraError("x", "y"),
        DataError("a"),
    ],
)
def test_what_is_no_fault_of_a_file_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, contained("a file"):
        raise error
    assert caught.value is error


def test_a_message_that_holds_the_input_is_cut() -> None:
    with pytest.raises(DataError) as caught, contained("a.json"):
        raise ValueError("x" * 10_000)
    assert len(str(caught.value)) < MAX_REASON + 200


class Stuck(RiskScorer):
    """Sits in the middle of a file until it is let go; as a source, or as a scorer that preprocesses."""

    uri = "stuck:"

    def __init__(self, scorer: RiskScorer, where: str) -> None:
        vars(self).update(vars(scorer))
        self.where, self.begun, self.let_go = where, threading.Event(), threading.Event()

    def sit(self, where: str) -> None:
        if where == self.where:
            self.begun.set()
            self.let_go.wait(HANG)
            self.let_go.set()

    def shards(self) -> list[Shard]:
        return [Shard("only", "same")]

    def read(self, shard: Shard, passed_over: Any = None) -> Iterator[Item]:
        yield Item("a", data=picture_bytes(1))
        self.sit("read")
        yield Item("b", data=picture_bytes(2))

    def preprocess(self, images: Any) -> Any:
        self.sit("decode")
        return super().preprocess(images)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to the process itself")
@pytest.mark.parametrize("where", ["read", "decode"])
def test_an_interrupt_does_not_wait_for_a_thread_that_is_stuck(
    where: str, scorer: RiskScorer, tmp_path: Path
) -> None:
    stuck = Stuck(scorer, where)

    def interrupt() -> None:
        stuck.begun.wait(HANG)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            scan(stuck, stuck, tmp_path / "out", ScanOptions(batch_size=1))
        assert not stuck.let_go.is_set()  # it is still in there
    finally:
        stuck.let_go.set()
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_stuck_thread_does_not_keep_the_interpreter() -> None:
    script = (
        "import time; from safevlm.scan.threads import Threads; Threads(1, 'x').submit(time.sleep, 10_000)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=300).returncode == 0
