"""What differs between families: where the parts are, how images reach the tower, what the LLM reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from safevlm.errors import BackboneError

from ..fingerprint import read_matrices
from ..views import WHOLE, Box, Grid
from .agree import agree_on_image_token
from .view_box import view_box


@dataclass(frozen=True)
class TowerInputs:
    """What a tower is called with for a batch of images.

    Args:
        tensors: the tower's arguments by name, `pixel_values` first; rows of all images one after another.
        rows: per image, its rows in `pixel_values`: one, its tiles, or (packed) its patches.
        grids: per image, (h, w) of its features where the tower packs images; None where every row
            is a view of one size.
        boxes: per image, where each of its views lies in it.
    """

    tensors: dict[str, Tensor]
    rows: tuple[int, ...]
    grids: tuple[Grid, ...] | None
    boxes: tuple[tuple[Box, ...], ...]


class Family:
    """A family's answers; the defaults are those of most: one view per image, read after the tower's last layer."""

    tower: ClassVar[str] = "model.vision_tower"
    """Attribute path of the vision tower from the model's root."""
    tower_keys: ClassVar[tuple[str, ...]] = ("vision_tower.", "model.vision_tower.")
    """Prefixes of the tower's tensors in checkpoint files, tried in order."""
    embedding_keys: ClassVar[tuple[str, ...]] = (
        "language_model.model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "language_model.embed_tokens.weight",
        "model.embed_tokens.weight",
    )
    """Names of the input embedding table in checkpoint files, tried in order."""
    chat_template: ClassVar[str | None] = None
    """For processors that have none."""
    nested_images: ClassVar[bool] = False
    """Whether the processor wants one list of images per row of text."""
    reads_prepared: ClassVar[bool] = False
    """Whether the model takes the pixel values of `prepare` as they are, one row an image."""
    answer_types: ClassVar[dict[str, int]] = {}
    """What an answer's tokens have in per-token inputs other than the mask; 0 where nothing is said."""
    packed: ClassVar[bool] = False
    """Whether the tower gets the patches of all images in one sequence."""
    scales_whole: ClassVar[bool] = True
    """Whether images are scaled as a whole to one size, and none is cut into tiles or kept larger."""
    one_length: ClassVar[bool] = False
    """Whether images of any size have as many tokens."""
    needs_bos: ClassVar[bool] = False
    """Whether prompts begin with the begin-of-sequence token, whatever the template says."""
    folds_norms: ClassVar[bool] = False
    """Whether the tower is a convolutional network whose BatchNorms fold into its convolutions for inference."""
    alone: ClassVar[bool] = False
    """Whether it is a vision tower without a language model."""

    def find_tower(self, model: nn.Module) -> nn.Module:
        """The vision tower of a loaded model."""
        return model.get_submodule(self.tower)

    def decoder_layers(self, model: Any) -> list[nn.Module]:
        """The layers of the model's text decoder, in the order in which they run.

        Args:
            model: a loaded model of the family, with LoRA layers or without.

        Raises:
            BackboneError: the decoder has no list of layers.
        """
        layers = getattr(model.get_decoder(), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise BackboneError(
                f"{type(model).__name__}: its text decoder has no list of layers; load the model with a released "
                "version of transformers, whose class has one"
            )
        return list(layers)

    def build_tower(self, vision_config: Any) -> nn.Module:
        """A tower of the family's class, from its own part of the config."""
        tower: nn.Module = AutoModel.from_config(vision_config)
        return tower

    def vision_config(self, config: Any) -> Any:
        """The tower's part of the config."""
        return config.vision_config

    def matrices(self, tower: nn.Module, layers: int | None) -> Iterable[Tensor]:
        """What the fingerprint is taken of: see `read_matrices`."""
        return read_matrices(tower, layers)

    def set_attention(self, tower: Any, name: str) -> None:
        """Compute attention as transformers' `attn_implementation` of that name; raises ValueError for others."""
        tower.set_attn_implementation(name)

    def vision_layer(self, config: Any) -> int | None:
        """Index of the hidden state that is read, negative from the end; None: the tower's own output."""
        return None

    def vision_layers(self, config: Any) -> tuple[int, ...] | None:
        """Every hidden state that the model's own code reads; None: the tower's output."""
        layer = self.vision_layer(config)
        return None if layer is None else (layer,)

    def drops_class_token(self, config: Any) -> bool:
        """Whether the first position of the tower's output is not a patch that the model uses."""
        return False

    def feature_dim(self, vision_config: Any) -> int:
        """Width of the features."""
        return int(vision_config.hidden_size)

    def prepare(self, images: Sequence[Image.Image], image_processor: Any) -> TowerInputs:
        """RGB images -> the tower's inputs; here one view per image, in one call of the processor."""
        pixels = image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        if len(pixels) != len(images):
            raise BackboneError(
                f"the image processor made {len(pixels)} views of {len(images)} images; "
                "switch its crops off (Gemma 3: `do_pan_and_scan=False`)"
            )
        boxes = tuple((view_box(image, image_processor),) for image in images)
        return TowerInputs({"pixel_values": pixels}, (1,) * len(images), None, boxes)

    def tower_arguments(self, tensors: dict[str, Tensor], vision_config: Any) -> dict[str, Tensor]:
        """What the tower's forward gets of the prepared tensors."""
        return tensors

    def features(self, output: Any, *, layer: int | None, drops_class_token: bool) -> Tensor:
        """The tower's output -> (rows, positions, dim), or (positions, dim) where it packs images."""
        read: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
        return read[:, 1:] if drops_class_token else read

    def llm_features(
        self, output: Any, *, layers: Sequence[int | None], drops_class_token: bool
    ) -> list[Tensor]:
        """All that the model's own code reads of the tower's output, each as `features` gives it.

        Args:
            layers: hidden states; None: the tower's own output.
        """
        return [self.features(output, layer=n, drops_class_token=drops_class_token) for n in layers]

    def llm_states(self, layers: Sequence[int | None], vision_config: Any) -> int:
        """How many tensors `llm_features` has."""
        return len(layers)

    def output_of(
        self,
        features: Sequence[Tensor],
        *,
        layers: Sequence[int | None],
        depth: int | None,
        drops_class_token: bool,
        grid: Grid | None,
    ) -> Any:
        """The way back from `llm_features`: a tower's output of which the model's own code reads the same.

        Args:
            depth: layers of the whole tower.
            grid: (h, w) of the features; None where the tower packs images.
        """
        states: list[Any] = [None] * (1 + (depth or 0))
        last: Tensor | None = None
        for layer, values in zip(layers, features, strict=True):
            # the model drops the first position again, whatever is there
            whole = nn.functional.pad(values, (0, 0, 1, 0)) if drops_class_token else values
            if layer is None:
                last = whole
            else:
                states[layer] = whole
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=tuple(states))

    def rows_of(self, grids: Sequence[Grid], vision_config: Any) -> int:
        """How many rows of the tower's input an image with views of these grids has."""
        return len(grids)

    def grid(self, pixels: Tensor, vision_config: Any, output: Any = None) -> Grid | None:
        """(h, w) of the features of views (n, 3, H, W); None where only the tower's output tells, and none is given."""
        size = vision_config.patch_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return pixels.shape[-2] // height, pixels.shape[-1] // width

    def rows_used(self, rows: int, *, images_in_prompt: int) -> int:
        """How many of an image's rows the LLM reads, from the first on."""
        return rows

    def text_alone(self, text: str, tokenizer: Any) -> str | None:
        """What the tokenizer gets for a row without images; None: the processor takes such rows."""
        return None

    def complete(self, processor: Any, config: Any) -> None:
        """Fill in what the processor must know of the model; raises BackboneError where the two do not fit."""
        agree_on_image_token(processor, config)

    def opening(self, processor: Any) -> str:
        """What stands in the rendered prompt where an image begins: safety tokens go directly before it."""
        return str(processor.image_token)

    def opening_id(self, processor: Any, config: Any) -> int:
        """The first token of an image in the processor's output."""
        return int(config.image_token_id)


