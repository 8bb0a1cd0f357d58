"""Changes the states of an LLM's decoder layers within a `with` block, for every method.

What makes this awkward: the same layer runs over a prompt (padded, with image tokens), over one token at
a time with a cache, or over everything again without one; with beams each row of the batch comes several
times. A hook therefore knows the prompts: a run that is as long as they are begins at their first position,
a shorter one is a decoding step. Rows of beams change places within their own prompt alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from safevlm.backbone import Backbone
from safevlm.errors import BackboneError, UndecidedGateError

from .batch import Batch, hidden, last_positions

Positions: TypeAlias = Literal["all", "last"]
"""Which positions of a prompt are changed: all that are not padding, or the last one alone."""

Steps: TypeAlias = Literal["every", "prefill"]
"""Which runs are changed: the prompt's and every decoded token's, or the prompt's alone."""


@dataclass(frozen=True)
class Step:
    """One run of a layer over R rows, `repeats` for each prompt of the batch.

    Args:
        repeats: how often each prompt comes: beams, samples.
        last: (R,) int64, where each row's prompt ends; None in a decoding step.
    """

    repeats: int
    last: Tensor | None

    def spread(self, values: Tensor) -> Tensor:
        """(B, ...) of the prompts -> (R, ...) of the rows."""
        return values if self.repeats == 1 else values.repeat_interleave(self.repeats, dim=0)


Change: TypeAlias = Callable[[Tensor, Step], Tensor]
"""A layer's states (R, L, d) float32 -> what is added to them, float32, of a shape that broadcasts to theirs."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a method does with one batch.

    Args:
        changes: index in `Backbone.decoder_layers` -> the change of that layer's output.
        rows: (B,) bool, which prompts are steered; the states of the others stay as they are, bit for bit.
    """

    changes: Mapping[int, Change]
    rows: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Method(ABC):
    """A way to steer.

    Args:
        strength: factor of the whole change, at least 0; at 0 there is no hook.
        positions: of the prompt that are changed; with "all" also those of the image.
        steps: whether decoded tokens are changed, too.
    """

    strength: float = 1.0
    positions: Positions = "all"
    steps: Steps = "every"

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ValueError(
                f"strength is {self.strength}; give a number from 0 (off), 1 is the method as it is"
            )
        if self.positions not in ("all", "last") or self.steps not in ("every", "prefill"):
            raise ValueError(
                f"positions is {self.positions!r}, one of all, last; steps is {self.steps!r}, one of every, prefill"
            )

    @abstractmethod
    def check(self, backbone: Backbone) -> None:
        """Raise CheckpointError or ValueError unless the method can steer this backbone."""

    @abstractmethod
    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """What to do with a batch; passes of its own that the method needs are run here, once.

        Raises:
            UndecidedGateError: a prompt's own values are not finite.
        """


_ACTIVE: ContextVar[tuple[object, ...]] = ContextVar("safevlm_steering", default=())
"""The hooks that are in force in this thread; a new thread begins with none."""


@contextmanager
def unsteered() -> Iterator[None]:
    """Within the context the hooks of surrounding `steered` blocks do nothing in this thread."""
    before = _ACTIVE.get()
    _ACTIVE.set(())
    try:
        yield
    finally:
        _ACTIVE.set(before)


@contextmanager
def steered(backbone: Backbone, batch: Batch, *methods: Method) -> Iterator[None]:
    """Within the context the LLM's forward and generate on this batch are steered.

    Methods act in the order given, and after those of surrounding blocks. Other threads do not see it: start
    a thread's own block in the thread. The tower's lock is held until the context ends.

    Args:
        batch: what the LLM is about to be called with; rows may be repeated (beams).

    Raises:
        CheckpointError, ValueError: a method does not fit the backbone.
        UndecidedGateError: for some prompts a gate or a changed state is not finite, so that it cannot be said
            whether they are harmful; raised before the first token is decoded.
        BackboneError: the LLM was called with another batch, or not at all.
    """
    hooks = list[_Hook]()
    with backbone.tower.lock:
        with unsteered():
            for method in methods:
                if method.strength:
                    method.check(backbone)
                    hooks += _hooks(method, method.plan(backbone, batch), batch)
        with _registered(backbone, hooks):
            yield
        if unused := sorted({hook.layer for hook in hooks if not hook.used}):
            raise BackboneError(
                f"decoder layer {unused[0]} was never steered, as no prompt ran through it in this thread; call the "
                "model inside the block"
            )


