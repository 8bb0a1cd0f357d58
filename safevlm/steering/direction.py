"""A steering direction as a value: which rows, of which layers, on which axis, of which model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from safevlm import checkpoint
from safevlm.backbone import Backbone, same_weights
from safevlm.config import MAX_LAYERS, is_number, read_json
from safevlm.errors import CheckpointError, brief
from safevlm.files import write_bytes
from safevlm.taxonomy import check_fields, check_text

Axis = Literal["harmful_query", "jailbroken_behaviour"]
"""What is positive: a harmful query (raise it to refuse), or an answer that a jailbreak got (lower it to refuse)."""

SCHEMA_VERSION = 1
CONFIG, WEIGHTS = "direction.json", "direction.safetensors"
ORTHONORMAL = 1e-4
"""How far rows . rows^T may be from the identity, per element; float32 rows of an SVD stay within 1e-6."""
MAX_WIDTH = 1 << 20
"""Bound of the rows' width; the widest LLMs have fewer than 20,000."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """For each layer of an LLM the subspace in which harmful and harmless prompts differ.

    Args:
        rows: index in `Backbone.decoder_layers`, from 0 -> (m, d) float32 orthonormal rows. They are about the
            states at that layer's output. The first row is the main one, and positive along it is harmful.
        singular_values: the same layers -> (m,) float32, descending, at least 0.
        axis: what "harmful" is the property of.
        model_type: of the backbone it was fitted on.
        fingerprint: `Backbone.language_fingerprint` of that backbone.
        pairs_sha256: of the texts it was fitted on, 64 hex digits.
        position: of the token whose state was read.
        layers: those chosen for steering, ascending; at least one.
        separation: layer -> AUROC in [0, 1] of the states' projections on the first row, over held-out pairs.

    Raises:
        ValueError: a value that is not as stated.
    """

    rows: Mapping[int, Tensor]
    singular_values: Mapping[int, Tensor]
    axis: Axis
    model_type: str
    fingerprint: tuple[float, ...]
    pairs_sha256: str
    position: Literal["last"] = "last"
    layers: tuple[int, ...]
    separation: Mapping[int, float]

    def __post_init__(self) -> None:
        if self.axis not in get_args(Axis):
            raise ValueError(f"axis is {brief(self.axis)}, one of {', '.join(get_args(Axis))} is needed")
        if self.position != "last":
            raise ValueError(f"position is {brief(self.position)}; the last token's is the only one known")
        if not re.fullmatch("[0-9a-f]{64}", self.pairs_sha256):
            raise ValueError(f"pairs_sha256 is {brief(self.pairs_sha256)}, 64 hex digits are needed")
        if not self.rows or set(self.rows) != set(self.singular_values):
            raise ValueError("rows and singular_values need the same layers, at least one")
        for layer, rows in self.rows.items():
            _check_rows(layer, rows, self.singular_values[layer], like=next(iter(self.rows.values())))
        self._check_layers()

    def _check_layers(self) -> None:
        known = f"the direction has {brief(sorted(self.rows))}"
        if min(self.rows) < 0:
            raise ValueError(f"layers count from 0; {known}")
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers are {brief(self.layers)}; give at least one, ascending")
        for name, layers in (("layers", self.layers), ("separation", self.separation)):
            if foreign := sorted(set(layers) - set(self.rows)):
                raise ValueError(f"{name} has layer {foreign[0]}, which is out of range: {known}")
        for layer, value in self.separation.items():
            if not is_number(value) or not 0 <= value <= 1:
                raise ValueError(
                    f"separation of layer {layer} is {brief(value)}, a number in [0, 1] is needed"
                )

    @property
    def rank(self) -> int:
        """m: rows of each layer."""
        return int(next(iter(self.rows.values())).shape[0])

    @property
    def width(self) -> int:
        """d: of the LLM's states."""
        return int(next(iter(self.rows.values())).shape[1])

    def check_axis(self, axis: Axis) -> None:
        """Raise CheckpointError where the direction is on another axis, along which refusing is the other way."""
        if axis != self.axis:
            raise CheckpointError(
                f"the direction's axis is {self.axis}, the method needs {axis}: refusal lies the other way on it; "
                f"fit one with --axis {axis}"
            )

    def check_fits(self, backbone: Backbone) -> None:
        """Raise CheckpointError unless the direction was fitted on this LLM; BackboneError where it has no layers.

        LoRA layers on it, and its dtype, may be others.
        """
        layers = len(backbone.decoder_layers)
        remedy = (
            f"use it with the model it was fitted on, or fit one: safevlm steer fit --model {backbone.name}"
        )
        for name, own, found in (
            ("model_type", self.model_type, backbone.model_type),
            ("width", self.width, backbone.text_dim),
        ):
            if own != found:
                raise CheckpointError(f"the direction's {name} is {own}, the backbone's is {found}; {remedy}")
        if max(self.rows) >= layers or len(self.fingerprint) != len(backbone.language_fingerprint):
            raise CheckpointError(
                f"the backbone has {layers} decoder layers, not those of the direction; {remedy}"
            )
        if not same_weights(self.fingerprint, backbone.language_fingerprint):
            raise CheckpointError(f"the backbone's LLM has other weights than the direction's; {remedy}")

    def save(self, folder: str | Path) -> None:
        """Write `direction.safetensors` and `direction.json`; each file appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"rows.{layer}": rows for layer, rows in self.rows.items()}
        tensors |= {f"singular_values.{layer}": values for layer, values in self.singular_values.items()}
        data = checkpoint.tensor_bytes(tensors)
        write_bytes(folder / WEIGHTS, data)
        head = {**self._head(), "tensors_sha256": hashlib.sha256(data).hexdigest()}
        write_bytes(folder / CONFIG, (json.dumps(head, indent=2) + "\n").encode())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary of everything but the rows, singular values as lists."""
        values = {str(layer): self.singular_values[layer].tolist() for layer in sorted(self.rows)}
        return {**self._head(), "singular_values": values}

    def _head(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "axis": self.axis,
            "position": self.position,
            "model_type": self.model_type,
            "fingerprint": list(self.fingerprint),
            "pairs_sha256": self.pairs_sha256,
            "rank": self.rank,
            "width": self.width,
            "fitted_layers": sorted(self.rows),
            "layers": list(self.layers),
            "separation": {str(layer): value for layer, value in sorted(self.separation.items())},
        }

    @classmethod
    def load(cls, folder: str | Path) -> Direction:
        """Read what `save` wrote.

        Raises:
            CheckpointError: a file is missing, malformed, of a newer schema version, or not of the same save.
        """
        path = Path(folder) / CONFIG
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no {CONFIG}: it is no direction; make one with `safevlm steer fit`"
            )
        try:
            return cls._from_dict(_values(read_json(checkpoint.config_text(path))), Path(folder) / WEIGHTS)
        except (ValueError, TypeError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise CheckpointError(f"{path}: {error}; fit the direction again") from error

    @classmethod
    def _from_dict(cls, values: dict[str, Any], path: Path) -> Direction:
        tensors = _read(path, values.pop("tensors_sha256"), values)
        fitted = values.pop("fitted_layers")
        del values["schema_version"], values["rank"], values["width"]
        return cls(
            **values,
            rows={layer: tensors[f"rows.{layer}"] for layer in fitted},
            singular_values={layer: tensors[f"singular_values.{layer}"] for layer in fitted},
        )


def _check_rows(layer: int, rows: Tensor, values: Tensor, *, like: Tensor) -> None:
    """Raise ValueError unless a layer's rows and singular values are as `Direction` states."""
    if rows.ndim != 2 or rows.shape != like.shape or values.shape != rows.shape[:1] or not len(rows):
        raise ValueError(
            f"layer {layer} has rows {tuple(rows.shape)} and singular values {tuple(values.shape)}; every layer "
            "needs rows (m, d) of the same size and singular values (m,)"
        )
    if rows.dtype != torch.float32 or values.dtype != torch.float32:
        raise ValueError(f"layer {layer} is {rows.dtype} and {values.dtype}; a direction is float32")
    if not bool(torch.isfinite(rows).all() & torch.isfinite(values).all()):
        raise ValueError(f"layer {layer} has values that are not finite")
    if float((rows @ rows.T - torch.eye(len(rows), device=rows.device)).abs().max()) > ORTHONORMAL:
        raise ValueError(f"the rows of layer {layer} are not orthonormal")
    if bool((values < 0).any() | (values.diff() > 0).any()):
        raise ValueError(f"the singular values of layer {layer} are negative or do not descend")


def _values(values: Any) -> dict[str, Any]:
    """The fields of `direction.json`, each of its type; raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {brief(values.get('schema_version'))}, this safevlm reads {SCHEMA_VERSION}; "
            "run: pip install -U safevlm"
        )
    texts = {"axis", "position", "model_type", "pairs_sha256", "tensors_sha256"}
    lists = {"fingerprint", "fitted_layers", "layers"}
    check_fields(
        "the direction", values, texts | lists | {"schema_version", "rank", "width", "separation"}, set()
    )
    for name in texts:
        check_text(name, values[name])
    for name in lists:
        if not isinstance(values[name], list) or not all(is_number(number) for number in values[name]):
            raise ValueError(f"{name} is {brief(values[name])}, a list of numbers is needed")
    whole = [values["rank"], values["width"], *values["fitted_layers"], *values["layers"]]
    if not all(type(number) is int and 0 <= number <= MAX_WIDTH for number in whole):
        raise ValueError("rank, width and layers are whole numbers from 0")
    if not 0 < len(set(values["fitted_layers"])) == len(values["fitted_layers"]) <= MAX_LAYERS:
        raise ValueError(
            f"fitted_layers is {brief(values['fitted_layers'])}, layers without a repetition are needed"
        )
    return {
        **values,
        "fingerprint": tuple(map(float, values["fingerprint"])),
        "layers": tuple(values["layers"]),
        "separation": _separation(values["separation"]),
    }


def _separation(values: Any) -> dict[int, Any]:
    """JSON has no whole numbers as keys."""
    if not isinstance(values, dict) or not all(re.fullmatch(r"0|[1-9][0-9]{0,5}", key) for key in values):
        raise ValueError(f"separation is {brief(values)}, an object of layers is needed")
    return {int(key): value for key, value in values.items()}


def _read(path: Path, sha256: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a direction's file, which must be the one that its JSON was written with."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; restore it, or fit the direction again")
    rank, width = values["rank"], values["width"]
    expected = {f"rows.{layer}": torch.Size([rank, width]) for layer in values["fitted_layers"]}
    expected |= {f"singular_values.{layer}": torch.Size([rank]) for layer in values["fitted_layers"]}
    tensors = checkpoint.read_tensors(path, expected)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise CheckpointError(
            f"{path} is not the file that its {CONFIG} was written with; restore both from one save"
        )
    return tensors
