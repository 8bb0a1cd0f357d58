"""The vision tower: pixels -> patch features, in one pass that the backbone's own code can reuse."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.errors import BackboneError

from .fingerprint import fingerprint


@dataclass(frozen=True)
class TowerPass:
    """What one run of the tower gave.

    Args:
        patches: (B, h * w, dim) features of the layer that the projector reads, without class token.
        grid: (h, w) of the patches.
        pixels: (B, 3, H, W) what the tower was given.
        output: the tower's whole output, hidden states included, for `VisionTower.replay`.
        images: the B images themselves, where a backbone's processor needs them again.
    """

    patches: Tensor
    grid: tuple[int, int]
    pixels: Tensor
    output: Any
    images: tuple[Image.Image, ...] = ()

    def with_images(self, images: Sequence[Image.Image]) -> TowerPass:
        """The same pass, with the images that it is of."""
        return replace(self, images=tuple(images))


class VisionTower:
    """A frozen CLIP or SigLIP tower with its image processor.

    Args:
        module: the Hugging Face vision model.
        image_processor: makes pixel values of images.
        layer: index of the hidden state to read.
        drops_class_token: whether its first position is dropped.
    """

    def __init__(
        self, module: nn.Module, image_processor: Any, *, layer: int, drops_class_token: bool
    ) -> None:
        self.module = module
        self.image_processor = image_processor
        self.layer = layer
        self.drops_class_token = drops_class_token
        # held while the tower runs or replays, so that threads do not see each other's features
        self.lock = RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = RLock()

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self._config.hidden_size)

    @property
    def _config(self) -> Any:
        return self.module.config

    @property
    def _patch_weight(self) -> Tensor:
        for name, parameter in self.module.named_parameters():
            if name.endswith("patch_embedding.weight"):
                return parameter
        raise BackboneError(
            f"{type(self.module).__name__} has no patch embedding; it is no CLIP or SigLIP tower"
        )

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        return self._patch_weight.device

    @property
    def fingerprint(self) -> tuple[float, ...]:
        """What tells one tower from another: a number for each of its matrices."""
        return fingerprint(p for p in self.module.parameters() if p.ndim > 1)

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images -> pixel values (B, 3, H, W), float, in the tower's dtype and on its device."""
        pixels: Tensor = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self._patch_weight.dtype)

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> TowerPass:
        """Run the tower once on (B, 3, H, W) pixel values."""
        with self.lock:
            output = self.module(pixel_values, output_hidden_states=True, return_dict=True)
        patches = output.hidden_states[self.layer]
        if self.drops_class_token:
            patches = patches[:, 1:]
        size = self._config.patch_size
        grid = (pixel_values.shape[-2] // size, pixel_values.shape[-1] // size)
        if patches.shape[1] != grid[0] * grid[1]:
            raise BackboneError(
                f"the tower gave {patches.shape[1]} positions for a {grid[0]} x {grid[1]} patch grid; "
                "check `vision_feature_select_strategy` ('default' drops a class token, 'full' drops none)"
            )
        return TowerPass(patches, grid, pixel_values, output)

    @contextmanager
    def replay(self, passed: TowerPass, rows: Sequence[int]) -> Iterator[None]:
        """Within the context the tower, wherever it is called, gives back these rows of an earlier pass."""
        chosen = torch.as_tensor(list(rows), dtype=torch.long, device=passed.patches.device)

        def select(value: Any, index: Tensor) -> Any:
            if isinstance(value, Tensor):
                whole = torch.equal(index, torch.arange(value.shape[0], device=index.device))
                return value if whole else value.index_select(0, index)
            return tuple(select(part, index) for part in value) if isinstance(value, tuple) else value

        def forward(pixel_values: Tensor, *_: Any, **__: Any) -> Any:
            repeats, rest = divmod(pixel_values.shape[0], len(chosen))
            if rest or not repeats:
                raise BackboneError(
                    f"the backbone asked for {pixel_values.shape[0]} images, {len(chosen)} were scored; "
                    "pass the same images to both"
                )
            index = chosen.repeat_interleave(repeats)  # beams: some versions repeat the images with the rows
            output = copy.copy(passed.output)  # families write into the output that they get
            for name in list(output.keys()):
                output[name] = select(output[name], index)
            return output

        with self.lock:
            before = vars(self.module).get("forward")  # accelerate puts its own there
            self.module.forward = forward
            try:
                yield
            finally:
                if before is None:
                    del self.module.forward
                else:
                    self.module.forward = before
