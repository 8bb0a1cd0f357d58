"""`python -m safevlm.training.judges`: train the judge, or test the judges, and log a JSON object of the confusions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli

from safevlm.checkpoint import tensor_bytes
from safevlm.files import write_bytes
from safevlm.judges import AnswerJudge, RuleJudge, TrainedJudge
from safevlm.judges.trained import WEIGHTS

from .fit import confusions, fit_judge

LOGGER = logging.getLogger(__name__)


def main(
    train: bool = False,
    n: int = 6000,
    n_test: int = 1500,
    seed: int = 0,
    split: Literal["tune", "test"] = "test",
    out: Path = WEIGHTS,
) -> None:
    """Log how the judges read answers: judge -> kind of question -> true class -> class read -> answers.

    Args:
        train: fit the trained judge first, and write its weights.
        n: answers of each kind that it is fitted on.
        n_test: answers of each kind that the judges are tested on.
        seed: of both.
        split: whose answers; tune while a judge is being developed.
        out: the weights' file.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if train:
        write_bytes(out, tensor_bytes(fit_judge(n, seed)))
    judges: tuple[AnswerJudge, ...] = (RuleJudge(), TrainedJudge(out))
    found = {judge.name: confusions(judge, split, n_test, seed) for judge in judges}
    for name, kinds in found.items():
        for kind, confusion in kinds.items():
            right = sum(row[label] for label, row in confusion.items())
            LOGGER.info("%s, %s: %d of %d right", name, kind, right, n_test)
    LOGGER.info("%s", json.dumps(found, indent=1))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
