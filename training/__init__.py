"""Recipes for the two stages of training; `training/README.md` describes data, options and results.

`train` needs the extra `train`; importing this package does not.
"""

from .cli import train

__all__ = ["train"]
