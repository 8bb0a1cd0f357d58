"""Folders in the layout of the published LLaVA-1.5: real names, shapes and shards; the LLM's weights are holes.

`python -m tests.backbone.llava_layout` prints what loading a scorer from LLaVA-1.5-7B's layout needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

SHARD_BYTES = 5 * 10**9
RENAMED = (  # today's module paths -> names in the published files
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
)
# llava-hf/llava-1.5-7b-hf and -13b-hf, from their config.json
TEXT = {
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
}
VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
VOCABULARY, IMAGE_TOKEN = 32064, 3


def llava_config(size: str) -> LlavaConfig:
    """The published config; the image token is that of the tiny tokenizer."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(
            **TEXT[size], vocab_size=VOCABULARY, max_position_embeddings=4096, rms_norm_eps=1e-5
        ),
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=576,
    )


def llava_processor() -> LlavaProcessor:
    """The real processor class at 336 px, patches of 14, with a small tokenizer."""
    size = {"height": 336, "width": 336}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=size),
        tokenizer=tiny_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def write_layout(folder: Path, config: LlavaConfig) -> int:
    """Write config, processor and float16 shards; returns the bytes that the weights say they have."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    sizes = {_published(key): tensor.shape for key, tensor in model.state_dict().items()}
    config.save_pretrained(folder)
    llava_processor().save_pretrained(folder)
    shards = list(_shards(sizes))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / file, {name: sizes[name] for name in names})
        index |= dict.fromkeys(names, file)
    total = sum(2 * shape.numel() for shape in sizes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return total


def _published(key: str) -> str:
    for own, published in RENAMED:
        if key.startswith(own):
            return published + key.removeprefix(own)
    raise AssertionError(f"no published name for {key}")


def _shards(sizes: Mapping[str, torch.Size]) -> Iterator[list[str]]:
    names: list[str] = []
    filled = 0
    for name, shape in sizes.items():
        if names and filled + 2 * shape.numel() > SHARD_BYTES:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += 2 * shape.numel()
    yield names


def _write_shard(path: Path, sizes: Mapping[str, torch.Size]) -> None:
    header, end = {}, 0
    for name, shape in sizes.items():
        span = [end, end := end + 2 * shape.numel()]
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": span}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).mul(0.02).half().numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        os.truncate(file.fileno(), 8 + len(text) + end)
        for name, entry in header.items():
            if name.startswith("vision_tower."):
                start, stop = entry["data_offsets"]
                file.seek(8 + len(text) + start)
                for part in range(start, stop, len(noise)):
                    file.write(noise[: min(len(noise), stop - part)])


MEASURE = """
import gc, json, os
from pathlib import Path
import torch
from PIL import Image
from safevlm import RiskScorer, SafetyConfig, Taxonomy, checkpoint
from safevlm.backbone import load_prompt_table, load_tower
from safevlm.binding import bind, build_modules
import transformers.models.llava.modeling_llava

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def size(module):
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())

def prepare(base, folder):
    config = SafetyConfig(Taxonomy.preset("safevlm"))  # the paper's sizes
    config = bind(config, load_tower(base), name=str(base), table=load_prompt_table(base))
    with torch.device("meta"):
        shapes = {{key: tensor.shape for key, tensor in build_modules(config).state_dict().items()}}
    checkpoint.save(folder, config, {{key: torch.zeros(shape) for key, shape in shapes.items()}}, card="")

base, folder = Path({base!r}), Path({folder!r})
child = os.fork()  # what it frees does not blur the measure
if not child:
    prepare(base, folder)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
gc.collect()
before = status("VmRSS")  # after the imports
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
scorer = RiskScorer.from_pretrained(folder, **{options!r})
found = dict(tower=size(scorer.tower.module), modules=size(scorer.safety), loaded=status("VmHWM") - before)
if {scored!r}:
    scorer.assess([Image.new("RGB", (400, 300), "teal")])
    found["scored"] = status("VmHWM") - before
print(json.dumps({{**found, "layers": scorer.tower.module.config.num_hidden_layers}}))
"""


def measure(base: Path, *, scored: bool = False, **options: str) -> dict[str, int]:
    """What a scorer of paper-size modules on `base` needs, in a process of its own.

    Returns:
        Bytes of `tower` and `modules`, and by how much the process grew at its peak until all was
        `loaded`, and until one image was `scored`.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = MEASURE.format(base=str(base), folder=folder, options=options, scored=scored)
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table of docs/loading.md."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        total = write_layout(base, llava_config("7b"))
        print(
            f"backbone's files: {total / 1e6:.0f} MB of float16 in {len(list(base.glob('*.safetensors')))} shards\n"
        )
        print("| dtype | tower | modules | peak of loading | of that above both | peak of the first score |")
        print("|---|---|---|---|---|---|")
        for dtype in ("float32", "float16", "bfloat16"):
            found = measure(base, scored=True, dtype=dtype)
            above = found["loaded"] - found["tower"] - found["modules"]
            cells = (found["tower"], found["modules"], found["loaded"], above, found["scored"])
            print(f"| {dtype} | " + " | ".join(f"{cell / 1e6:.0f} MB" for cell in cells) + " |")


if __name__ == "__main__":
    main()
