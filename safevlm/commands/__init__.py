"""The commands: one file each, whose typed signature is its flags."""

from .assess import assess
from .bench import bench
from .chat import chat
from .demo import demo
from .evaluate import eval_mini, eval_scan
from .export import export
from .info import info
from .merge import merge
from .scan import scan
from .train import train

__all__ = [
    "assess",
    "bench",
    "chat",
    "demo",
    "eval_mini",
    "eval_scan",
    "export",
    "info",
    "merge",
    "scan",
    "train",
]
