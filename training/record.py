"""Collects what a run was made with, from its stage, data and trainer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .options import Loss, Schedule
from .resume import STEPS, tensors_digest, text_digest

if TYPE_CHECKING:
    from .base import TrainingStage

SIZES = ("hidden_dim", "depth", "num_tokens", "num_heads", "pool_grid", "vision_layer")
FINGERPRINTS = ("tower_fingerprint", "prompt_fingerprint")


def run_record(stage: TrainingStage) -> dict[str, Any]:
    """Options and rows by name, as plain values, that a resumed run must share with the run it continues.

    What is left out may change: where things are written, logs, how often checkpoints are kept, workers.
    """
    trainer, config = stage.trainer, stage.config
    trained = {id(parameter) for parameter in stage.trained.values()}
    frozen = [value for value in stage.safety.parameters() if id(value) not in trained]
    grouped: dict[str, Schedule | Loss] = {"schedule": stage.schedule, "loss": stage.loss}
    return {
        "stage": type(stage).__name__,
        **stage.data.record(),
        "processes (trainer.devices x trainer.num_nodes)": trainer.world_size,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.limit_train_batches": trainer.limit_train_batches,
        "trainer.gradient_clip_val": trainer.gradient_clip_val,
        "trainer.gradient_clip_algorithm": str(trainer.gradient_clip_algorithm or "norm"),
        "trainer.precision": str(trainer.precision),
        STEPS: stage.steps(),
        "model.sizes.taxonomy": f"{config.taxonomy.name} {text_digest(config.taxonomy.to_dict())}",
        **{f"model.sizes.{name}": getattr(config, name) for name in SIZES},
        **{f"backbone's {name}": list(getattr(config, name)) for name in FINGERPRINTS},
        **{
            f"model.{group}.{name}": value
            for group, options in grouped.items()
            for name, value in asdict(options).items()
        },
        "frozen safety weights (model.checkpoint, seed_everything)": tensors_digest(frozen),
        **stage.own_options(),
    }
