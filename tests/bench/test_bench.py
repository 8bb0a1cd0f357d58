"""The benchmark's structure on tiny shapes. What it measures is no test: no number here has to be small."""

from __future__ import annotations

import json
import time

import pytest
import torch

from safevlm.backbone.shapes import GUARD_SHAPES, SHAPES
from safevlm.bench import (
    ROWS,
    Result,
    Setup,
    Timing,
    interleave,
    measure,
    paired_ratio,
    parse_rows,
    run,
    to_markdown,
)
from safevlm.bench import guard as guard_row
from safevlm.bench.generate import PROMPT, beyond
from safevlm.bench.images import make_image, write_jpegs
from safevlm.bench.measure import _repeats, _sampler
from safevlm.bench.memory import fitting, peak_growth, weight_bytes
from safevlm.bench.names import BARE_TOWER, FOLDED, PLAIN, SCORING
from safevlm.bench.results import Cell
from safevlm.bench.targets import TARGETS, Target, target_of
from safevlm.cli import main

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
SECONDS = 0.02  # three rounds are run however little it is
VARIANTS = {"score": 3, "pipeline": 2, "generate": 3, "head": 2, "guard": 2, "scan": 9}


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup.choose("tiny", device="cpu", seconds=SECONDS)


def cell(**changes: object) -> Cell:
    values = {
        "row": "score", "quantity": SCORING, "batch": 4, "device": "cpu", "shape": "vit-b-32",
        "device_type": "cpu", "unit": "images/s", "ratio_of": "time", "against": BARE_TOWER,
    }  # fmt: skip
    return Cell(**{**values, **changes})


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


# the clock


def test_a_call_that_sleeps_twice_as_long_has_about_twice_the_time():
    timings = measure(
        {"short": lambda: time.sleep(0.03), "long": lambda: time.sleep(0.06)}, device=CPU, seconds=0.3
    )
    assert paired_ratio(timings["long"], timings["short"]) > 1
    low, middle, high = timings["short"].quartiles
    assert 0.03 <= low <= middle <= high


def test_every_round_has_every_call_once_in_an_order_that_changes():
    seen: list[str] = []

    def sampler(name: str) -> float:
        seen.append(name)
        return 1.0

    samplers = {name: (lambda name=name: sampler(name)) for name in "abc"}
    timings = interleave(samplers, device=CPU, seconds=1e-9, min_rounds=8)
    rounds = ["".join(seen[start : start + 3]) for start in range(0, len(seen), 3)]
    assert len(rounds) == 8
    assert {"".join(sorted(order)) for order in rounds} == {"abc"}
    assert len(set(rounds)) > 1
    assert all(len(timing.seconds) == 8 for timing in timings.values())


def test_ratios_are_of_pairs_so_that_a_slow_round_changes_nothing():
    one, other = Timing((2.0, 20.0, 4.0)), Timing((1.0, 10.0, 2.0))
    assert paired_ratio(one, other) == 2.0
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio(one, Timing((1.0,)))


def test_short_calls_are_repeated_and_still_counted_one_by_one():
    calls = []

    def call() -> None:
        calls.append(time.sleep(0.002))

    assert _sampler(call, CPU, repeats=5)() >= 0.002
    assert len(calls) == 5
    assert [_repeats(seconds) for seconds in (1.0, 0.02, 0.002, 1e-9)] == [1, 1, 10, 50]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])  # fmt: skip
def test_a_call_that_does_not_fit_has_a_reason_and_the_others_their_times(error):
    def call() -> None:
        raise error

    timings = measure({BARE_TOWER: lambda: None, FOLDED: call}, device=CPU, seconds=SECONDS)
    assert timings[BARE_TOWER].seconds
    assert timings[FOLDED].seconds == ()
    lines = {line.variant: line for line in cell().results(timings, items=4)}
    assert lines[BARE_TOWER].value is not None
    assert lines[FOLDED].value is None
    assert lines[FOLDED].met is None
    assert "does not fit in memory" in lines[FOLDED].note


