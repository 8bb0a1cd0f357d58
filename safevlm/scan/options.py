"""How a scan runs."""

from __future__ import annotations

from dataclasses import dataclass

from safevlm.data.image import MAX_PIXELS

ENGINES = ("local", "ray")
DECODING = ("whole", "reduced")
MAX_BATCH_SIZE = 16_384
"""The ledger is asked for a whole batch at once; SQLite takes about 32,000 values."""


@dataclass(frozen=True)
class ScanOptions:
    """The choices of one scan. `limit`, `sample_fraction`, `with_text`, `decoding` and `max_pixels` decide its rows, the others only
    its course.

    Args:
        batch_size: images per pass of the tower.
        workers: threads that decode and preprocess; on Ray, models that score at the same time.
        limit: only the first so many images of the source.
        sample_fraction: only this fraction of the samples, in (0, 1), the same ones in every run; None: all.
        with_text: score each image together with its text.
        max_error_rate: stop once the fraction of rows that are errors is above this, in (0, 1]; None: never.
        engine: local or ray.
        ray_address: of a running cluster; None starts Ray on this machine.
        decoding: whole, or reduced: large JPEGs are decoded at the scale that the tower needs, which is quicker and
            changes scores, hashes and thumbnails a little.
        max_pixels: the largest width * height that is decoded; larger images are errors.

    Raises:
        ValueError: a number out of its range, or an unknown engine.
    """

    batch_size: int = 32
    workers: int = 2
    limit: int | None = None
    sample_fraction: float | None = None
    with_text: bool = False
    max_error_rate: float | None = None
    engine: str = "local"
    ray_address: str | None = None
    decoding: str = "whole"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        counts = {
            "batch_size": self.batch_size,
            "workers": self.workers,
            "limit": self.limit,
            "max_pixels": self.max_pixels,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"scan: {name} is {count}; it must be at least 1")
        if self.batch_size > MAX_BATCH_SIZE:
            raise ValueError(f"scan: batch_size is {self.batch_size}; it must be at most {MAX_BATCH_SIZE}")
        if self.sample_fraction is not None and not 0 < self.sample_fraction < 1:
            raise ValueError(
                f"scan: sample_fraction is {self.sample_fraction}; it must be between 0 and 1, such as 0.1"
            )
        if self.max_error_rate is not None and not 0 < self.max_error_rate <= 1:
            raise ValueError(
                f"scan: max_error_rate is {self.max_error_rate}; it must be above 0 and at most 1, such as 0.2"
            )
        if self.decoding not in DECODING:
            raise ValueError(f"scan: unknown decoding {self.decoding!r}; choose one of {', '.join(DECODING)}")
        if self.engine not in ENGINES:
            raise ValueError(f"scan: unknown engine {self.engine!r}; choose one of {', '.join(ENGINES)}")
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("scan: ray_address is for the engine ray; set engine to ray, or leave it out")
