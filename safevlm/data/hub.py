"""A data set of the Hugging Face Hub, streamed, or one in a folder as the datasets library writes it."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.arrow import ROWS_PER_BATCH, columns_of, items_of
from safevlm.data.columns import Choice
from safevlm.data.image_root import ImageRoot
from safevlm.data.source import Item, Shard, ShardError
from safevlm.errors import DataError, MissingExtraError

SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in its folder: of one split, of several."""

ROWS_PER_SHARD = 1024
"""Of a data set written by `save_to_disk`; others have their files as shards."""


class HubSource:
    """Pictures of a data set that the datasets library reads; nothing is downloaded beyond what is read.

    The revision is looked up once and pinned, so a push in the middle of a scan changes nothing.
    Code that a data set brings along is never run.

    Args:
        name: `org/name` on the hub, or a folder: of data files, or written by `save_to_disk`.
        config, split, revision: which part of it; a choice that is open is refused with what there is.
        image, text, id: the columns; those left out are recognised.
    """

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        image: str | None = None,
        text: str | None = None,
        id: str | None = None,
    ) -> None:
        self.local = os.path.isdir(name)
        if self.local and revision:
            raise DataError(f"{name}: is a folder, which has no revision; leave ?revision= out")
        self.name = storage.canonical(name) if self.local else name.strip("/")
        self.config, self.split, self.revision = config, split, revision
        self.choice = Choice(image, text, id)
        options = {"config": config, "split": split, "revision": revision}
        self.uri = storage.uri("hf", self.name, **options, image=image, text=text, id=id)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_dataset", "_columns")}

    def shards(self) -> list[Shard]:
        """The data set's own shards, `train-00003-of-00012`.

        Raises:
            DataError: no such data set, configuration, split or column, one of them to be chosen,
                no network, or no rows.
        """
        columns, count = self._columns, self._dataset.num_shards
        signature = storage.digest([self._version, str(self.config), *columns.names])
        return [Shard(f"{self._split}-{n:05d}-of-{count:05d}", signature) for n in range(count)]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The shard's pictures. Raises ShardError where it breaks off."""
        number, count = (int(part) for part in shard.name.rsplit("-", 3)[1::2])
        if count != self._dataset.num_shards:
            raise ShardError(f"{self.name}: has other shards than when the scan began; start it again")
        tables = self._tables(self._dataset.shard(count, number, contiguous=True))
        root = ImageRoot(self.name if self.local else f"hf://datasets/{self.name}@{self._version}")
        try:
            yield from items_of(tables, self._columns, root, shard.name, 0, passed_over)
        except _failures() as error:
            raise ShardError(f"{shard.name}: breaks off ({storage.reason(error)}); try again") from error

    def _tables(self, dataset: Any) -> Iterator[Any]:
        # As Arrow tables, the pictures stay encoded.
        yield from dataset.with_format("arrow").iter(batch_size=ROWS_PER_BATCH)

    @cached_property
    def _version(self) -> str:
        """Of a folder, what its files are; of the hub, the commit that the revision names."""
        if self.local:
            names = sorted(storage.files_below(self.name))
            return storage.digest([*names, *(storage.fingerprint(f"{self.name}/{name}") for name in names)])
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self.name, revision=self.revision).sha)
        except _failures() as error:
            raise self._unavailable(error) from error

    @cached_property
    def _split(self) -> str:
        return self.split or str(self._dataset.split or "all")

    @cached_property
    def _dataset(self) -> Any:
        """One split, iterable."""
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "scan") from error
        revision = None if self.local else self._version
        try:
            if self._saved:
                found = datasets.load_from_disk(self.name)
            else:
                found = datasets.load_dataset(self.name, self.config, streaming=True, revision=revision)
        except _failures() as error:
            raise self._unavailable(error) from error
        if isinstance(found, dict):
            found = self._chosen(found)
        if isinstance(found, datasets.Dataset):
            return found.to_iterable_dataset(num_shards=max(1, -(-len(found) // ROWS_PER_SHARD)))
        return found

    @property
    def _saved(self) -> bool:
        return self.local and any(os.path.exists(posixpath.join(self.name, name)) for name in SAVED)

    def _chosen(self, splits: dict[str, Any]) -> Any:
        if self.split is None and len(splits) == 1:
            return next(iter(splits.values()))
        if self.split in splits:
            return splits[self.split]
        choices = " or ".join(f"?split={name}" for name in splits)
        problem = "has several splits" if self.split is None else f"has no split {self.split!r}"
        raise DataError(f"{self.name}: {problem}; add {choices}")

    @cached_property
    def _columns(self) -> Any:
        try:
            first = next(self._tables(self._dataset), None)
        except _failures() as error:
            raise self._unavailable(error) from error
        if first is None:
            raise DataError(f"{self.name}: has no rows; check the split")
        return columns_of(first.schema, self.choice, self.name)

    def _unavailable(self, error: BaseException) -> DataError:
        return DataError(
            f"{self.name}: cannot be opened ({storage.reason(error)}); check the name, the configuration "
            "(?config=NAME), the split, the network and your access to it"
        )


def _failures() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (*storage.failures(), pa.ArrowException)
