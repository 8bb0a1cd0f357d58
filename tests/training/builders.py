"""Tiny backbones on disk, and tables to train on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.tiny import picture, tiny_llava, tiny_processor

SIZES = {"hidden_dim": 16, "depth": 1, "num_tokens": 3, "num_heads": 4}
QUESTIONS = ("What is this?", "Tell me.", "How is it made?")


def save_backbone(folder: Path, seed: int = 0) -> Path:
    """A tiny LLaVA in transformers' own form."""
    tiny_llava(seed).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def shade(level: int, seed: int) -> Image.Image:
    """Noise over a colour that tells the level: a head can learn it."""
    colour = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 40)][level]
    return Image.blend(picture(seed, (16, 16)), Image.new("RGB", (16, 16), colour), 0.7)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def rows(count: int, *, tune: int = 0) -> list[dict[str, Any]]:
    """Table rows of both safe and risky images; the last `tune` of them held out."""
    made = []
    for number in range(count):
        risky = number % 2 == 1
        made.append(
            {
                "image": {"bytes": png(shade(3 if risky else 0, number)), "path": None},
                "prompt": QUESTIONS[number % 3],
                "response": "I can't help with that." if risky else "A green thing.",
                "risk_level": "refuse" if risky else "safe",
                "risk_category": "illegal" if risky else "clean",
                "split": "tune" if number >= count - tune else "train",
            }
        )
    return made


def write_parquet(path: Path, table: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def write_jsonl(path: Path, table: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def flags(backbone: Path, table: Path, out: Path, **more: Any) -> list[str]:
    """Flags of `safevlm train` for a quick CPU run."""
    values = {
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "model.backbone": backbone,
        "model.output_dir": out,
        "model.schedule.lr": 1e-3,
        "data.table": table,
        "data.batch_size": 4,
        **{f"model.sizes.{name}": value for name, value in SIZES.items()},
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
