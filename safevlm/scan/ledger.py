"""The memory of a scan: what it reads, which shards are finished, and the scores of every image seen.

One SQLite file in the scan's folder. A shard's entry and the scores of its images become visible in
one transaction, after its part file is in place; whatever a killed run left unfinished is gone when
the file is opened again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safevlm.data import Shard
from safevlm.data.image import MAX_PIXELS
from safevlm.errors import DataError
from safevlm.policy import Policy
from safevlm.results.schema import LATER_COLUMNS
from safevlm.scan.plan import Plan, PlannedShard
from safevlm.scan.tables import INSERT_SHARD, PLAIN, SEEN, SHARD, TABLES, packed, shard_rows, unpacked

FORMAT = "safevlm-scan/3"
LEDGER = "ledger.sqlite"
DONE, FAILED = "done", "failed"
LATER_SETTINGS = {
    "read_text": "never", "decoding": "whole", "max_pixels": str(MAX_PIXELS), "modules": "trained",
}  # fmt: skip
"""Settings that scans of earlier versions do not record, and what they were."""


@dataclass(frozen=True)
class ShardState:
    """A shard as the ledger knows it.

    Args:
        source: the URI of the source that it belongs to.
        planned: what of it is read.
        status: done, failed, or None where it is still to be read.
        reason: why it failed.
        attempts: how often it was read.
        counts: of its rows.
        seconds: that it took.
        unfinished: id of its last sample, where images of that may be missing; None where none are.
    """

    source: str
    planned: PlannedShard
    status: str | None
    reason: str
    attempts: int
    counts: dict[str, Any]
    seconds: float
    unfinished: str | None = None


class Ledger:
    """An open ledger; one process at a time holds it.

    Args:
        path: the file; made if it is not there.
        half_applied: whether it may be open although a policy was applied to some of its rows alone.

    Raises:
        DataError: no ledger, of another version, held by another scan, half applied, or the disk does not take it.
    """

    def __init__(self, path: Path, *, half_applied: bool = False) -> None:
        self.path = path
        with self._explained():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            found = self._opened()
            if found != FORMAT:
                raise DataError(f"{path}: has the format {found!r}, not {FORMAT!r}; choose another folder")
            if not half_applied and self._notes("applying"):
                raise DataError(
                    f"{path.parent}: a policy was applied to some of its rows when the run ended; run `safevlm scan "
                    "--apply-policy` again, or --fresh to scan again"
                )
        except DataError:
            self.close()
            raise

    def _opened(self) -> str | None:
        """The file's format, after the tables are made where there are none."""
        with self._explained():
            # kept for as long as the connection lives, so that two scans never share a folder
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN EXCLUSIVE")
            if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO settings VALUES ('format', ?)", (FORMAT,))
            elif self._settings().get("format") == FORMAT:
                self._add_later_columns()
            self._db.execute("COMMIT")
            return self._settings().get("format")

    def _add_later_columns(self) -> None:
        """Give the scores of an earlier version's scan the columns that it lacks; they are null there."""
        there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(seen)")}
        for name in LATER_COLUMNS:
            if name not in there:
                self._db.execute(f"ALTER TABLE seen ADD COLUMN {name} TEXT")

    @property
    def generation(self) -> str:
        """What tells this scan, as far as it has come, from every other: 64 hex digits."""
        digest = hashlib.sha256()
        with self._explained():
            for table, order in (("settings", "name"), ("about", "name"), ("shards", "number")):
                for row in self._db.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                    digest.update(repr(row).encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the file; what was not committed is gone."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            cause = str(error)
            remedy = "check the disk and its permissions, or choose another folder"
            if "locked" in cause:
                remedy = "another scan is writing there; wait for it, or choose another folder"
            elif "not a database" in cause or "malformed" in cause:
                remedy = "it is no ledger of a scan, or a damaged one; choose another folder, or remove the file and give --fresh"
            elif "full" in cause:
                remedy = "free space and run the same command again; finished shards are kept"
            raise DataError(f"{self.path}: {cause}; {remedy}") from error

    def _settings(self) -> dict[str, str]:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'settings'").fetchone():
            return {}
        return dict(self._db.execute("SELECT name, value FROM settings"))

    @property
    def settings(self) -> dict[str, str]:
        """What the rows depend on; empty before `begin`."""
        with self._explained():
            found = {name: value for name, value in self._settings().items() if name != "format"}
        return LATER_SETTINGS | found if found else {}

    def begin(self, plan: Plan, *, model: str, policy: Policy, one_view: bool) -> None:
        """Record a new scan's plan in one transaction.

        Args:
            plan: what it reads.
            model: the model's name.
            policy: what the verdicts rest on; its taxonomy names the stored probabilities.
            one_view: whether the model is known to see every image as one view.
        """
        about = {"model": model, "policy": json.dumps(policy.to_dict())} | (
            {"one view": ""} if one_view else {}
        )
        with self.transaction():
            self._db.executemany("INSERT INTO settings VALUES (?, ?)", plan.settings.items())
            self._db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            self._db.executemany(INSERT_SHARD, shard_rows(plan.shards, plan.settings["source"]))

    @property
    def one_view(self) -> bool:
        """Whether the model is known to see every image as one view; scans of earlier versions do not tell."""
        return self._notes("one view")

    def _notes(self, name: str) -> bool:
        with self._explained():
            return bool(self._db.execute("SELECT 1 FROM about WHERE name = ?", (name,)).fetchone())

    def begin_policy(self, policy: Policy) -> None:
        """Note that the rows are about to get another policy; until `end_policy` nobody else reads them."""
        with self.transaction():
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('applying', ?)", (policy.sha256,))

    def end_policy(self, policy: Policy, counts: Mapping[int, Mapping[str, Any]]) -> None:
        """Take over the policy that the rows have now; what was known of images by the one before is forgotten.

        Args:
            policy: of the rows.
            counts: shard number -> counts of its rows.
        """
        with self.transaction():
            self._db.execute("UPDATE settings SET value = ? WHERE name = 'policy'", (policy.sha256,))
            self._db.execute(
                "UPDATE about SET value = ? WHERE name = 'policy'", (json.dumps(policy.to_dict()),)
            )
            rows = [(json.dumps(found), number) for number, found in counts.items()]
            self._db.executemany("UPDATE shards SET counts = ? WHERE number = ?", rows)
            self._db.execute("DELETE FROM seen")
            self._db.execute("DELETE FROM about WHERE name = 'applying'")

    def _about(self, name: str) -> str:
        with self._explained():
            found = self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise DataError(f"{self.path}: holds no plan yet; scan something first")
        return str(found[0])

    @property
    def model(self) -> str:
        """The model's name."""
        return self._about("model")

    @cached_property
    def policy(self) -> Policy:
        """What the verdicts rest on."""
        return Policy.from_dict(json.loads(self._about("policy")))

    @property
    def _names(self) -> tuple[Sequence[str], Sequence[str]]:
        taxonomy = self.policy.taxonomy
        return taxonomy.levels, taxonomy.category_names

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that the block writes, or nothing of it."""
        with self._explained():
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                self.rollback()

    def rollback(self) -> None:
        """Forget what was written since the last commit."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @property
    def begun(self) -> bool:
        """Whether a shard has ended, well or not."""
        with self._explained():
            return bool(self._db.execute("SELECT 1 FROM shards WHERE status IS NOT NULL").fetchone())

    def clear(self) -> None:
        """Forget the plan of a scan that nothing came of."""
        with self.transaction():
            for statement in ("settings WHERE name != 'format'", "about", "shards", "seen"):
                self._db.execute(f"DELETE FROM {statement}")

    def check(self, settings: Mapping[str, str]) -> None:
        """Raise DataError, naming each difference, where a folder holds the scan of something else."""
        own = self.settings
        self.refuse(
            [
                f"{name} was {_short(own.get(name))}, is {_short(value)}"
                for name, value in settings.items()
                if own.get(name) != value
            ]
        )

    def refuse(self, differences: Sequence[str]) -> None:
        """Raise DataError with the differences, if there are any."""
        if differences:
            shown = "; ".join(differences[:5]) + ("; ..." if len(differences) > 5 else "")
            raise DataError(
                f"{self.path.parent}: holds another scan: {shown}. Choose another folder, or --fresh to replace it"
            )

    def replace(self, gone: Collection[int], new: Sequence[PlannedShard]) -> None:
        """Take shards by their numbers out of the plan, with their scores, and others in."""
        with self.transaction():
            for table, column in (("seen", "shard"), ("shards", "number")):
                self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(n,) for n in gone])
            self._db.executemany(INSERT_SHARD, shard_rows(new, self._settings()["source"]))

    def shards(self) -> Iterator[ShardState]:
        """Every shard, in the plan's order."""
        with self._explained():
            for number, *values in self._db.execute(
                f"SELECT number, {', '.join(SHARD)} FROM shards ORDER BY number"
            ):
                row = dict(zip(SHARD, values, strict=True))
                shard = Shard(row.pop("name"), row.pop("signature"), row.pop("images"))
                counts = json.loads(row.pop("counts") or "{}")
                yield ShardState(planned=PlannedShard(number, shard, row.pop("take")), counts=counts, **row)

    def todo(self) -> list[PlannedShard]:
        """The shards that are not done and of which something is taken."""
        return [s.planned for s in self.shards() if s.status != DONE and s.planned.take != 0]

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the keys whose scores are here."""
        placeholders = ", ".join("?" * len(keys))
        with self._explained():
            return {
                key
                for (key,) in self._db.execute(
                    f"SELECT key FROM seen WHERE key IN ({placeholders})", tuple(keys)
                )
            }

    def forget_failed(self) -> None:
        """Forget the scores of shards that broke off: they are read again, and their thumbnails made again."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM seen WHERE shard IN (SELECT number FROM shards WHERE status = ?)", (FAILED,)
            )

    def remember(self, shard: int, found: Iterable[tuple[bytes, Mapping[str, Any]]]) -> None:
        """Keep the scores of a shard's images by key; they last once it is finished."""
        names_of_levels, names_of_categories = self._names
        rows = [
            (
                shard,
                key,
                *(row[name] for name in PLAIN),
                packed(row["level_probabilities"], names_of_levels),
                packed(row["category_probabilities"], names_of_categories),
            )
            for key, row in found
        ]
        with self._explained():
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany(
                f"INSERT OR IGNORE INTO seen (shard, {', '.join(SEEN)}) VALUES (?{', ?' * len(SEEN)})", rows
            )

    def recall(self, key: bytes) -> dict[str, Any]:
        """What was found for an image with this key, as columns of its row; raises KeyError without one."""
        with self._explained():
            found = self._db.execute(
                f"SELECT {', '.join(SEEN[1:])} FROM seen WHERE key = ?", (key,)
            ).fetchone()
        if found is None:
            raise KeyError(f"no scores for the key {key.hex()}")
        *plain, levels, categories = found
        names_of_levels, names_of_categories = self._names
        row = dict(zip(PLAIN, plain, strict=True))
        return row | {
            "calibrated": bool(row["calibrated"]),
            "level_probabilities": unpacked(levels, names_of_levels),
            "category_probabilities": unpacked(categories, names_of_categories),
        }

    def finish(
        self,
        number: int,
        *,
        counts: Mapping[str, Any],
        seconds: float,
        failure: str = "",
        unfinished: str | None = None,
    ) -> None:
        """Note that a shard ended, with everything remembered of it; `failure` is why it broke off."""
        with self._explained():
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(
                "UPDATE shards SET status = ?, reason = ?, attempts = attempts + 1, counts = ?, "
                "seconds = seconds + ?, unfinished = ? WHERE number = ?",
                (FAILED if failure else DONE, failure, json.dumps(counts), seconds, unfinished, number),
            )
            self._db.execute("COMMIT")

    def absorb(self, other: Path, numbers: Mapping[int, int]) -> None:
        """Take over the finished shards of another ledger; `numbers`: its numbers -> ours."""
        columns = ", ".join(SHARD)
        with self._explained():
            self._db.execute("ATTACH ? AS other", (str(other),))
            try:
                with self.transaction():
                    for old, new in numbers.items():
                        self._db.execute(
                            f"INSERT INTO shards (number, {columns}) SELECT ?, {columns} FROM other.shards "
                            "WHERE number = ?",
                            (new, old),
                        )
            finally:
                self._db.execute("DETACH other")


@contextmanager
def opened(folder: Path, *, half_applied: bool = False) -> Iterator[Ledger]:
    """The ledger of a folder that holds a scan (see `Ledger`); raises DataError where it holds none."""
    if not (folder / LEDGER).is_file():
        raise DataError(
            f"{folder}: holds no scan ({LEDGER} is missing); give the folder of `safevlm scan --out`"
        )
    with closing(Ledger(folder / LEDGER, half_applied=half_applied)) as ledger:
        yield ledger


def _short(value: str | None) -> str:
    if value is None:
        return "not recorded"
    return f"{value[:12]}.." if len(value) == 64 and value.isalnum() else value
