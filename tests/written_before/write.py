"""Writes the files of this folder: `python -m tests.written_before.write`, run from the repository's root.

They were written by version 0.1.0 at commit 27a9d47, before its rooms were rearranged, and stay as they are: later
versions must read them. A tiny backbone, a guard of random weights with LoRA, images, a scan of them, a feature cache.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image, ImageDraw
from safevlm.training.cache import FeatureCache, cache_identity

from safevlm import SafeVLM
from safevlm.backbone import Views, language_linears, load_tower
from safevlm.cli import main
from tests.tiny import tiny_backbone, tiny_config, tiny_processor

HERE = Path("tests/written_before")
SOURCE = Path("/data/images")
"""Where the images lie while they are scanned: a scan keeps its source's absolute path."""
PROMPTS = ["What is this?", "And this?"]


def write_images(folder: Path) -> None:
    """Flat colours, gradients and shapes, in several formats; one twice, one broken."""
    folder.mkdir()
    for number, colour in enumerate(["red", "green", "navy"]):
        image = Image.new("RGB", (40 + 8 * number, 30), colour)
        ImageDraw.Draw(image).ellipse((5, 5, 20, 20), fill="white")
        image.save(folder / f"circle-{number}.png")
    gradient = Image.linear_gradient("L").resize((300, 220))
    gradient.convert("RGB").save(folder / "gradient.jpg", quality=90)
    gradient.rotate(90, expand=True).save(folder / "grey.webp", quality=80)
    Image.merge("RGBA", [gradient.resize((24, 24))] * 4).quantize(16).save(folder / "palette.png")
    shutil.copyfile(folder / "circle-1.png", folder / "same.png")
    (folder / "broken.jpg").write_bytes((folder / "gradient.jpg").read_bytes()[:400])


def write_guard(folder: Path) -> SafeVLM:
    """A backbone and a guard with LoRA, both of random weights."""
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder / "backbone")
    tiny_processor().save_pretrained(folder / "backbone")
    guard = SafeVLM.attach(backbone, tiny_config(backbone=str(folder / "backbone")))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in guard.safety.parameters():
            parameter.normal_(std=0.3)
    names = "|".join(name.replace(".", r"\.") for name in language_linears(backbone.model))
    config = LoraConfig(r=2, lora_alpha=4, target_modules=f"({names})")
    inject_adapter_in_model(config, backbone.model)
    backbone.model.peft_config = {"default": config}
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    guard.save_pretrained(folder / "guard")
    return guard


def write() -> None:
    """Write everything anew."""
    for name in ("backbone", "guard", "images", "scan", "features"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    write_images(HERE / "images")
    guard = write_guard(HERE)
    shutil.copytree(HERE / "images", SOURCE)
    main(["scan", str(SOURCE), "--out", str(HERE / "scan"), "--model", str(HERE / "guard")])
    (HERE / "scan" / "report.html").unlink()
    shutil.rmtree(SOURCE)
    paths = [HERE / "images" / name for name in ("circle-0.png", "gradient.jpg")]
    replies = guard.generate(list(paths), PROMPTS, max_new_tokens=6, do_sample=False)
    assessed = guard.assess(list(paths), PROMPTS)
    found = {"scores": [a.score for a in assessed], "texts": [reply.text for reply in replies]}
    with guard.disabled():
        plain = guard.generate(list(paths), PROMPTS, max_new_tokens=6, do_sample=False)
    found["plain"] = [reply.text for reply in plain]
    (HERE / "replies.json").write_text(json.dumps(found, indent=1) + "\n")
    cache = FeatureCache(HERE / "features", cache_identity(load_tower(HERE / "backbone"), "float16"))
    values = torch.arange(2 * 4 * 8, dtype=torch.float32).view(2, 4, 8) / 7
    cache.write(["a" * 64, "b" * 64], Views.of_one_grid(values, (2, 2), range(2)))
    cache.flush()


if __name__ == "__main__":
    write()
