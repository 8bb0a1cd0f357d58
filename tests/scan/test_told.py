"""What the command says of a scan: when it is finished, interrupted, or writes to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevlm import progress
from safevlm.cli import main
from safevlm.data import FolderSource
from safevlm.scan import ScanCounts, recorder
from tests.data.builders import picture_bytes


@pytest.fixture
def command(tiny: tuple[str, str], pictures: Path, tmp_path: Path) -> list[str]:
    """A scan of 40 pictures, in two shards."""
    for number in range(20, 40):
        (pictures / f"{number}.png").write_bytes(picture_bytes(number))
    return ["scan", str(pictures), "--out", str(tmp_path / "out"), "--model", tiny[0], "--backbone", tiny[1]]


def test_a_finished_scan_says_so_in_one_line(command: list[str], capsys: Any) -> None:
    assert main(command) == 0
    assert "40 images" in capsys.readouterr().out
    assert main(command) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("finished before: 40 images, ")
    assert "nothing was left to scan" in line
    assert "report.html" in line


def test_an_interrupted_scan_says_what_is_kept(
    command: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = recorder.Recorder.add, [0]

    def interrupt(self: recorder.Recorder, batch: Any) -> None:
        left[0] -= len(batch.entries)
        if left[0] < 0:
            raise KeyboardInterrupt
        add(self, batch)

    for kept, told in ((0, "no shard was finished, so nothing is kept"), (32, "32 of 40 images are kept")):
        left[0] = kept
        with monkeypatch.context() as patch:
            patch.setattr(recorder.Recorder, "add", interrupt)
            assert main([*command, "--batch-size", "8"]) == 130
        assert f"interrupted; {told}. Go on with:" in capsys.readouterr().err

    def at_once(self: FolderSource) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FolderSource, "shards", at_once)
        assert main([*command[:3], f"{command[3]}-new", *command[4:]]) == 130
    assert "interrupted; nothing was scanned yet." in capsys.readouterr().err


def test_progress_is_lines_where_the_output_is_no_terminal(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.scan_progress() as advance:
        for done in range(0, 2000, 100):
            advance(ScanCounts(2000, done, done - 3, 2, 1, 5))
            now[0] += 2
        advance(ScanCounts(None, 2000, 1997, 2, 1, 5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 2,000 images, 5 unsafe, 2 undecided, 1 errors"
    assert lines[1] == "800 of 2,000 images, 50 images/s, 0:00:24 left, 5 unsafe, 2 undecided, 1 errors"
    assert len(lines) == 3


def test_large_images_and_symlinks_are_errors_unless_asked_for(
    command: list[str], pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "outside.png").write_bytes(picture_bytes(50))
    (pictures / "link.png").symlink_to(tmp_path / "outside.png")
    assert main(command) == 0
    assert "41 images, " in (told := " ".join(capsys.readouterr().out.split()))
    assert " 1 errors" in told
    assert main([*command, "--max-pixels", "10", "--fresh"]) == 1  # none is left to score
    assert " 41 errors" in " ".join(capsys.readouterr().out.split())
    assert main(command) == 1
    assert "max_pixels was 10, is 89478485" in capsys.readouterr().err
    assert main([*command, "--follow-symlinks", "--fresh"]) == 0
    assert " 0 errors" in " ".join(capsys.readouterr().out.split())
    assert main([*command[:1], str(tmp_path / "outside.png"), *command[2:], "--follow-symlinks"]) == 1
    assert "--follow-symlinks is for folders of images" in capsys.readouterr().err
