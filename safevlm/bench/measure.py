"""The clock: calls measured side by side, warm, in rounds; each round has every call once in random order.

What slows the machine down for a while slows every call of a round, so ratios are taken within rounds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from .memory import fitting, peak_growth

MIN_ROUNDS = 3
WARM_UPS = 2
SAMPLE = 0.02
"""Seconds that one sample takes at least: shorter calls are repeated without waiting in between."""
MAX_REPEATS = 50


@dataclass(frozen=True)
class Timing:
    """What one call took.

    Args:
        seconds: per round; the rounds of calls that were measured together correspond.
        memory: bytes at the peak of one call above those before it; None where they were not measured.
        problem: why there are no seconds; empty where there are.
    """

    seconds: tuple[float, ...] = ()
    memory: int | None = None
    problem: str = ""

    def per(self, items: float) -> Timing:
        """The same, for one of the call's items."""
        return replace(self, seconds=tuple(value / items for value in self.seconds))

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile, in seconds; raises ValueError without any round."""
        if not self.seconds:
            raise ValueError(f"nothing was measured ({self.problem or 'no round'}); there is no median")
        low, middle, high = np.percentile(self.seconds, (25, 50, 75)).tolist()
        return low, middle, high


def paired_ratio(one: Timing, other: Timing) -> float | None:
    """Median over the rounds of one's seconds by the other's; None where either has none.

    Raises:
        ValueError: timings that were not measured together.
    """
    if one.problem or other.problem:
        return None
    pairs = [a / b for a, b in zip(one.seconds, other.seconds, strict=True)]
    return float(np.median(pairs))


def interleave(
    samplers: Mapping[str, Callable[[], float]],
    *,
    device: torch.device,
    seconds: float,
    min_rounds: int = MIN_ROUNDS,
    seed: int = 0,
) -> dict[str, Timing]:
    """Ask every sampler for its seconds, round after round.

    Args:
        samplers: name -> gives the seconds of one sample. One that runs out of memory is left out of later
            rounds and has no seconds.
        seconds: after which no further round is begun.
        min_rounds: that are run however long they take.
        seed: of the order within the rounds.

    Raises:
        ValueError: no samplers, or no time or rounds.
    """
    if not samplers or seconds <= 0 or min_rounds < 1:
        raise ValueError(
            f"nothing to measure: {len(samplers)} calls, {seconds} s, {min_rounds} rounds; each must be above 0"
        )
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    problems: dict[str, str] = {}
    order, rounds, start = random.Random(seed), 0, time.perf_counter()
    while rounds < min_rounds or time.perf_counter() - start < seconds:
        running = [name for name in samplers if name not in problems]
        if not running:
            break
        for name in order.sample(running, len(running)):
            with fitting(device) as problem:
                taken[name].append(samplers[name]())
            if problem:
                problems[name] = problem[0]
        rounds += 1
    return {
        name: Timing(problem=problems[name]) if name in problems else Timing(tuple(values))
        for name, values in taken.items()
    }


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    device: torch.device,
    seconds: float,
    min_rounds: int = MIN_ROUNDS,
    warm_ups: int = WARM_UPS,
) -> dict[str, Timing]:
    """Time calls against each other and note the memory each takes, in its last warm-up.

    Args:
        calls: name -> what is timed; on CUDA by device events, so that a call need not wait for its end.
        device: where they run.
        seconds: for all rounds together, warm-ups not counted.
        warm_ups: calls before the first round, at least 1.
    """
    if warm_ups < 1:
        raise ValueError(f"warm_ups is {warm_ups}; a cold call is no measurement, give at least 1")
    samplers: dict[str, Callable[[], float]] = {}
    memory: dict[str, int | None] = {}
    cold: dict[str, Timing] = {}
    for name, call in calls.items():
        with fitting(device) as problem:
            memory[name], once = _warm_up(call, device, warm_ups)
            samplers[name] = _sampler(call, device, repeats=_repeats(once))
        if problem:
            cold[name] = Timing(problem=problem[0])
    warm = interleave(samplers, device=device, seconds=seconds, min_rounds=min_rounds) if samplers else {}
    timings = {name: replace(timing, memory=memory[name]) for name, timing in warm.items()} | cold
    return {name: timings[name] for name in calls}


def _warm_up(call: Callable[[], object], device: torch.device, times: int) -> tuple[int | None, float]:
    """What the call takes: bytes, the last time it runs, and the least seconds."""
    taken: list[float] = []
    sample = _sampler(call, device, repeats=1)
    for _ in range(times - 1):
        taken.append(sample())
    memory = peak_growth(lambda: taken.append(sample()), device)
    return memory, min(taken)


def _repeats(seconds: float) -> int:
    return max(1, min(MAX_REPEATS, round(SAMPLE / max(seconds, 1e-9))))


def _sampler(call: Callable[[], object], device: torch.device, *, repeats: int) -> Callable[[], float]:
    """Gives the seconds of one call, as the mean of several in a row where it is short."""

    def on_cuda() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(torch.cuda.current_stream(device))
        for _ in range(repeats):
            call()
        end.record(torch.cuda.current_stream(device))
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / repeats  # ms

    def on_cpu() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    return on_cuda if device.type == "cuda" else on_cpu
