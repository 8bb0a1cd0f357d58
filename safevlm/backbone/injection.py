"""What the guard adds to the LLM's input: safety tokens, and the vision features of a tower pass that was made before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from .load_backbone import Backbone
from .placeholders import fill_placeholders
from .prompts import Inputs
from .tower_pass import TowerPass


@contextmanager
def injected(
    backbone: Backbone, inputs: Inputs, *, tokens: Tensor | None, passed: TowerPass | None
) -> Iterator[None]:
    """Within the context the LLM reads safety tokens, and the tower's features come from an earlier pass.

    The tower's lock is held until the context ends.

    Args:
        inputs: what the LLM is about to be called with, encoded with the same `passed`.
        tokens: (count, dim) safety tokens, any float dtype, as many as `inputs` has positions for before each
            image; None: none.
        passed: the tower's pass over the images; None: the backbone runs the tower itself.

    Raises:
        BackboneError: the LLM did not read the tokens, or asked for other images.
    """
    with ExitStack() as stack:
        stack.enter_context(backbone.tower.lock)
        if tokens is not None and inputs.token_mask is not None:
            stack.enter_context(fill_placeholders(backbone.input_embeddings, tokens, inputs.token_mask))
        if passed is not None and any(inputs.images):
            stack.enter_context(backbone.tower.replay(passed, inputs.images))
        yield