def _hooks(method: Method, plan: Plan, batch: Batch) -> list[_Hook]:
    if not bool(plan.rows.any()):
        return []
    places = _Places(batch.mask, plan.rows, method)
    return [_Hook(layer, change, places, method.strength) for layer, change in plan.changes.items()]


@contextmanager
def _registered(backbone: Backbone, hooks: list[_Hook]) -> Iterator[None]:
    """Within the context the hooks are on their layers, and in force in this thread."""
    handles, before = list[Any](), _ACTIVE.get()
    layers = backbone.decoder_layers if hooks else []

    def remove() -> None:
        for handle in handles:
            handle.remove()

    with backbone.tower.lock.undoing(remove):
        for hook in hooks:
            handles.append(layers[hook.layer].register_forward_hook(hook))
        _ACTIVE.set((*before, *hooks))
        try:
            yield
        finally:
            _ACTIVE.set(before)


class _Hook:
    """Puts a method's change into one layer's output, out of place."""

    def __init__(self, layer: int, change: Change, places: _Places, strength: float) -> None:
        self.layer = layer
        self.used = False
        self._change, self._places, self._strength = change, places, strength

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        if not any(active is self for active in _ACTIVE.get()):
            return None
        states = hidden(output)
        place = self._places(states)
        self.used |= place.step.last is not None
        if not self.used:
            raise BackboneError(
                "the prompt reached the decoder's layers in pieces; generate without `prefill_chunk_size`"
            )
        if not place.any:
            return None
        wide = states.float()
        changed = wide + self._strength * self._change(wide, place.step)
        if place.step.last is not None:
            self._check(changed, place)
        steered = changed.to(states.dtype)
        if place.where is not None:
            steered = torch.where(place.where, steered, states)
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    def _check(self, changed: Tensor, place: _Place) -> None:
        """Raise UndecidedGateError where a state that is changed is not finite, as those are that a NaN reaches."""
        bad = ~changed.isfinite().all(dim=-1, keepdim=True)
        if place.where is not None:
            bad &= place.where
        if bool(bad.any()):
            rows = bad.flatten(1).any(dim=1).nonzero().flatten().tolist()
            raise UndecidedGateError(
                sorted({row // place.step.repeats for row in rows}),
                f"the states of decoder layer {self.layer}",
            )


@dataclass(frozen=True)
class _Place:
    """Where a run of a layer is changed.

    Args:
        where: (R, L, 1) bool; None: everywhere.
        any: whether it is changed at all.
    """

    where: Tensor | None
    any: bool
    step: Step


class _Places:
    """Finds where runs of R rows and L positions are changed.

    Args:
        mask: (B, P) bool, the prompts' positions that are not padding.
        rows: (B,) bool, the prompts that are steered.
    """

    def __init__(self, mask: Tensor, rows: Tensor, method: Method) -> None:
        self._mask, self._rows, self._method = mask, rows, method
        self._found: tuple[tuple[int, int, torch.device], _Place] | None = None

    def __call__(self, states: Tensor) -> _Place:
        key = states.shape[0], states.shape[1], states.device
        if (
            self._found is None or self._found[0] != key
        ):  # all layers of a run, and all decoding steps, are alike
            self._found = key, self._find(*key)
        return self._found[1]

    def _find(self, rows: int, length: int, device: torch.device) -> _Place:
        batch, prompt = self._mask.shape
        repeats, rest = divmod(rows, batch)
        if rest or not repeats:
            raise BackboneError(
                f"the LLM was called with {rows} rows, the block steers a batch of {batch}; call it with the "
                "inputs that the block was opened with"
            )
        mask, last = self._mask.to(device), None
        if length < prompt:
            chosen = mask.new_full((batch, length), self._method.steps == "every")
        else:
            last = last_positions(mask)
            inside = mask
            if self._method.positions == "last":
                inside = nn.functional.one_hot(last, prompt).bool()
            after = mask.new_full((batch, length - prompt), self._method.steps == "every")
            chosen = torch.cat([inside, after], dim=1)
            last = last.repeat_interleave(repeats)
        chosen = (chosen & self._rows.to(device)[:, None]).repeat_interleave(repeats, dim=0)
        where = None if bool(chosen.all()) else chosen.unsqueeze(-1)
        return _Place(where, bool(chosen.any()), Step(repeats, last))
