"""How an interrupted scan says to go on: never with what would begin it anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from safevlm.cli import main
from safevlm.data import FolderSource
from safevlm.scan import Checkpoint, scan


def interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    """What the command says when Ctrl-C comes while it plans."""

    def interrupt(self: FolderSource) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FolderSource, "shards", interrupt)
        patch.setattr(sys, "argv", ["safevlm", *arguments])
        assert main(arguments) == 130
    return str(capsys.readouterr().err)


def test_it_resumes(
    model: Checkpoint, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["scan", str(pictures), "--out", str(tmp_path / "out")]
    said = interrupted(monkeypatch, capsys, *command, "--fresh")
    assert f"Go on with:\n  safevlm {' '.join(command)}\n" in said  # there is nothing to resume yet
    scan(FolderSource(pictures), model, tmp_path / "out")
    for flags in (["--fresh"], ["--fre"], ["--resume"], []):
        said = interrupted(monkeypatch, capsys, *command, *flags)
        assert f"Go on with:\n  safevlm {' '.join(command)} --resume\n" in said
    (tmp_path / "flags.yaml").write_text("fresh: true\n")
    given = ["scan", "--config", str(tmp_path / "flags.yaml"), *command[1:]]
    said = interrupted(monkeypatch, capsys, *given)
    assert "Take `fresh` out of the configuration and go on with" in said
    assert f"  safevlm {' '.join(given)} --resume\n" in said
    assert main([*given, "--resume"]) == 1  # as it stands it is refused, and nothing is scanned anew
    assert "--resume continues a scan, --fresh replaces it" in capsys.readouterr().err


def test_a_part_that_an_interrupt_meets_while_it_is_made_is_removed(
    model: Checkpoint, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        assert list((tmp_path / "out" / "rows").iterdir())  # its file is there already
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "ParquetWriter", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scan(FolderSource(pictures), model, tmp_path / "out")
    assert not list((tmp_path / "out" / "rows").iterdir())
    assert scan(FolderSource(pictures), model, tmp_path / "out").n == 20
