"""Scans of disjoint parts of a source -> one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from safevlm.errors import DataError
from safevlm.results.schema import ROWS, THUMBNAILS, part_name
from safevlm.scan.ledger import LEDGER, Ledger, opened
from safevlm.scan.lock import locked
from safevlm.scan.output import prepare
from safevlm.scan.plan import Plan
from safevlm.scan.summary import ScanSummary, summarise


def merge(scans: Sequence[str | Path], out: str | Path) -> ScanSummary:
    """Join finished scans of different shards, made with the same model, policy and choices.

    The scans stay as they are; their part files are copied, renumbered in the order given.

    Args:
        scans: folders of scans.
        out: a new folder.

    Returns:
        The summary of all of them.

    Raises:
        DataError: a folder holds no scan or one that is not finished; they differ, or share a shard;
            `out` holds something, or cannot be written.
    """
    folders, out = [Path(folder) for folder in scans], Path(out)
    if len(folders) < 2:
        raise DataError("merge joins two scans or more; give their folders")
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        if any(out.iterdir()):
            raise DataError(f"{out}: is not empty; choose a new folder")
        ledgers = [stack.enter_context(_finished(folder)) for folder in folders]
        settings = _common(ledgers)
        copies = _renumbered(ledgers)
        prepare(out, fresh=False)
        _copy(copies, folders, out)
        merged = stack.enter_context(closing(Ledger(out / LEDGER)))
        merged.begin(
            Plan(settings, ()), model=ledgers[0].model, policy=ledgers[0].policy,
            one_view=all(ledger.one_view for ledger in ledgers),
        )  # fmt: skip
        for ledger in ledgers:  # let go of, so that the merged one can read it
            ledger.close()
        for folder, numbers in zip(folders, copies, strict=True):
            merged.absorb(folder / LEDGER, numbers)
        summary = summarise(merged)
        summary.write(out)
    return summary


@contextmanager
def _finished(folder: Path) -> Iterator[Ledger]:
    with locked(folder, shared=True), opened(folder) as ledger:
        left = sum(1 for state in ledger.shards() if state.status is None and state.planned.take != 0)
        if left:
            raise DataError(f"{folder}: {left} shards are not scanned yet; run its command again first")
        yield ledger


def _common(ledgers: Sequence[Ledger]) -> dict[str, str]:
    """The settings of all of them, with every source."""
    first = ledgers[0].settings
    sources = [ledger.settings["source"] for ledger in ledgers]
    for ledger in ledgers[1:]:
        for name, value in ledger.settings.items():
            if name != "source" and value != first.get(name):
                raise DataError(
                    f"{ledger.path.parent}: its {name} is {value}, that of {ledgers[0].path.parent} is "
                    f"{first.get(name)}; scan both alike"
                )
    return first | {"source": " + ".join(dict.fromkeys(sources))}


def _renumbered(ledgers: Sequence[Ledger]) -> list[dict[int, int]]:
    """For each scan its shards' numbers -> those in the merged one; shards that a limit left out have none."""
    owners: dict[tuple[str, str, str], Path] = {}
    copies, count = [], 0
    for ledger in ledgers:
        numbers = {}
        for state in ledger.shards():
            if state.status is None:
                continue
            shard = state.planned.shard
            # the same place, or the same file by another pattern
            for key in (("source", state.source, shard.name), ("signature", shard.signature, shard.name)):
                if (owner := owners.setdefault(key, ledger.path.parent)) != ledger.path.parent:
                    raise DataError(
                        f"the shard {shard.name} is in {owner} and in {ledger.path.parent}; merge scans of "
                        "shards that have none in common"
                    )
            numbers[state.planned.number] = count
            count += 1
        copies.append(numbers)
    return copies


def _copy(copies: Sequence[dict[int, int]], folders: Sequence[Path], out: Path) -> None:
    try:
        for folder, numbers in zip(folders, copies, strict=True):
            for old, new in numbers.items():
                shutil.copyfile(folder / ROWS / part_name(old), out / ROWS / part_name(new))
                thumbnails = folder / THUMBNAILS / part_name(old)
                if thumbnails.is_file():
                    shutil.copyfile(thumbnails, out / THUMBNAILS / part_name(new))
    except OSError as error:
        raise DataError(f"{out}: cannot be merged into ({error}); remove it and try again") from error
