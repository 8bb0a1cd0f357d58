"""ASTRA: states are pushed off the direction of jailbroken behaviour, as far as they lie along it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from safevlm.backbone import Backbone

from .batch import Batch
from .cmrm import BLANK
from .direction import Direction
from .extract import auroc, choose_layers, principal_rows
from .hooks import Change, Method, Plan, Positions, Step
from .layers import Layers, pick_layers
from .states import last_states
from .vectors import LayerVectors


@dataclass(frozen=True, eq=False)
class Astra(Method):
    """Adaptive steering (ASTRA, arXiv 2411.16721), with v a layer's first row and h0 a calibration mean::

        h* = h - strength * |h| * max(cos(h - h0, v), 0) * v

    The direction is the other axis than VLM-Guard's: jailbroken minus not jailbroken behaviour, and lowering it
    makes a model refuse. ASTRA takes it from attribution of adversarial images; here it may come from any
    pairs of that axis.

    Args:
        direction: on the axis `jailbroken_behaviour`.
        centre: h0, the mean state of ordinary prompts (`fit_centre`); an uncentred cosine would be ruled by the offset
            that all states share. None: 0.
        layers: steered. The paper's is one, in the middle of the decoder; None: the best of those that the direction chose,
            by its separation.
        strength: the paper's alpha; its values differ by model, 1 removes the part of a state that lies along v where h0 is 0.
        positions: "last", with steps "every" the last position of each forward pass, as in the paper.
    """

    direction: Direction
    centre: LayerVectors | None = None
    layers: Layers | None = None
    positions: Positions = field(default="last", kw_only=True)

    @classmethod
    def fit(
        cls,
        backbone: Backbone,
        harmful: Sequence[str],
        ordinary: Sequence[str],
        *,
        image: Image.Image = BLANK,
    ) -> Astra:
        """From what an image does to harmful prompts that the LLM refuses as text.

        The jailbroken states are those of the prompts behind the image, the others those without it, in place of the
        paper's attribution of adversarial images. Every third prompt is held out to choose the layer.

        Args:
            harmful: at least 3 prompts.
            ordinary: harmless ones, whose mean state is the centre.
            image: that the prompts are put behind.

        Raises:
            ValueError: too few prompts, or states that do not differ or are not finite.
        """
        if len(harmful) < 3:
            raise ValueError(f"{len(harmful)} harmful prompts; give at least 3, of which one is held out")
        shown, alone = (last_states(backbone, harmful, image=given) for given in (image, None))
        held_out = torch.arange(len(harmful)) % 3 == 2
        rows, values, separation = {}, {}, {}
        for layer, (one, other) in enumerate(zip(shown, alone, strict=True)):
            rows[layer], values[layer] = principal_rows((one - other)[~held_out], rank=1, layer=layer)
            separation[layer] = auroc(one[held_out] @ rows[layer][0], other[held_out] @ rows[layer][0])
        texts = hashlib.sha256(json.dumps(list(harmful)).encode()).hexdigest()
        direction = Direction(
            rows=rows,
            singular_values=values,
            axis="jailbroken_behaviour",
            model_type=backbone.model_type,
            fingerprint=backbone.language_fingerprint,
            pairs_sha256=texts,
            layers=choose_layers(separation),
            separation=separation,
        )
        return cls(direction, fit_centre(backbone, ordinary))

    def check(self, backbone: Backbone) -> None:
        """Raise CheckpointError for a direction or centre of another axis or model, ValueError for its layers."""
        self.direction.check_axis("jailbroken_behaviour")
        self.direction.check_fits(backbone)
        picked = self._picked(backbone)
        if self.centre is not None:
            self.centre.check_fits(backbone)
            if missing := [layer for layer in picked if layer not in self.centre.values]:
                raise ValueError(
                    f"the centre has no vector for layer {missing[0]}; fit it with the same layers"
                )

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """Set up the layers' changes; no pass is run."""
        changes = {layer: self._change(layer) for layer in self._picked(backbone)}
        return Plan(changes, torch.ones(len(batch), dtype=torch.bool))

    def _picked(self, backbone: Backbone) -> tuple[int, ...]:
        if self.layers is not None:
            return pick_layers(self.layers, backbone, self.direction)
        separation = self.direction.separation
        return (max(self.direction.layers, key=lambda layer: separation.get(layer, 0.0)),)

    def _change(self, layer: int) -> Change:
        main = self.direction.rows[layer][0]
        origin = torch.zeros_like(main) if self.centre is None else self.centre.values[layer]

        def change(states: Tensor, _: Step) -> Tensor:
            own = main.to(states.device)
            cosine = functional.cosine_similarity(states - origin.to(states.device), own, dim=-1)
            size: Tensor = states.norm(dim=-1) * cosine.clamp_min(0.0)
            return -size.unsqueeze(-1) * own

        return change


def fit_centre(backbone: Backbone, prompts: Sequence[str], layers: Layers = "all") -> LayerVectors:
    """Mean state of the prompts' last tokens at each layer, for `Astra`.

    Raises:
        ValueError: no prompts, layers out of range, or states that are not finite.
    """
    states = last_states(backbone, prompts)
    means = {layer: states[layer].mean(dim=0) for layer in pick_layers(layers, backbone)}
    return LayerVectors(means, backbone.language_fingerprint)
