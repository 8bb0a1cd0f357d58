"""`safevlm train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from safevlm.errors import TrainingInterrupted


def train(arguments: Sequence[str]) -> int:
    """Train the safety modules: stage 1 (head), stage 2 (joint); align the model itself: sft, dpo, ppo."""
    if not arguments or arguments[0] not in ("head", "joint", "sft", "dpo", "ppo"):
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(
            "usage: safevlm train {head,joint,sft,dpo,ppo} [--config FILE] [--help] [--help-trainer] ...\n\n"
            "  head   stage 1: safety projector, tokens and head on the frozen backbone\n"
            "  joint  stage 2: the modules together with LoRA on the LLM\n"
            "  sft    align the LLM on a concept set: gold answers\n"
            "  dpo    align the LLM on a concept set, or on preferences: pairs of answers\n"
            "  ppo    align the LLM on a concept set: its own answers, judged",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    from safevlm.training import train as run

    try:
        run(arguments[0], list(arguments[1:]))
    except TrainingInterrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    return 0
