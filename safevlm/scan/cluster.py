"""A scan on Ray: shards are read and decoded by tasks, scored by actors, and recorded by the driver."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from safevlm.errors import MissingExtraError, SafeVLMError
from safevlm.scan.batch import Batch
from safevlm.scan.model import Checkpoint
from safevlm.scan.options import ScanOptions
from safevlm.scan.plan import PlannedShard
from safevlm.scan.reader import ShardReader
from safevlm.scan.worker import make_thumbnails, prepare, score

if TYPE_CHECKING:
    from safevlm.backbone import Preprocessor
    from safevlm.scorer import RiskScorer

DECODE_MEMORY = 2**29
"""Bytes that a task needs: 64 MiB of encoded images, 192 + 48 MiB of pixels, and as much for the tower's inputs."""

Column: TypeAlias = dict[str, np.ndarray]
"""A block of Ray Data: `work` -> (n,) object."""


def run_on_ray(
    shards: Sequence[PlannedShard], reader: ShardReader, model: Checkpoint, options: ScanOptions
) -> Generator[Batch, None, None]:
    """Every batch of the shards, scored; shards as they are finished, the batches of each in order.

    Raises:
        MissingExtraError: ray is not installed.
        SafeVLMError: the cluster cannot be reached, or lost what it cannot bring back.
    """
    with _cluster(options.ray_address) as ray:
        # Ray Data streams batches, not shards, from tasks to actors, so that a model never waits for a
        # whole shard; a shard stays atomic because its batches are collected here and recorded at once.
        # Ray starts a lost actor again, and with it its tasks; lost blocks it makes again from their shard.
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        by_number = {planned.number: planned for planned in shards}
        blocks = (
            ray.data.from_items(
                [{"shard": number} for number in by_number], override_num_blocks=len(by_number)
            )
            .map_batches(
                _decode,
                fn_args=(by_number, reader, model.load_preprocessor(), options),
                batch_size=1,
                memory=DECODE_MEMORY,  # other needs than the actors': equal ones would run inside them
            )
            .map_batches(
                _Score,
                fn_constructor_args=(model, options.with_text),
                batch_size=1,
                num_cpus=1,
                num_gpus=int(model.device.startswith("cuda")),
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=options.workers),
            )
            .map_batches(_make_thumbnails, batch_size=1)
        )
        try:
            yield from by_shard(
                batch
                for block in blocks.iter_batches(batch_size=None, batch_format="numpy")
                for batch in _loaded(block["work"])
            )
        except ray.exceptions.RayError as error:
            # the last line of its traceback is what went wrong on the node
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise SafeVLMError(
                f"Ray could not finish: {lines[-1].strip()}; finished shards are kept, run the same command again"
            ) from error


def _column(*items: object) -> Column:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return {"work": column}


def _decode(
    block: Column,
    shards: Mapping[int, PlannedShard],
    reader: ShardReader,
    preprocessor: Preprocessor,
    options: ScanOptions,
) -> Iterator[Column]:
    """Numbers of shards -> batches that only the tower has to see."""
    scaled_side = preprocessor.scaled_side if options.decoding == "reduced" else None
    for number in block["shard"]:
        given: set[bytes] = set()
        for batch in reader(shards[int(number)]):
            marked = _mark_known(batch, given)
            yield _column(
                prepare(marked, preprocessor.preprocess, scaled_side, max_pixels=options.max_pixels)
            )


def _mark_known(batch: Batch, given: set[bytes]) -> Batch:
    """The batch with its entries known where equal keys came before in the shard; tasks see no other shard."""
    entries = []
    for entry in batch.entries:
        entries.append(replace(entry, known=bool(entry.key) and entry.key in given))
        given.add(entry.key)
    return replace(batch, entries=tuple(entries))


class _Score:
    """An actor with the model. What keeps it from loading is its result: Ray would start a failed actor again."""

    def __init__(self, model: Checkpoint, with_text: bool) -> None:
        self._with_text = with_text
        try:
            self._scorer: RiskScorer | SafeVLMError = model.load()
        except SafeVLMError as error:
            self._scorer = error

    def __call__(self, block: Column) -> Column:
        scorer = self._scorer
        if isinstance(scorer, SafeVLMError):
            return _column(scorer)
        return _column(*(score(prepared, scorer, with_text=self._with_text) for prepared in block["work"]))


def _make_thumbnails(block: Column) -> Column:
    return _column(
        *(work if isinstance(work, SafeVLMError) else make_thumbnails(work) for work in block["work"])
    )


def _loaded(work: Iterable[Batch | SafeVLMError]) -> Iterator[Batch]:
    """The batches; raises the error of an actor whose model could not be loaded."""
    for found in work:
        if isinstance(found, SafeVLMError):
            raise found
        yield found


def by_shard(found: Iterable[Batch]) -> Iterator[Batch]:
    """Batches in any order -> the batches of each shard in order, once all of them are there."""
    shards: dict[int, dict[int, Batch]] = {}
    for batch in found:
        batches = shards.setdefault(batch.shard, {})
        batches[batch.number] = batch
        if any(part.last for part in batches.values()) and len(batches) == 1 + max(batches):
            yield from (batches[number] for number in sorted(shards.pop(batch.shard)))


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """A connection to Ray; one that was not there before is closed again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    if ray.is_initialized():
        yield ray
        return
    try:
        with _uninterrupted():
            _start(ray, address)
        yield ray
    finally:
        with _uninterrupted():
            ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:  # one core for the model, one for decoding, also where there is but one
            cores = max(2, os.cpu_count() or 1)
            ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SafeVLMError(
            f"no Ray cluster at {address or 'this machine'} ({error}); check the address"
        ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: interrupted while it starts or ends, Ray hangs or leaves processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt
