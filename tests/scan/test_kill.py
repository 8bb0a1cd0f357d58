"""kill -9 at any moment, then the same call: the rows of a run that nobody interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.data.builders import picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of

TRIALS = 20
ROOT = Path(__file__).parents[2]


def test_killed_scans_end_with_the_same_rows(tiny: tuple[str, str], tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for number in range(27):  # five shards; every third picture is there twice, two are broken
        data = b"broken" if number in (5, 14) else picture_bytes(number // 3 if number % 3 == 0 else number)
        (pictures / f"{number:02d}.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.scan.kill_server", *tiny, str(pictures), str(out), str(TRIALS), "7"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= TRIALS  # most runs were still at work when they were killed
    reference = out / "reference"
    expected, thumbnails = rows_of(reference), rows_of(reference, "thumbnails")
    assert [row["id"] for row in expected] == [f"{number:02d}.png" for number in range(27)]
    summary = json.loads((reference / "summary.json").read_text())
    for number in range(TRIALS):
        trial = out / f"trial-{number:02d}"
        assert rows_of(trial) == expected  # bit by bit: no row lost, none twice, no other score
        assert rows_of(trial, "thumbnails") == thumbnails
        # SQLite may leave an empty journal of a run that was killed when it was done
        assert files_below(trial) - {"ledger.sqlite-journal"} == files_below(reference)
        found = json.loads((trial / "summary.json").read_text())
        for part in ("seconds", "images_per_second"):
            assert found.pop(part) > 0
        assert found == {key: summary[key] for key in found}
