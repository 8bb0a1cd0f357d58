"""Bytes -> samples: one file per format."""

from safevlm.data.folder import FileSample, FolderSource
from safevlm.data.image import read_image

__all__ = ["FileSample", "FolderSource", "read_image"]
