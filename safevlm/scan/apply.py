"""Another policy on a finished scan: its rows are decided again from the probabilities that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safevlm.errors import DataError
from safevlm.policy import Policy
from safevlm.results.parts import PartFile, iterate_part
from safevlm.results.schema import COLUMNS, LATER_COLUMNS, OK, ROWS, UNDECIDED, ResultRow, part_name
from safevlm.scan.ledger import DONE, FORMAT, Ledger, ShardState, opened
from safevlm.scan.lock import locked
from safevlm.scan.summary import ScanSummary, Tally, summarise
from safevlm.types import Risk, Verdict

_FIRST = [column.name for column in COLUMNS if column.name not in LATER_COLUMNS]
_KEPT_COUNTS = ("skipped", "duplicates", "passed_over")
"""Of a shard: what no policy changes."""


def scanned_policy(out: str | Path) -> Policy:
    """What the verdicts of a scan rest on; raises DataError where there is none."""
    with locked(Path(out), shared=True), opened(Path(out), half_applied=True) as ledger:
        return ledger.policy


def apply_policy(out: str | Path, policy: Policy) -> ScanSummary:
    """Decide a finished scan's rows anew; no image is read, and no model loaded.

    Verdict, level and category are those that the policy gives for a row's score and probabilities. Rows without a
    score stay undecided or errors. Counts and `summary.json` follow. A run that ends before it is done leaves a scan
    that other commands refuse until this one has been run again.

    Thumbnails stay those of the images that were flagged when they were scanned.

    Args:
        out: the folder of the scan.
        policy: for the taxonomy of the model.

    Returns:
        The scan's summary.

    Raises:
        DataError: no scan, one that is not finished, is written to by another process, read writing in its images, or
            keeps one of several views where a policy looks at categories; or a file cannot be written.
        ValueError: the policy is for another taxonomy.
    """
    out = Path(out)
    with locked(out), opened(out, half_applied=True) as ledger:
        _check(ledger, policy, out)
        policy.check_fits(ledger.policy.taxonomy)
        states = [state for state in ledger.shards() if state.status]
        ledger.begin_policy(policy)
        counts = {state.planned.number: _decide_part(out, state, policy).to_dict() for state in states}
        ledger.end_policy(policy, counts)
        summary = summarise(ledger)
        summary.write(out)
    return summary


def _check(ledger: Ledger, policy: Policy, out: Path) -> None:
    left = sum(1 for state in ledger.shards() if state.status != DONE and state.planned.take != 0)
    if left:
        raise DataError(
            f"{out}: {left} shards are not scanned to their end; run the scan's command again first"
        )
    if ledger.settings["read_text"] != "never":
        raise DataError(
            f"{out}: writing in its images was read, and a row keeps only the riskier of the image and its words, by "
            "the policy of then; scan again with --policy and --fresh"
        )
    if not ledger.one_view and not (_by_score(policy) and _by_score(ledger.policy)):
        raise DataError(
            f"{out}: its model may see an image in several views, of which a row keeps one, and the policy of then or "
            "the new one decides by categories (off, thresholds, argmax), by which another view may count; give a "
            "threshold alone, or scan again with --policy and --fresh"
        )


def _by_score(policy: Policy) -> bool:
    """Whether it decides by the score alone, of which a row keeps the highest."""
    return policy.rule == "threshold" and not policy.off and not policy.thresholds


def _decide_part(out: Path, state: ShardState, policy: Policy) -> Tally:
    """Write a part file anew, whole or not at all; returns the counts of its rows."""
    path, tally = out / ROWS / part_name(state.planned.number), Tally()
    tally.merge({name: state.counts[name] for name in _KEPT_COUNTS if name in state.counts})
    file = PartFile(path, COLUMNS, mark=FORMAT)
    try:
        for row in _decided(path, policy):
            file.add([row])
            tally.add([row])
        file.commit()
    finally:
        file.discard()
    return tally


def _decided(path: Path, policy: Policy) -> Iterator[ResultRow]:
    sha256 = policy.sha256
    for row in iterate_part(path, _FIRST, optional=LATER_COLUMNS):
        row["policy"] = sha256
        yield row if row["status"] != OK else row | _verdict(row, policy)


def _verdict(row: ResultRow, policy: Policy) -> ResultRow:
    levels, categories = dict(row["level_probabilities"]), dict(row["category_probabilities"])
    found = policy.assess(Risk(row["score"], levels, categories, calibrated=row["calibrated"]))
    columns = {"verdict": found.verdict.value, "level": found.level, "category": found.category}
    if found.verdict is Verdict.UNDECIDED:
        return columns | {"score": None, "status": UNDECIDED, "reason": found.reason}
    return columns
