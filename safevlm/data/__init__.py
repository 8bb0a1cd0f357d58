"""Bytes -> samples: one file per format."""

from safevlm.data.folder import FileSample, FolderSource
from safevlm.data.image import read_image
from safevlm.data.item import decode_item
from safevlm.data.parquet import ParquetSource
from safevlm.data.source import Item, Shard, ShardError, Source
from safevlm.data.webdataset import WebDatasetSource

__all__ = [
    "FileSample",
    "FolderSource",
    "Item",
    "ParquetSource",
    "Shard",
    "ShardError",
    "Source",
    "WebDatasetSource",
    "decode_item",
    "read_image",
]
