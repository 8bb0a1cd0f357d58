"""Data sets of the Hugging Face Hub, streamed, and local folders that the datasets library reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.arrow import ROWS_PER_BATCH, columns_of, items_of
from safevlm.data.boundary import parser_errors
from safevlm.data.columns import Choice, Columns
from safevlm.data.dataset_card import check_card
from safevlm.data.folder import is_image_name
from safevlm.data.image_root import ImageRoot
from safevlm.data.safe_path import check_real, check_relative
from safevlm.data.save_to_disk import SavedSplit, checked, is_saved, saved_splits
from safevlm.data.source import Item, Shard, ShardError
from safevlm.errors import DataError, MissingExtraError
from safevlm.printable import shortened

LOCAL_FORMATS = ("parquet", "arrow", "json", "csv", "imagefolder")
"""The library's readers that are used on a folder. Others follow links in their files (HDF5), or unpack them."""


FILES_UNREAD = "files of the folder that are not read"
IMAGES_UNREAD = "images of the folder that its metadata do not name"
"""Why files of a folder are passed over."""

_ABOUT = frozenset({"README.md", "LICENSE", "dataset_infos.json", "dataset_info.json"})


class HubSource:
    """Images of a data set that the datasets library reads; nothing is downloaded beyond what is read.

    The revision is looked up once and pinned, so a push in the middle of a scan changes nothing.
    Code that a data set brings along is never run. Of a local folder only its own files are read: a URL, path or
    symlink that leads elsewhere is refused before it is opened.

    Args:
        name: `org/name` on the hub, or a folder: of data files, or written by `save_to_disk`.
        config, split, revision: which part of it; if one is left out and there are several, the error lists them.
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
            DataError: if the data set, configuration, split or column does not exist or has to be chosen, there is
                no network, or there are no rows.
        """
        columns, count = self._columns, self._dataset.num_shards
        signature = storage.digest([self._version, str(self.config), *columns.names])
        return [Shard(f"{self._split}-{n:05d}-of-{count:05d}", signature) for n in range(count)]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The shard's images. Raises ShardError if it breaks off."""
        number, count = (int(part) for part in shard.name.rsplit("-", 3)[1::2])
        if count != self._dataset.num_shards:
            raise ShardError(f"{self.name}: has other shards than when the scan began; start it again")
        root = ImageRoot(self.name if self.local else f"hf://datasets/{self.name}@{self._version}")

        def broken(error: Exception) -> ShardError:
            return ShardError(f"{shard.name}: breaks off ({shortened(storage.reason(error))}); try again")

        with parser_errors(broken):
            if self.local and not number and passed_over is not None:
                passed_over.update(self._unread())
            tables = self._tables(number)
            yield from items_of(tables, self._columns, root, shard.name, 0, passed_over)

    def _unread(self) -> Counter[str]:
        """Files of the folder that give no rows: reason -> how many."""
        if isinstance(self._dataset, SavedSplit):
            return Counter()
        read, images = self._dataset.files, self._dataset.images
        others = {
            path
            for path in (
                os.path.join(os.path.realpath(self.name), name) for name in storage.files_below(self.name)
            )
            if os.path.basename(path) not in _ABOUT and not os.path.basename(path).startswith(".")
        } - read
        if not images:  # what rows name is not known here
            others = {path for path in others if not is_image_name(path)}
        named = set(self._dataset.paths(self._columns.image)) if images and images < read else images
        counts = {FILES_UNREAD: len(others), IMAGES_UNREAD: len(images - named)}
        return Counter({reason: count for reason, count in counts.items() if count})

    def _tables(self, number: int) -> Iterator[Any]:
        """A shard's rows, those of the columns that are read."""
        for table in self._dataset.tables(number, ROWS_PER_BATCH):
            chosen = table.select(self._columns.names)
            yield checked(chosen) if isinstance(self._dataset, SavedSplit) else chosen

    @cached_property
    def _version(self) -> str:
        """Of a local folder, a digest of its files' names and stamps; of the hub, the commit of the revision."""
        if self.local:
            names = sorted(storage.files_below(self.name))
            inside = ImageRoot(self.name)  # a symlink out of the folder is not read
            return storage.digest([*names, *(inside.stamp(name) for name in names)])
        from huggingface_hub import HfApi

        with parser_errors(self._unavailable):
            return str(HfApi().dataset_info(self.name, revision=self.revision).sha)

    @cached_property
    def _split(self) -> str:
        return self.split or self._dataset.split or "all"

    @cached_property
    def _dataset(self) -> SavedSplit | _Streamed:
        """The split that is read."""
        if self.local and is_saved(self.name):
            with parser_errors(self._unavailable):
                found = saved_splits(self.name)
            if isinstance(found, Mapping):
                chosen: SavedSplit = self._chosen(found)
                return chosen
            if self.split not in (None, found.split) and found.split is not None:
                raise DataError(f"{self.name}: has the split {found.split!r} alone; leave ?split= out")
            return found
        if self.local:
            check_card(self.name)
        with parser_errors(self._unavailable):
            builder = self._builder()
            splits: Mapping[str, Any] = builder.as_streaming_dataset()
            chosen = self._chosen(splits)
            files = {name: set(map(str, paths)) for name, paths in (builder.config.data_files or {}).items()}
            own = files.get(str(chosen.split), set()) if _kind(builder) == "imagefolder" else set()
            images = frozenset(path for path in own if is_image_name(path))
            return _Streamed(chosen, frozenset[str]().union(*files.values()), images)

    def _builder(self) -> Any:
        """The library's reader; raises DataError if it would read files outside the data set."""
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "scan") from error
        revision = None if self.local else self._version
        builder = datasets.load_dataset_builder(self.name, self.config, revision=revision)
        for paths in (builder.config.data_files or {}).values():
            self._check(builder, list(paths))
        return builder

    def _check(self, builder: Any, paths: list[str]) -> None:
        """Raise DataError for files outside the data set, and for formats that may lead outside it."""
        if not self.local:
            for path in paths:
                if not path.startswith("hf://"):
                    raise DataError(f"{self.name}: names {shortened(path)}, which is no file of the hub")
            return
        kind = _kind(builder)
        if kind not in LOCAL_FORMATS:
            remedy = "scan the tars with wds:" if kind == "webdataset" else "write them as Parquet files"
            raise DataError(f"{self.name}: holds files of the kind {kind}, which is not read; {remedy}")
        for path in paths:
            check_relative(
                os.path.relpath(path, os.path.realpath(self.name)), self.name
            )  # as the library resolves it
            if not is_image_name(path):  # the library gives images by their paths, which ImageRoot reads
                check_real(self.name, path, self.name)
            if path.lower().endswith(".zip"):
                raise DataError(
                    f"{self.name}: {shortened(path)} is an archive; unpack it in the folder first"
                )

    def _chosen(self, splits: Mapping[str, Any]) -> Any:
        if self.split is None and len(splits) == 1:
            return next(iter(splits.values()))
        if self.split is not None and self.split in splits:
            return splits[self.split]
        choices = " or ".join(f"?split={shortened(str(name))}" for name in splits)
        problem = "has several splits" if self.split is None else f"has no split {self.split!r}"
        raise DataError(f"{self.name}: {problem}; add {choices}")

    @cached_property
    def _columns(self) -> Columns:
        with parser_errors(self._unavailable):
            schema = self._dataset.schema
        if schema is None:
            raise DataError(f"{self.name}: has no rows; check the split")
        return columns_of(schema, self.choice, self.name)

    def _unavailable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.name}: cannot be opened ({shortened(storage.reason(error))}); check the name, the configuration "
            "(?config=NAME), the split, the network and your access to it"
        )


