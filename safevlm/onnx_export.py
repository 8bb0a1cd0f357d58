"""A scorer as an ONNX file, so that images are scored without torch: tower, folded modules and calibration in one graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.backbone import TowerInputs, VisionTower
from safevlm.calibration import level_probabilities
from safevlm.errors import BackboneError, MissingExtraError
from safevlm.files import replacing_folder
from safevlm.modules import fold
from safevlm.scorer import RiskScorer

MODEL, DESCRIPTION = "model.onnx", "scorer.json"
OPSET = 18
"""The ONNX operators' version; onnxruntime reads it from 1.14 on."""
SCHEMA = 1
INPUT, OUTPUTS = "pixel_values", ("level_probabilities", "category_probabilities")


def export_onnx(scorer: RiskScorer, folder: str | Path) -> None:
    """Write `model.onnx`, `scorer.json` and the image processor's own `preprocessor_config.json` to a new folder.

    The graph takes pixel_values (B, 3, H, W) float32, any B, and gives level_probabilities (B, levels), calibrated, and
    category_probabilities (B, categories), float32, equal to the scorer's to 1e-4. It reads no prompts and no writing.
    `scorer.json` names levels and categories in their order, the checkpoint's threshold, and whether it was never trained.

    Args:
        scorer: its tower gives one view per image, of one size.
        folder: that does not exist, or is empty.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        BackboneError: the tower's inputs depend on the image's size, or are more than pixels.
        FileExistsError: the folder holds something already.
        OSError: it cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "onnx")
    if Path(folder).exists() and any(Path(folder).iterdir()):
        raise FileExistsError(f"{folder} holds files already; name a new folder")
    pixels = _pixels(scorer.tower)
    graph = _Graph(scorer).eval()
    with replacing_folder(Path(folder), last=DESCRIPTION) as target, _plain_layout(scorer.tower.module):
        program = torch.onnx.export(
            graph, (torch.cat([pixels, pixels]),), dynamo=True, opset_version=OPSET, input_names=[INPUT],
            output_names=list(OUTPUTS), dynamic_shapes=({0: torch.export.Dim("images")},), verbose=False,
        )  # fmt: skip
        assert program is not None, "dynamo=True returns a program"
        program.save(target / MODEL, external_data=False)
        scorer.tower.image_processor.save_pretrained(target)
        text = json.dumps(_description(scorer, pixels), indent=2, ensure_ascii=False)
        (target / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


class _Graph(nn.Module):
    """Pixels -> probabilities."""

    def __init__(self, scorer: RiskScorer) -> None:
        super().__init__()
        self.tower, self.module = scorer.tower, scorer.tower.module
        self.folded, self.calibration = fold(scorer.safety), scorer.config.calibration

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tower = self.tower
        states = tower.layer is not None
        output = self.module(pixels, output_hidden_states=states, return_dict=True)
        features = tower.family.features(
            output, layer=tower.layers_read, drops_class_token=tower.drops_class_token
        )
        grid = tower.family.grid(pixels, self.module.config, output)
        assert grid is not None, "the output is given"
        found = self.folded(features.to(self.folded.patch_keys.dtype), grid)
        levels = level_probabilities(found.level_logits, self.calibration)
        return levels.float(), found.category_logits.softmax(-1)


def _pixels(tower: VisionTower) -> Tensor:
    """(1, 3, H, W) of an image; raises BackboneError unless all images have this size, and one view."""
    found = [tower.preprocess([Image.new("RGB", size)]) for size in ((64, 64), (300, 90))]
    first, other = (inputs.tensors[INPUT] for inputs in found)
    if any(not _is_plain(inputs) for inputs in found) or first.shape != other.shape:
        raise BackboneError(
            f"the tower ({tower.model_type}) takes {' and '.join(sorted(found[0].tensors))} of a size that depends on the "
            "image; ONNX export needs a tower with one view of one size, such as CLIP, SigLIP or timm's"
        )
    return first.to(tower.device)


def _is_plain(inputs: TowerInputs) -> bool:
    return inputs.grids is None and set(inputs.tensors) == {INPUT} and len(inputs.boxes[0]) == 1


@contextmanager
def _plain_layout(module: nn.Module) -> Iterator[None]:
    """Within the context convolutions lie as ONNX has them; channels-last ones are put back after."""
    last = any(
        p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in module.parameters()
    )
    module.to(memory_format=torch.contiguous_format)
    try:
        yield
    finally:
        if last:
            module.to(memory_format=torch.channels_last)


def _description(scorer: RiskScorer, pixels: Tensor) -> dict[str, object]:
    taxonomy = scorer.config.taxonomy
    return {
        "schema_version": SCHEMA,
        "safevlm": version("safevlm"),
        "name": scorer.name,
        "opset": OPSET,
        "input": {"name": INPUT, "shape": [None, *pixels.shape[1:]], "dtype": "float32"},
        "outputs": {OUTPUTS[0]: list(taxonomy.levels), OUTPUTS[1]: list(taxonomy.category_names)},
        "safe_level": taxonomy.safe_level,
        "clean_category": taxonomy.clean,
        "calibrated": scorer.config.calibration is not None,
        "untrained": scorer.config.untrained,
        "threshold": scorer.config.threshold,
    }
