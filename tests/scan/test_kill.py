"""kill -9 at any moment, then the same call: the rows of a run that nobody interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.builders import make_source, picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of

pytestmark = pytest.mark.kill
TRIALS, FAILING_TRIALS, COMMAND_TRIALS = 12, 4, 2
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_trials(tiny: tuple[str, str], source: Path, out: Path, trials: int) -> None:
    """Let the server kill as often as it is told."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scan.kill_server", *tiny, str(source), str(out), str(trials), "7"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= trials  # most runs were still at work when they were killed


def check_same(trial: Path, reference: Path) -> None:
    """Bit by bit: no row lost, none twice, no other score, thumbnail or count."""
    assert rows_of(trial) == rows_of(reference)
    assert rows_of(trial, "thumbnails") == rows_of(reference, "thumbnails")
    # SQLite may leave an empty journal of a run that was killed when it was done
    assert files_below(trial) - {"ledger.sqlite-journal"} == files_below(reference)
    summary, found = (json.loads((folder / "summary.json").read_text()) for folder in (reference, trial))
    for part in ("seconds", "images_per_second"):
        assert found.pop(part) > 0
    assert found == {key: summary[key] for key in found}


def test_killed_scans_end_with_the_same_rows(tiny: tuple[str, str], tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for number in range(27):  # five shards; every third picture is there twice, two are broken
        data = b"broken" if number in (5, 14) else picture_bytes(number // 3 if number % 3 == 0 else number)
        (pictures / f"{number:02d}.png").write_bytes(data)
    run_trials(tiny, pictures, out, TRIALS)
    assert [row["id"] for row in rows_of(out / "reference")] == [f"{number:02d}.png" for number in range(27)]
    for number in range(TRIALS):
        check_same(out / f"trial-{number:02d}", out / "reference")


def tars(folder: Path) -> Path:
    """Six tars with five pictures each, some of them twice; the second tar is cut."""
    for number in range(3):
        images = [(f"{n:02d}.png", picture_bytes(n % 23)) for n in range(10 * number, 10 * number + 10)]
        make_source("wds", folder / str(number), images)
    os.truncate(folder / "0" / "1.tar", 5000)
    for path in sorted(folder.rglob("*.tar")):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    for number in range(3):
        (folder / str(number)).rmdir()
    return folder


def test_killed_scans_of_a_source_with_a_broken_shard(tiny: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_trials(tiny, tars(tmp_path / "tars"), out, FAILING_TRIALS)
    assert 25 < len(rows_of(out / "reference")) < 30
    for number in range(FAILING_TRIALS):
        check_same(out / f"trial-{number:02d}", out / "reference")


def test_killed_commands_end_with_the_same_rows(tiny: tuple[str, str], tmp_path: Path) -> None:
    source, chance = tars(tmp_path / "tars"), random.Random(7)
    (tmp_path / "policy.yaml").write_text("threshold: 0.9\n")

    def start(out: Path) -> subprocess.Popen[bytes]:
        options = ["--model", tiny[0], "--backbone", tiny[1], "--policy", str(tmp_path / "policy.yaml")]
        command = [sys.executable, "-m", "safevlm.cli", "scan", str(source), "--out", str(out), *options]
        return subprocess.Popen(
            [*command, "--batch-size", "1", "--workers", "1"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def begun(process: subprocess.Popen[bytes], out: Path) -> float:
        """When its first part file is being written."""
        while process.poll() is None and not any((out / "rows").glob("*part*")):
            time.sleep(0.005)
        return time.monotonic()

    reference = tmp_path / "reference"
    process = start(reference)
    since = begun(process, reference)
    assert process.wait() == 1  # a shard broke off
    whole, killed = time.monotonic() - since, 0
    for number in range(COMMAND_TRIALS):
        trial = tmp_path / f"trial-{number}"
        process = start(trial)
        begun(process, trial)
        time.sleep(chance.uniform(0, whole))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert start(trial).wait() == 1
        for folder in (trial, reference):
            (folder / "report.html").unlink()  # says when it was written
        check_same(trial, reference)
        (reference / "report.html").touch()
    assert killed
