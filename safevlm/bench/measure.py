"""Timing: warmed-up calls are measured in rounds, and each round runs every call once in random order.

A slow phase of the machine slows every call of a round, so ratios are taken within rounds.
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
"""Minimum duration of one sample in seconds: shorter calls are repeated."""
MAX_REPEATS = 50


@dataclass(frozen=True)
class Timing:
    """Measured times of one call.

    Args:
        seconds: seconds per round; rounds of calls that were measured together correspond.
        memory: peak memory of one call above that before it, in bytes; None if it was not measured.
        problem: why `seconds` is empty; empty itself otherwise.
    """

    seconds: tuple[float, ...] = ()
    memory: int | None = None
    problem: str = ""

    def per(self, items: float) -> Timing:
        """The time per item, for a call that handles `items` items."""
        return replace(self, seconds=tuple(value / items for value in self.seconds))

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile, in seconds. Raises ValueError without any round."""
        if not self.seconds:
            raise ValueError(f"nothing was measured ({self.problem or 'no round'}), so there is no median")
        low, middle, high = np.percentile(self.seconds, (25, 50, 75)).tolist()
        return low, middle, high


def paired_ratio(one: Timing, other: Timing) -> float | None:
    """Median over the rounds of `one`'s seconds divided by `other`'s; None if either has a problem.

    Raises:
        ValueError: the timings have different numbers of rounds.
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
    """Call every sampler once per round, in random order.

    Args:
        samplers: name -> function that returns the seconds of one sample. One that runs out of memory is
            left out of later rounds, and its timing has a problem.
        device: where the samplers run.
        seconds: no round starts after this time.
        min_rounds: number of rounds that are run however long they take.
        seed: random seed of the order within the rounds.

    Raises:
        ValueError: there are no samplers, or `seconds` or `min_rounds` is not positive.
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
    """Time calls in rounds, and measure the peak memory of each in its last warm-up.

    Args:
        calls: name -> function to time; on CUDA by events, so that a call need not synchronize.
        device: where the calls run.
        seconds: time for all rounds together, without warm-ups.
        min_rounds: number of rounds that are run however long they take.
        warm_ups: number of calls before the first round, at least 1.

    Raises:
        ValueError: `warm_ups` is less than 1, or nothing is to be measured.
    """
    if warm_ups < 1:
        raise ValueError(
            f"warm_ups is {warm_ups}; the first call is slower than later ones, so at least 1 is needed"
        )
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
    """Warm the call up; returns the peak memory of the last run in bytes, and the shortest time in seconds."""
    taken: list[float] = []
    sample = _sampler(call, device, repeats=1)
    for _ in range(times - 1):
        taken.append(sample())
    memory = peak_growth(lambda: taken.append(sample()), device)
    return memory, min(taken)


def _repeats(seconds: float) -> int:
    return max(1, min(MAX_REPEATS, round(SAMPLE / max(seconds, 1e-9))))


def _sampler(call: Callable[[], object], device: torch.device, *, repeats: int) -> Callable[[], float]:
    """A function that returns the seconds of one call, as the mean of `repeats` in a row."""

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
