"""VLM-Guard: the text pass of a prompt is the teacher of its pass with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safevlm.backbone import Backbone
from safevlm.errors import UndecidedGateError

from .batch import Batch
from .harm_axis import HarmAxisMethod
from .hooks import Change, Plan, Step
from .states import prefill_states


@dataclass(frozen=True, eq=False)
class VLMGuard(HarmAxisMethod):
    """Projection, gate and re-injection (VLM-Guard, arXiv 2502.10486, sections 2 and 3 of its method).

    With V (m, d) a layer's orthonormal rows, v_1 its first row (positive = harmful), Q the prompt with its image,
    q the same prompt without, whose last token's state is h(q)::

        g     = 1 if h(q) . v_1 > 0 else 0
        h*(Q) = h(Q) - h(Q) V^T V + alpha * g * h(q) V^T V        base="projected"
        h*(Q) = h(Q)              + alpha * g * h(q) V^T V        base="raw"

    The text pass is one more prefill, without image tokens, once per request and for all layers; it reads all of the
    prompt's words, a policy's hint included. A prompt without an image is its own teacher: its states stay as they are.

    Args:
        direction, rank: as in `HarmAxisMethod`.
        alpha: factor of what is put back, above 0: at 0 the method would only take the harmful reading away, which is
            `Projection`. The paper's value is not known to us; 1 puts back what the text pass has.
        base: what is put back to. "projected" fits the paper's abstract, which takes the reading that the image
            disturbed away first; the formula can also be read as "raw", which leaves benign prompts untouched.
        layers: as in `HarmAxisMethod`; the paper's are not known to us.
        strength: factor of the whole change, h + strength * (h* - h); 1 is the method.
        positions: "all" positions of the prompt, as the image disturbs each that follows it, or the "last" alone.
        steps: "every" decoded token too, so that an answer cannot drift back, or the "prefill" alone, which spares the
            answer's words: what is put back is read where an answer begins.

    Raises:
        ValueError: a parameter out of its range.
    """

    alpha: float = 1.0
    base: Literal["projected", "raw"] = "projected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < float("inf"):
            raise ValueError(
                f"alpha is {self.alpha}; give a number above 0, or use Projection, which puts nothing back and weakens refusals"
            )
        if self.base not in ("projected", "raw"):
            raise ValueError(f"base is {self.base!r}, one of projected, raw is needed")

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """Run the text pass of the prompts with images, and set up the layers' changes."""
        rows = torch.zeros(len(batch), dtype=torch.bool)
        rows[batch.with_images] = True
        if not batch.with_images:
            return Plan({}, rows)
        teacher = prefill_states(backbone, batch.texts(backbone, batch.with_images).inputs)
        return Plan(
            {layer: self._change(layer, teacher[layer], batch) for layer in self.picked(backbone)}, rows
        )

    def _change(self, layer: int, teacher: Tensor, batch: Batch) -> Change:
        rows = self.rows(layer).to(teacher.device)
        coordinates = teacher @ rows.T
        unknown = ~coordinates.isfinite().all(dim=1)
        if bool(unknown.any()):
            bad = [row for row, is_bad in zip(batch.with_images, unknown.tolist(), strict=True) if is_bad]
            raise UndecidedGateError(bad, f"the text pass's states of decoder layer {layer}")
        gates = coordinates[:, :1] > 0
        target = teacher.new_zeros(len(batch), 1, rows.shape[1])
        target[batch.with_images, 0] = self.alpha * gates * coordinates @ rows

        def change(states: Tensor, step: Step) -> Tensor:
            given = step.spread(target.to(states.device))
            if self.base == "raw":
                return given
            own = rows.to(states.device)
            return given - states @ own.T @ own

        return change
