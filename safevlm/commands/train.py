"""`safevlm train`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from safevlm.errors import DataError, SafeVLMError, TrainingInterrupted
from safevlm.files import write_bytes

from .eval_data import measured, write_report

TEST_PAGE, TEST_NUMBERS = "test.html", "test.json"
"""Files of a run's folder with the evaluation of the table's test rows."""


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
        trained = run(arguments[0], list(arguments[1:]))
    except TrainingInterrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    if trained is not None:
        _measure_test_rows(trained)
    return 0


def _measure_test_rows(trained: Any) -> None:
    """Evaluate a written folder on the test rows of its table, in the terminal and in the run's folder.

    Args:
        trained: of `safevlm.training.train`.

    Raises:
        DataError: the test rows cannot be measured; the folder is there nonetheless.
    """
    from safevlm import terminal

    page, numbers = trained.run / TEST_PAGE, trained.run / TEST_NUMBERS
    for earlier in (page, numbers):  # of another run into the same folder
        earlier.unlink(missing_ok=True)
    if trained.test_rows is None:
        asked = shlex.join(["safevlm", "eval", "data", str(trained.table), "--model", str(trained.folder)])
        print(
            f"test rows are not measured after a run in forked processes; if there are some: {asked} --split test"
        )
    if not trained.test_rows:
        return
    try:
        with terminal.eval_progress(quiet=not terminal.console.is_terminal) as advance:
            found, facts = measured(
                trained.table, str(trained.folder), split="test", skip_bad=trained.skip_bad,
                device=trained.device, on_progress=advance,
            )  # fmt: skip
        write_report(found, facts, page)
    except SafeVLMError as error:
        raise DataError(
            f"{trained.folder} is written, but the test rows of {trained.table} were not measured: {error}"
        ) from error
    write_bytes(numbers, json.dumps(facts | found.to_dict(), indent=1).encode())
    terminal.show_data_evaluation(found, facts, str(page))
