"""The commands: one file each. The typed signature of its function is the flags, the docstring the help.

To add a command, write its file and register the function in `COMMANDS`.
"""

from collections.abc import Callable

from .assess import assess
from .bench import bench
from .chat import chat
from .demo import demo
from .eval_concepts import eval_concepts
from .eval_data import eval_data
from .eval_mini import eval_mini
from .eval_scan import eval_scan
from .eval_steering import eval_steering
from .export import export
from .export_model import export_model
from .info import info
from .merge import merge
from .scan import scan
from .steer_fit import steer_fit
from .steer_show import steer_show
from .threshold import threshold
from .train import train

COMMANDS: dict[str, Callable[..., int]] = {
    "info": info,
    "assess": assess,
    "chat": chat,
    "scan": scan,
    "merge": merge,
    "export": export,
    "export-model": export_model,
    "threshold": threshold,
    "demo": demo,
    "bench": bench,
    "eval concepts": eval_concepts,
    "eval data": eval_data,
    "eval mini": eval_mini,
    "eval scan": eval_scan,
    "eval steering": eval_steering,
    "steer fit": steer_fit,
    "steer show": steer_show,
}
"""Words after `safevlm` -> the function they call. `train` is apart: Lightning parses its flags."""

GROUPS = {
    "eval": "Measure a model, or the results of scans, on labelled data.",
    "steer": "Fit and show directions that steer an LLM's activations.",
}
"""First word of commands with two words -> its help."""

__all__ = ["COMMANDS", "GROUPS", "train"]
