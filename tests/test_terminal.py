"""What the command line writes: whatever the encoding, whoever named the files, whether or not anyone reads it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from safevlm import streams, terminal
from safevlm.cli import _Lines, _underscored, main
from safevlm.commands.options import chosen_device
from safevlm.commands.scan import _go_on
from safevlm.printable import indented, printable, shortened
from safevlm.scan import ScanSummary
from safevlm.types import RiskAssessment, Verdict

HOSTILE = "a\x1b[2J\x9b31m\x07\u202eb\nerror: forged\r[red]c[/]\u2066.png"
OBEYED = "\x1b\x9b\x07\u202e\r\u2066"
SAFE = RiskAssessment(score=0.34, verdict=Verdict.SAFE, level="safe", category="clean")


@pytest.fixture(params=["utf-8", "ascii", "latin-1"])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """What was printed to a standard output of some encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=request.param)
    monkeypatch.setattr(terminal, "console", Console(file=streams.Output(stream), width=80))  # type: ignore[arg-type]

    def text() -> str:
        stream.flush()
        return raw.getvalue().decode(request.param)

    return text


def test_an_answer_comes_in_any_encoding(said) -> None:
    terminal.show_assessments(["\u56fe.png"], [SAFE], rule="score >= 0.5")
    terminal.show_info(
        {"versions": {"python": "3"}, "device": "cpu \u2013", "checkpoints": {}, "operating_points": {}}
    )
    assert all(word in said() for word in ("0.34", "safe", "clean", "cpu"))
    assert ("\u2588" in said()) == (terminal.console.encoding == "utf-8")  # bars of # elsewhere
    assert ("\u56fe.png" if terminal.console.encoding == "utf-8" else "\\u56fe.png") in said()


def test_names_move_no_cursor_and_forge_no_line(said) -> None:
    hostile = replace(SAFE, level=HOSTILE, category=HOSTILE, read_text=HOSTILE, decided_by="read_text")
    undecided = RiskAssessment(score=None, reason=HOSTILE)
    terminal.show_assessments([HOSTILE, HOSTILE], [hostile, undecided], rule=HOSTILE)
    terminal.show_summary(summary(HOSTILE), Path(HOSTILE))
    assert not set(OBEYED) & set(said())
    assert said().count("forged\\r[red]c[/]\\u2066.png") >= 4  # no markup either
    assert not any(line.startswith("error:") for line in said().splitlines())


def summary(text: str) -> ScanSummary:
    return ScanSummary(
        source=text, n=1, total=1, statuses={"ok": 1}, verdicts={"unsafe": 1}, levels={text: 1}, categories={text: 1},
        shards={"done": 1, "failed": 1, "pending": 0}, failures={text: text}, skipped=0, duplicates=0, seconds=1.0,
        images_per_second=1.0, model=text, settings={}, versions={}, interrupted=False, stopped=text,
        **({"passed_over": {text: 1}} if "passed_over" in ScanSummary.__dataclass_fields__ else {}),
    )  # fmt: skip


def test_errors_and_log_lines_forge_no_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["scan", HOSTILE, "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert not set(OBEYED) & set("".join(lines))
    assert not any(line.startswith("error:") for line in lines[1:])
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s broke off", (HOSTILE,), None)
    line = _Lines("%(levelname)s %(message)s").format(record)
    assert not set(OBEYED) & set(line)
    assert "\nerror:" not in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"), ("\u202egnp", r"\u202egnp"), ("\udce9", r"\udce9"), ("a\nb", r"a\nb"), ("\x85", r"\x85"),
        ("\U000e0041", r"\U000e0041"), ("\u3042\u3000\xa0e\u0301", "\u3042\u3000\xa0e\u0301"), ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)  # fmt: skip
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.png", {}, "a.png"),
        ("ä" * 200, {}, "ä" * 200),
        ("ä" * 201, {}, "ä" * 200 + "…"),
        ("abcdef", {"length": 5}, "abcde…"),
        ("", {}, "''"),
        ("a\nb\udce9", {}, r"'a\nb\udce9'"),
        ("a" * 5 + "\n", {"length": 5}, "aaaaa…"),  # what does not print was cut off
        ("data:é", {"quoted": True}, r"'data:\xe9'"),
        ("abcdef", {"length": 5, "quoted": True}, r"'abcde\u2026'"),
    ],
)
def test_shortened(text: str, options: dict[str, Any], message: str) -> None:
    assert shortened(text, **options) == message


def test_lines_of_answers_stay() -> None:
    assert printable("a\n\tb\r", lines=True) == "a\n\tb\\r"
    assert indented("one\n  wds:x\nerror: two") == "one\n  wds:x\n  error: two"


def test_what_cannot_be_written_is_told_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="ascii") as stream:
        output = streams.Output(stream)
        console = Console(file=output)  # type: ignore[arg-type]
        for _ in range(3):
            console.print("x" * 10_000)
            output.flush()
    assert isinstance(output.failure, BrokenPipeError)


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a POSIX shell does")
@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("<&- | cat", 0, "head,joint"),
        (">&-", 1, "Bad file descriptor"),
        ("| true", 1, "Broken pipe"),
        ("2>&-", 0, "head,joint"),
    ],
)
def test_closed_streams(redirection: str, code: int, said: str, tmp_path: Path) -> None:
    # the reader of the pipe is gone before anything is written
    wait = "sleep 0.2;" if "true" in redirection else ""
    command = f"set -o pipefail; ({wait} exec {sys.executable} -m safevlm.cli train --help) {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=300,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["assess", "--", "--my-file.png"], ["assess", "--", "--my-file.png"]),
        (["--batch-size=8", "--with-text"], ["--batch_size=8", "--with_text"]),
        (
            ["--prompt=--so-what", "--prompt", "--is-it a-b"],
            ["--prompt=--so-what", "--prompt", "--is-it a-b"],
        ),
        (["a-b.png", "-x-y", "--out", "a--b"], ["a-b.png", "-x-y", "--out", "a--b"]),
    ],
)
def test_only_flags_are_rewritten(given: list[str], parsed: list[str]) -> None:
    assert _underscored(given) == parsed


def test_the_way_to_go_on_keeps_what_follows_the_dashes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ledger.sqlite").touch()
    monkeypatch.setattr(sys, "argv", ["safevlm", "scan", "--fresh", "--out", "o", "--", "--fre"])
    assert _go_on(tmp_path, True).endswith("safevlm scan --out o --resume -- --fre")


def test_a_file_that_begins_with_dashes_is_assessed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["assess", "--json", "--", "--my-file.png"]) == 1
    assert '"--my-file.png"' in capsys.readouterr().out


@pytest.mark.parametrize("name", ["meta", "cuda:99", "mps", "xpu", "hpu", "vulkan", "banana", "cuda:x"])
def test_a_device_that_cannot_compute_is_refused(name: str) -> None:
    import torch

    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ValueError, match=rf"--device {name}: cannot be used here") as caught:
        chosen_device(name)
    assert len(str(caught.value)) < 400
    assert chosen_device("cpu") == "cpu"
    assert chosen_device(None) is None
    assert chosen_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
