"""Lines of the table: a value, its quartiles, and its ratio to a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from .measure import Timing, paired_ratio
from .targets import Target, target_of

Ratio: TypeAlias = Literal["time", "rate"]


@dataclass(frozen=True)
class Result:
    """Result of one variant.

    Args:
        row: score, pipeline, generate, head, guard or scan.
        quantity: what was measured, such as "time to first token".
        variant: what it was measured of, such as "bare backbone".
        batch: images per call; None if calls differ.
        device: name of the GPU, or "cpu".
        value: median over the rounds, in `unit`; None if nothing could be measured (see `note`).
        unit: images/s, tokens/s or ms.
        low, high: quartiles of the value.
        ratio: median over the rounds of the variant's time or rate (see `ratio_of`) divided by that of `against`.
        against: the baseline variant; None for the baseline itself.
        ratio_of: "time" (a smaller ratio is better) or "rate" (a larger one is better).
        target: bound on the ratio, such as "<= 1.03"; None if there is none.
        met: whether the ratio keeps to the target; None without a target or a ratio.
        memory_mb: weights and the peak of one call above them, in 10^6 bytes; None if it was not measured.
        rounds: number of samples of the median.
        note: conditions of the measurement, or why there is no value.
    """

    row: str
    quantity: str
    variant: str
    batch: int | None
    device: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    against: str | None = None
    ratio_of: Ratio = "rate"
    target: str | None = None
    met: bool | None = None
    memory_mb: float | None = None
    rounds: int = 0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Cell:
    """What variants that are measured together have in common.

    Args:
        row, quantity, batch, device: as in `Result`.
        shape: name of the model shape, for the targets.
        device_type: cpu or cuda, for the targets.
        unit: images/s or tokens/s, items per second; or ms, the time of one call.
        ratio_of: as in `Result`.
        against: the baseline variant.
        note: note of every result.
    """

    row: str
    quantity: str
    batch: int | None
    device: str
    shape: str
    device_type: str
    unit: Literal["images/s", "tokens/s", "ms"]
    ratio_of: Ratio
    against: str
    note: str = ""

    def results(
        self, timings: Mapping[str, Timing], *, items: float = 1, weights: Mapping[str, int] | None = None
    ) -> list[Result]:
        """Results of all variants.

        Args:
            timings: variant -> timing of its calls; `against` is among them.
            items: images or tokens per call; 1 for milliseconds.
            weights: variant -> size of its weights in bytes, to which the memory of a call is added.
        """
        each = {name: timing.per(items) for name, timing in timings.items()}
        return [self._line(name, each, (weights or {}).get(name)) for name in timings]

    def failed(self, variant: str, reason: str) -> Result:
        """Result of a variant that could not be measured."""
        return Result(self.row, self.quantity, variant, self.batch, self.device, None, self.unit, note=reason)

    def _line(self, variant: str, timings: Mapping[str, Timing], weights: int | None) -> Result:
        timing = timings[variant]
        if timing.problem:
            return self.failed(variant, timing.problem)
        fast, middle, slow = timing.quartiles
        values = (middle, fast, slow) if self.unit == "ms" else (middle, slow, fast)
        value, low, high = (1000 * x if self.unit == "ms" else 1 / x for x in values)
        memory = None if timing.memory is None or weights is None else (timing.memory + weights) / 1e6
        line = Result(
            self.row,
            self.quantity,
            variant,
            self.batch,
            self.device,
            value,
            self.unit,
            low,
            high,
            memory_mb=memory,
            rounds=len(timing.seconds),
            note=self.note,
        )
        return line if variant == self.against else self._compared(line, timing, timings[self.against])

    def _compared(self, line: Result, timing: Timing, against: Timing) -> Result:
        pair = (timing, against) if self.ratio_of == "time" else (against, timing)
        ratio = paired_ratio(*pair)
        target: Target | None = target_of(self.device_type, self.shape, self.quantity, line.variant)
        return replace(
            line,
            ratio=ratio,
            against=self.against,
            ratio_of=self.ratio_of,
            target=None if target is None else str(target),
            met=None if target is None or ratio is None else target.met(ratio),
        )
