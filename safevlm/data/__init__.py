"""Sources of images: folders, tars, Parquet, JSON and the Hugging Face Hub, one file per format."""

from safevlm.data.folder import FolderSource
from safevlm.data.image import image_size, prepared_pixels, read_image
from safevlm.data.item import decode_item, decode_item_reduced, perceptual_hash
from safevlm.data.open import open_source
from safevlm.data.source import Item, Shard, ShardError, Source

__all__ = [
    "FolderSource",
    "Item",
    "Shard",
    "ShardError",
    "Source",
    "decode_item",
    "decode_item_reduced",
    "image_size",
    "open_source",
    "perceptual_hash",
    "prepared_pixels",
    "read_image",
]
