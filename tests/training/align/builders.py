"""Concept sets on disk, and flags for quick runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from safevlm.training.align.rewards import CLASSES

from safevlm.judges import normalise
from tests.tiny import picture

UNSAFE, HARMLESS = ("flame", "knife", "poison", "bomb", "syringe"), ("apple", "bird", "cup", "door", "egg")


def coloured(safe: bool, seed: int) -> Image.Image:
    """Noise over a colour that tells the side."""
    colour = (30, 220, 30) if safe else (220, 30, 30)
    return Image.blend(picture(seed, (16, 16)), Image.new("RGB", (16, 16), colour), 0.7)


def write_concepts(root: Path, *, images: int = 2) -> Path:
    """Five unsafe concepts in two categories and five harmless ones, each of some images."""
    seed = 0
    for names, safe in ((UNSAFE, False), (HARMLESS, True)):
        for number, name in enumerate(names):
            folder = root / ("safe" if safe else "harm" if number < 3 else "danger") / name
            folder.mkdir(parents=True)
            for _ in range(images):
                seed += 1
                coloured(safe, seed).save(folder / f"{seed}.png")
    return root


def flags(backbone: Path, out: Path, **more: Any) -> list[str]:
    """Flags of `safevlm train sft|dpo|ppo` for a quick CPU run."""
    values = {
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.max_epochs": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "model.backbone": backbone,
        "model.output_dir": out,
        "model.schedule.lr": 1e-3,
        "model.lora.r": 2,
        "model.lora.alpha": 4,
        "data.batch_size": 4,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


class FirstWordJudge:
    """Reads the first word alone: yes is safe, no is unsafe, anything else is neither."""

    name = "first word"
    sure, unsure = math.log(0.98), math.log(0.01)

    def log_likelihoods(
        self, questions: Sequence[str], answers: Sequence[str]
    ) -> list[tuple[float, float, float]]:
        """0.98 for what the word says, and 0.01 for each of the others; the questions are not looked at."""
        found = [CLASSES[self._class(answer)] for answer in answers]
        return [tuple(self.sure if name == own else self.unsure for name in CLASSES) for own in found]  # type: ignore[misc]

    def _class(self, answer: str) -> int:
        words = normalise(answer).replace(",", " ").replace(".", " ").replace("!", " ").split()
        return {"yes": 0, "no": 1}.get(words[0] if words else "", 2)
