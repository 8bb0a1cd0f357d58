"""`safevlm train STAGE ...`: Lightning's command line over the two stages of the guard, and over alignment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from safevlm.errors import MissingExtraError

StageName: TypeAlias = Literal["head", "joint", "sft", "dpo", "ppo"]
STAGES: tuple[StageName, ...] = get_args(StageName)
GUARD_STAGES = ("head", "joint")
CONFIGS = Path(__file__).parent / "configs"


class Trained(NamedTuple):
    """A folder of safety modules that was written.

    Args:
        folder: for `SafeVLM.from_pretrained`.
        run: folder of the run's logs, plots and checkpoints.
        table: that it was trained on.
        test_rows: how many rows of the table are of the split test; None where the processes that read it have ended.
        skip_bad: whether bad rows of the table were dropped.
        device: that it was trained on, such as cuda:0.
    """

    folder: Path
    run: Path
    table: Path
    test_rows: int | None
    skip_bad: bool
    device: str


def train(stage: StageName, argv: Sequence[str] | None = None) -> Trained | None:
    """Train one stage and write its folder.

    Args:
        stage: "head" (stage 1: modules on a frozen backbone) or "joint" (stage 2: modules + LoRA) of the guard; "sft",
            "dpo" or "ppo" align the backbone itself on a concept set.
        argv: flags, as on the command line; `--help` lists the stage's own, `--help-trainer` Lightning's. `--config`
            takes a file, or the name of a shipped one: head, joint, mini_head, mini_joint, marks, mini_sft, mini_dpo,
            mini_ppo, ppo_7b, and head_8gpus, joint_8gpus to be given after.

    Returns:
        What a stage of the guard wrote; None for an alignment, a trial run (trainer.fast_dev_run) and in the processes
        beside the first.

    Raises:
        MissingExtraError: lightning is not installed.
        ValueError: another stage.
        SafeVLMError: bad data, a backbone or checkpoint that does not fit, a run that trains nothing or breaks.
        TrainingInterrupted: Ctrl-C or SIGTERM; the message says how to go on.
    """
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    made = command(stage, argv)
    made.fit()
    trainer, data = made.trainer, made.datamodule
    if stage not in GUARD_STAGES or trainer.fast_dev_run or not trainer.is_global_zero:
        return None
    from .export import run_folder

    folder = made.model.output_dir
    return Trained(
        folder,
        run_folder(folder),
        Path(data.table),
        data.test_rows if data.train_rows else None,
        data.skip_bad,
        str(trainer.strategy.root_device),
    )


def command(stage: StageName, argv: Sequence[str] | None = None) -> Any:
    """The parsed command with its trainer, model and data, not yet run."""
    if find_spec("lightning") is None:
        raise MissingExtraError("lightning", "train")
    logging.getLogger("safevlm").setLevel(logging.INFO)
    args, prog = _with_shipped_configs(list(argv or [])), f"safevlm train {stage}"
    if stage in ("sft", "dpo", "ppo"):
        from .align.command import AlignCommand

        return AlignCommand(stage, args=args, prog=prog)
    from .command import TrainCommand
    from .head import HeadTraining
    from .joint import JointTraining

    stages = {"head": HeadTraining, "joint": JointTraining}
    return TrainCommand(stages[stage], args=args, prog=prog)


def _with_shipped_configs(argv: list[str]) -> list[str]:
    """`--config mini_head` -> the shipped file; files of your own are left as they are."""
    shipped = {path.stem: str(path) for path in CONFIGS.glob("*.yaml")}
    changed = list(argv)
    for index, word in enumerate(argv):
        if word.startswith("--config="):
            changed[index] = f"--config={shipped.get(word[9:], word[9:])}"
        elif index and argv[index - 1] == "--config":
            changed[index] = shipped.get(word, word)
    return changed