def test_memory_that_runs_out_in_a_later_round_is_a_reason_too():
    count = iter(range(100))

    def sampler() -> float:
        if next(count) == 2:
            out_of_memory()
        return 1.0

    timings = interleave({"fits": lambda: 1.0, "grows": sampler}, device=CPU, seconds=1e-9, min_rounds=4)
    assert len(timings["fits"].seconds) == 4
    assert timings["grows"].problem
    assert paired_ratio(timings["fits"], timings["grows"]) is None


def test_other_errors_go_on():
    def call() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        measure({"call": call}, device=CPU, seconds=SECONDS)
    with pytest.raises(ValueError, match="nothing to measure"):
        interleave({}, device=CPU, seconds=1.0)
    with pytest.raises(ValueError, match="nothing was measured"):
        assert Timing(problem="no room").quartiles


def test_memory_is_the_peak_above_what_was_there():
    size = 64 * 2**20

    def call() -> None:
        torch.ones(size // 4)

    grown = peak_growth(call, CPU)
    assert grown is None or 0.9 * size < grown < 2 * size  # None where the system cannot tell
    layer = torch.nn.Linear(8, 8)
    assert weight_bytes(layer, layer) == 4 * 72


def test_fitting_says_why_and_keeps_nothing():
    with fitting(CPU) as problem:
        out_of_memory()
    assert problem == ["does not fit in memory: CUDA out of memory"]
    with fitting(CPU) as problem:
        pass
    assert problem == []


# lines


def test_ratios_are_of_time_or_of_rate_and_meet_their_targets():
    timings = {
        BARE_TOWER: Timing((2.0, 2.0, 2.0)),
        FOLDED: Timing((1.0, 2.0, 2.4)),
        PLAIN: Timing((3.0,) * 3),
    }
    lines = {line.variant: line for line in cell().results(timings, items=4)}
    assert lines[FOLDED].value == 2.0
    assert lines[FOLDED].low <= lines[FOLDED].value <= lines[FOLDED].high
    assert (lines[FOLDED].ratio, lines[FOLDED].target, lines[FOLDED].met) == (1.0, "<= 1.1", True)
    assert (lines[PLAIN].ratio, lines[PLAIN].target, lines[PLAIN].met) == (1.5, None, None)
    assert (lines[BARE_TOWER].ratio, lines[BARE_TOWER].against) == (None, None)
    rates = {line.variant: line for line in cell(ratio_of="rate").results(timings, items=4)}
    assert rates[PLAIN].ratio == pytest.approx(2 / 3)
    times = {line.variant: line for line in cell(unit="ms").results(timings)}
    assert times[PLAIN].value == 3000.0


def test_targets_are_bounds_of_their_machine_and_shape():
    assert Target(1.03, at_most=True).met(1.03)
    assert not Target(0.9, at_most=False).met(0.89)
    assert target_of("cuda", "vit-l-14-336", SCORING, FOLDED) == Target(1.03, at_most=True)
    assert target_of("cpu", "vit-l-14-336", SCORING, FOLDED) is None
    assert {shape for _, shape in TARGETS} <= set(SHAPES)


def test_decoding_is_what_a_longer_answer_takes_more():
    assert beyond(Timing((5.0, 6.0)), Timing((1.0, 1.0))).seconds == (4.0, 5.0)
    assert "no longer" in beyond(Timing((1.0, 6.0)), Timing((1.0, 1.0))).problem
    assert beyond(Timing(problem="no room"), Timing((1.0,))).problem == "no room"


def test_a_prompt_has_64_words():
    assert len(PROMPT.split()) == 64


def test_pictures_are_the_same_for_a_seed_and_their_files_differ(tmp_path):
    assert make_image(3).tobytes() == make_image(3).tobytes()
    assert make_image(3).size == (640, 480)
    assert make_image(3).tobytes() != make_image(4).tobytes()
    files = write_jpegs(tmp_path / "images", 35)
    assert len({file.read_bytes() for file in files}) == 35


# rows


def is_measure(other, line):
    """Whether a line has the value that another's ratio is to."""
    same = (other.quantity, other.batch, other.variant) == (line.quantity, line.batch, line.against)
    return same and other.value is not None


@pytest.mark.parametrize("row", ["score", "pipeline", "generate", "guard", "head", "scan"])
def test_every_row_has_its_lines(setup, row):
    found = run(setup, [row])
    assert {line.row for line in found} == {row}
    assert len({line.variant for line in found}) == VARIANTS[row]
    for line in found:
        assert line.value is not None or "no longer" in line.note, line.note  # too noisy at this size
        if line.value is not None:
            assert line.value > 0
            assert line.low <= line.value <= line.high
            assert line.rounds >= 1
            assert line.unit in ("images/s", "tokens/s", "ms")
            measured = any(is_measure(other, line) for other in found)
            assert line.against is None or not measured or line.ratio > 0
        assert line.target is None
    assert sum(line.against is None for line in found) < len(found)
    assert "| " + row in to_markdown(found, {"device": "cpu"})


def test_a_row_that_cannot_run_is_a_line_that_says_why(setup, monkeypatch):
    monkeypatch.setitem(ROWS, "score", lambda _: out_of_memory())
    (line,) = run(setup, ["score"])
    assert line.value is None
    assert "does not fit" in line.note
    assert line.note in to_markdown([line], {})


def test_the_generative_guard_is_skipped_where_memory_is_short(monkeypatch):
    real = Setup.choose("vit-b-32", device="cpu", seconds=SECONDS)
    assert real.guard_sizes is GUARD_SHAPES["llava-onevision-0.5b"]
    monkeypatch.setattr("safevlm.bench.guard.available_memory", lambda: 5 * 10**9)
    lines = guard_row.guard(real)
    assert [line.value for line in lines] == [None, None]
    assert all("5.0 GB are free" in line.note for line in lines)


def test_rows_are_named_and_unknown_ones_refused():
    assert parse_rows("head, score,head") == ("head", "score")
    for text in ("score,colour", "", " , "):
        with pytest.raises(ValueError, match="score,pipeline,generate,head,guard,scan"):
            parse_rows(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shape": "vit-g"}, "vit-b-32"), ({"seconds": 0}, "positive"), ({"device": "meta"}, "cuda and cpu")],
)
def test_a_setup_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Setup.choose(**{"shape": "tiny", "device": "cpu", **options})


# the command


def test_the_command_prints_json_and_writes_the_table(capsys, tmp_path):
    out = tmp_path / "bench.md"
    flags = ["score", "--shape", "tiny", "--device", "cpu", "--seconds", str(SECONDS)]
    assert main(["bench", *flags, "--json", "--out", str(out)]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {"row", "device", "value", "unit", "ratio", "against"} <= set(lines[0])
    assert {key for line in lines for key in line} == set(Result.__dataclass_fields__)
    text = out.read_text()
    for word in ("torch", "transformers", "python", "date", "float32", "threads", FOLDED):
        assert word in text
    assert main(["bench", *flags]) == 0
    assert "measuring score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["colour"], "score,pipeline,generate,head,guard,scan"),
        (["--shape", "vit-g"], "vit-l-14-336"),
        (["--shape", "tiny", "--out", "no/where.md"], "does not exist"),
    ],
)
def test_wrong_flags_are_one_line(capsys, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--device", "cpu", *flags]) == 1
    assert message in capsys.readouterr().err


def test_nothing_measured_is_a_failure(monkeypatch, capsys):
    monkeypatch.setitem(ROWS, "score", lambda _: out_of_memory())
    assert main(["bench", "score", "--shape", "tiny", "--device", "cpu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["value"] is None