def _kind(builder: Any) -> str:
    """The format that one of the library's readers is for."""
    return type(builder).__module__.rpartition(".")[2]


@dataclass(frozen=True)
class _Streamed:
    """A split that the datasets library streams, with the attributes of `SavedSplit`.

    Args:
        dataset: the library's.
        files: paths of all splits' files.
        images: those of this split that are images; none in other formats than a folder of images.
    """

    dataset: Any
    files: frozenset[str]
    images: frozenset[str]

    @property
    def num_shards(self) -> int:
        return int(self.dataset.num_shards)

    @property
    def split(self) -> str | None:
        return self.dataset.split and str(self.dataset.split)

    @property
    def schema(self) -> Any:
        """The Arrow schema of the first rows; None without rows."""
        first = next(self._arrow(self.dataset, 1), None)
        return None if first is None else first.schema

    def tables(self, number: int, rows: int) -> Iterator[Any]:
        """A shard's tables, each of at most so many rows; raises what the library's parsers do."""
        yield from self._arrow(self.dataset.shard(self.num_shards, number, contiguous=True), rows)

    def paths(self, column: str) -> Iterator[str]:
        """The paths that the rows of an image folder name."""
        for table in self._arrow(self.dataset, 1024):
            for value in table.column(column).to_pylist():
                if isinstance(value, dict) and value.get("path"):
                    yield value["path"]

    def _arrow(self, dataset: Any, rows: int) -> Iterator[Any]:
        # As Arrow tables, the images stay encoded.
        yield from dataset.with_format("arrow").iter(batch_size=rows)
