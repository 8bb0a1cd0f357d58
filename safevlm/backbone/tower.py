"""The vision tower: images -> patch features, in one pass that the backbone's own code can reuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.errors import BackboneError

from .families import Family, TowerInputs
from .fingerprint import fingerprint
from .fold_norms import fold_batch_norms
from .layer import layers_read
from .preprocessor import Preprocessor
from .tower_lock import TowerLock, lock_of
from .tower_pass import ReplayedForward, TowerPass
from .views import Grid, Views


@contextmanager
def _taken(layer: nn.Module | None, lock: TowerLock) -> Iterator[list[Tensor]]:
    """Within the context a layer's output is taken, into the list."""
    found: list[Tensor] = []
    if layer is None:
        yield found
        return

    def take(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(take)
    with lock.undoing(handle.remove):
        yield found


class VisionTower:
    """A frozen vision tower with its image processor.

    Args:
        module: the Hugging Face vision model.
        image_processor: makes pixel values of images.
        family: how images reach it and what is read.
        layer: index of the hidden state to read, as the backbone's config has it; None: the tower's own output.
        depth: layers of the whole tower, of which the module may have the first alone.
        deepest: how many of its layers the backbone's own code reads; None: all.
        drops_class_token: whether its first position is dropped.
        llm_layers: hidden states that the backbone's own code reads; empty: the tower's own output.
    """

    def __init__(
        self,
        module: nn.Module,
        image_processor: Any,
        *,
        family: Family,
        layer: int | None,
        depth: int | None,
        deepest: int | None,
        drops_class_token: bool,
        llm_layers: Sequence[int] = (),
    ) -> None:
        self.module = module
        self.image_processor = image_processor
        self.family = family
        self.layer = layer
        self.depth = depth
        self.deepest = deepest
        self.drops_class_token = drops_class_token
        self.llm_layers = tuple(llm_layers)
        self._compiled: Any = None
        self._fingerprint: tuple[float, ...] | None = None
        self.lock = lock_of(module)

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in vars(self).items() if name != "lock"}, "_compiled": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = lock_of(self.module)

    def compile(self, **options: Any) -> None:
        """Run through `torch.compile`, whose arguments these are; the module itself stays as it is."""
        self._compiled = torch.compile(self.module, **options)

    def fold_norms(self) -> None:
        """Fold BatchNorms into convolutions and lay these out channels-last; features stay equal to 1e-4, relative.

        For inference alone, in place: the weights are then no longer those of the files.
        """
        if self.family.folds_norms:
            self._fingerprint = self.fingerprint
            inputs = self.on_device(self.preprocess([Image.new("RGB", (64, 64))]))
            fold_batch_norms(self.module, inputs.tensors["pixel_values"])
            self.module.to(memory_format=torch.channels_last)

    @property
    def model_type(self) -> str:
        """`model_type` of the tower's own config."""
        return str(self._config.model_type)

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.family.feature_dim(self._config)

    @property
    def _config(self) -> Any:
        return self.module.config

    @property
    def device(self) -> torch.device:
        """Where the tower runs."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in."""
        return next(self.module.parameters()).dtype

    @property
    def fingerprint(self) -> tuple[float, ...]:
        """What tells one tower from another: a number for each of its matrices up to the layer that is read.

        Of the weights as they were loaded, also where `fold_norms` has changed them since.
        """
        return self._fingerprint or fingerprint(self.family.matrices(self.module, self.layers_read))

    @property
    def layers_read(self) -> int | None:
        """How many of its layers the features depend on; None where its whole output is read."""
        if self.layer is None or self.depth is None:
            return None
        return layers_read(self.layer, self.depth)

    @property
    def preprocessor(self) -> Preprocessor:
        """What makes the tower's inputs of images."""
        return Preprocessor(self.family, self.image_processor, self.dtype)

    def preprocess(self, images: Sequence[Image.Image]) -> TowerInputs:
        """RGB images -> the tower's inputs, in its dtype and on the CPU; any thread may call it."""
        inputs = self.preprocessor.preprocess(images)
        if self.device.type != "cuda":
            return inputs
        # pinned, so that the copy to the device does not wait
        return replace(inputs, tensors={name: t.pin_memory() for name, t in inputs.tensors.items()})

    def on_device(self, inputs: TowerInputs) -> TowerInputs:
        """The inputs where the tower is; the copy may still be under way, later work on the device waits for it."""
        tensors = {
            name: tensor.to(
                self.device, self.dtype if tensor.is_floating_point() else None, non_blocking=True
            )
            for name, tensor in inputs.tensors.items()
        }
        return replace(inputs, tensors=tensors)

    @torch.no_grad()
    def __call__(self, inputs: TowerInputs, *, for_replay: bool = True) -> TowerPass:
        """Run the tower once, on inputs of `preprocess`.

        Args:
            for_replay: whether the pass keeps every hidden state; scoring needs one, and its memory.
        """
        inputs = self.on_device(inputs)
        arguments = dict(self.family.tower_arguments(inputs.tensors, self._config))
        pixels = arguments.pop("pixel_values")
        last = None if for_replay or self._compiled is not None else self._last_layer()
        run = self.module if self._compiled is None else self._compiled
        states = self.layer is not None and last is None
        with self.lock, self._stopping(), _taken(last, self.lock) as taken:
            output = run(pixels, **arguments, output_hidden_states=states, return_dict=True)
        if taken:
            output["last_hidden_state"] = taken[0]
        layer = None if taken else self.layers_read
        features = self.family.features(output, layer=layer, drops_class_token=self.drops_class_token)
        return TowerPass(self._views(inputs, features, output, pixels), inputs.rows, output, pixels)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Within the context the layers that nothing reads pass on what they get, and cost nothing."""
        skipped = self._unread_layers()

        def undo() -> None:
            for layer in skipped:
                vars(layer).pop("forward", None)

        with self.lock.undoing(undo):
            for layer in skipped:
                # its hooks still run, so that the hidden states keep their places
                layer.forward = _pass_on
            yield

    def _unread_layers(self) -> list[nn.Module]:
        """Layers behind the deepest that is read; none where the module has the first layers alone."""
        return [] if self.deepest is None else self._stack(self.depth)[self.deepest :]

    def _last_layer(self) -> nn.Module | None:
        """The layer whose output is read; None where that is not the output of one layer."""
        read = self.layers_read
        stack = self._stack(self.depth) or self._stack(read) if read else []
        return stack[read - 1] if stack and read else None

    def _stack(self, depth: int | None) -> list[nn.Module]:
        """The module's one stack of so many layers; empty where there is none or accelerate has put its own forward there."""
        stacks = [m for m in self.module.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        plain = len(stacks) == 1 and not any("forward" in vars(layer) for layer in stacks[0])
        return list(stacks[0]) if plain else []

    def _views(self, inputs: TowerInputs, features: Tensor, output: Any, pixels: Tensor) -> Views:
        owners = tuple(image for image, boxes in enumerate(inputs.boxes) for _ in boxes)
        boxes = tuple(box for part in inputs.boxes for box in part)
        if inputs.grids is not None:
            parts = features.split([h * w for h, w in inputs.grids])
            return Views.gather(list(zip(parts, inputs.grids, strict=True)), owners, boxes)
        grid = self.family.grid(pixels, self._config, output)
        assert grid is not None  # the output is given
        if features.shape[1] != grid[0] * grid[1]:
            raise BackboneError(
                f"the tower gave {features.shape[1]} positions for a {grid[0]} x {grid[1]} patch grid; "
                "check `vision_feature_select_strategy` ('default' drops a class token, 'full' drops none)"
            )
        return Views.of_one_grid(features, grid, owners, boxes)

    def positions(self, inputs: TowerInputs) -> int:
        """How many patch features the inputs' images will have, all together.

        The tower is not run, but for one image where only its output tells its grid.
        """
        if inputs.grids is not None:
            return sum(h * w for h, w in inputs.grids)
        arguments = self.family.tower_arguments(inputs.tensors, self._config)
        grid = self.family.grid(arguments["pixel_values"], self._config)
        if grid is None:
            first = replace(
                inputs,
                tensors={k: t[:1] for k, t in inputs.tensors.items()},
                rows=(1,),
                boxes=inputs.boxes[:1],
            )
            (grid,) = (group.grid for group in self(first, for_replay=False).views.groups)
        h, w = grid
        return h * w * sum(len(boxes) for boxes in inputs.boxes)

    @property
    def states(self) -> int:
        """How many features each position has in what `pack` keeps."""
        return self.family.llm_states(self._llm_reads, self._config)

    def pack(self, passed: TowerPass) -> Views:
        """All that the LLM reads of a pass, to be kept for `unpack`: per position, the features and what else it reads."""
        found = self.family.llm_features(
            passed.output, layers=self._llm_reads, drops_class_token=self.drops_class_token
        )
        whole, grids = torch.cat(found, dim=-1), [grid for _, grid in passed.views]
        parts = whole.split([h * w for h, w in grids]) if self.family.packed else whole
        return Views.gather(list(zip(parts, grids, strict=True)), passed.views.owners, passed.views.boxes)

    def unpack(self, views: Views) -> TowerPass:
        """A pass made of what `pack` kept, for `replay`; the tower is not run.

        Args:
            views: in any float dtype, on any device.
        """
        kept = [(features.to(self.device, self.dtype), grid) for features, grid in views]
        parts = [features for features, _ in kept]
        whole = torch.cat(parts) if self.family.packed else torch.stack(parts)
        output = self.family.output_of(
            whole.split(self.dim, dim=-1),
            layers=self._llm_reads,
            depth=self.depth,
            drops_class_token=self.drops_class_token,
            grid=None if self.family.packed else kept[0][1],
        )
        own: list[list[Grid]] = [[] for _ in range(len(views))]
        for owner, (_, grid) in zip(views.owners, kept, strict=True):
            own[owner].append(grid)
        rows = tuple(self.family.rows_of(grids, self._config) for grids in own)
        read = [(features[:, : self.dim], grid) for features, grid in kept]
        return TowerPass(Views.gather(read, views.owners, views.boxes), rows, output, self._blank(len(views)))

    @property
    def _llm_reads(self) -> tuple[int | None, ...]:
        """The hidden state that is read, then the others that the LLM reads; None: the tower's own output."""
        return (self.layer, *(layer for layer in self.llm_layers if layer != self.layer))

    def _blank(self, images: int) -> Tensor:
        """Pixels of the size that images have, for a backbone that asks for replayed features."""
        if not self.family.reads_prepared:
            return torch.empty(0)  # made of the images themselves
        pixels = self.preprocess([Image.new("RGB", (64, 64))]).tensors["pixel_values"]
        return pixels.new_zeros(()).expand(images, *pixels.shape[1:])

    @contextmanager
    def replay(self, passed: TowerPass, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
        """Within the context the tower, wherever it is called, gives back an earlier pass's output.

        Args:
            passed: the earlier pass.
            prompts: per prompt, the images of the pass that the backbone is about to ask for, in order.
        """
        with self.lock:
            before = vars(self.module).get("forward")  # accelerate puts its own there

            def undo() -> None:
                if before is None:
                    vars(self.module).pop("forward", None)
                else:
                    self.module.forward = before

            replayed = ReplayedForward(passed, prompts, self.family)
            with self.lock.undoing(undo):
                self.module.forward = replayed
                yield


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    """Stands in for a layer that nothing reads; one function, so that compiled code is not compiled again."""
    return hidden_states
