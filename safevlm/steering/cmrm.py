"""CMRM: takes back the shift that an image gives the states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from safevlm.backbone import Backbone
from safevlm.errors import UndecidedGateError

from .batch import Batch
from .hooks import Change, Method, Plan, Step
from .layers import Layers, pick_layers
from .states import last_states, prefill_states
from .vectors import LayerVectors

BLANK = Image.new("RGB", (336, 336), "white")
"""The image without content; 336 pixels is the side that LLaVA-1.5's tower reads."""


@dataclass(frozen=True, eq=False)
class CMRM(Method):
    """Subtracts the modality shift (CMRM, arXiv 2410.09047)::

        shift = h(x, blank image) - h(x)        of the last token, at each layer
        h*    = h - strength * shift            strength 1 in the paper's tables

    At the dataset level the shift is the mean over some prompts (`fit`), and costs nothing. At the sample level it is
    the prompt's own, and costs two more prefills: the prompt with the blank image, and without an image. A
    prompt without an image has no shift: its states stay as they are.

    Args:
        shift: of the dataset; None: the sample level.
        image: that stands in for each of the prompt's images at the sample level; white by default, as a blank image
            is enough to open the gap (arXiv 2502.10486), noise being the other choice that the paper names.
        layers: steered; "all" in the paper.
        strength: the paper's alpha.
        positions: "all" by default, since every position behind an image has the shift; "last" is the other reading.
        steps: "every" by default: decoded tokens attend to the image, too.
    """

    shift: LayerVectors | None = None
    image: Image.Image = field(default_factory=BLANK.copy)
    layers: Layers = "all"

    @classmethod
    def fit(
        cls, backbone: Backbone, prompts: Sequence[str], *, image: Image.Image = BLANK, layers: Layers = "all"
    ) -> CMRM:
        """The dataset level: the mean shift over prompts.

        Raises:
            ValueError: no prompts, layers out of range, or states that are not finite.
        """
        picked = pick_layers(layers, backbone)
        shown, alone = (last_states(backbone, prompts, image=given) for given in (image, None))
        shift = {layer: (shown[layer] - alone[layer]).mean(dim=0) for layer in picked}
        return cls(LayerVectors(shift, backbone.language_fingerprint), image, layers)

    def check(self, backbone: Backbone) -> None:
        """Raise CheckpointError for a shift of another model, ValueError for layers out of range."""
        picked = pick_layers(self.layers, backbone)
        if self.shift is not None:
            self.shift.check_fits(backbone)
            if missing := [layer for layer in picked if layer not in self.shift.values]:
                raise ValueError(
                    f"the shift has no vector for layer {missing[0]}; fit it with the same layers"
                )

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """At the sample level, run the two passes; set up the layers' changes."""
        rows = torch.zeros(len(batch), dtype=torch.bool)
        rows[batch.with_images] = True
        if not batch.with_images:
            return Plan({}, rows)
        picked = pick_layers(self.layers, backbone)
        if self.shift is not None:
            shifts = {layer: self.shift.values[layer].expand(len(batch), -1) for layer in picked}
        else:
            shifts = self._of_samples(backbone, batch, picked)
        return Plan({layer: _minus(shift) for layer, shift in shifts.items()}, rows)

    def _of_samples(self, backbone: Backbone, batch: Batch, picked: Sequence[int]) -> dict[int, Tensor]:
        """Layer -> (B, d) float32, zeros for prompts without an image."""
        own = batch.with_images
        shown = prefill_states(backbone, batch.with_other(backbone, own, self.image).inputs)
        alone = prefill_states(backbone, batch.texts(backbone, own).inputs)
        shifts = {}
        for layer in picked:
            difference = shown[layer] - alone[layer]
            if not bool(difference.isfinite().all()):
                bad = (~difference.isfinite().all(dim=1)).nonzero().flatten().tolist()
                raise UndecidedGateError([own[row] for row in bad], f"the shifts at decoder layer {layer}")
            shifts[layer] = difference.new_zeros(len(batch), difference.shape[1])
            shifts[layer][own] = difference
        return shifts


def _minus(shift: Tensor) -> Change:
    def change(states: Tensor, step: Step) -> Tensor:
        return -step.spread(shift.to(states.device)).unsqueeze(1)

    return change