def one_by_one(images: Sequence[Image.Image], image_processor: Any, **options: Any) -> list[dict[str, Any]]:
    """The image processor's output for each image alone, so that none is padded to another's tiles."""
    return [dict(image_processor(images=[image], return_tensors="pt", **options)) for image in images]


def tiles_of(output: dict[str, Any], key: str = "pixel_values") -> Tensor:
    """The tiles (n, ...) of one image's output, with or without a leading batch dimension."""
    found: Tensor = output[key]
    return found.flatten(0, 1) if found.ndim == (5 if key == "pixel_values" else 4) else found


def tiled(
    outputs: Sequence[dict[str, Any]],
    boxes: Sequence[tuple[Box, ...]],
    *,
    extra: dict[str, Tensor] | None = None,
) -> TowerInputs:
    """Inputs of a tower that gets every image's tiles, one after another."""
    tiles = [tiles_of(output) for output in outputs]
    rows = tuple(len(part) for part in tiles)
    for count, placed in zip(rows, boxes, strict=True):
        if count != len(placed):
            raise BackboneError(
                f"the image processor made {count} tiles of an image whose layout has {len(placed)}; "
                "report it with the processor's settings, its tiles cannot be placed"
            )
    return TowerInputs({"pixel_values": torch.cat(tiles), **(extra or {})}, rows, None, tuple(boxes))


def tile_boxes(rows: int, columns: int, frame: Box = WHOLE) -> tuple[Box, ...]:
    """Boxes of a grid of tiles over `frame`, row by row."""
    left, top, right, bottom = frame
    wide, high = (right - left) / columns, (bottom - top) / rows
    return tuple(
        (left + column * wide, top + row * high, left + (column + 1) * wide, top + (row + 1) * high)
        for row in range(rows)
        for column in range(columns)
    )
