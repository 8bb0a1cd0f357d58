"""What differs between families of vision-language models, decided by `config.model_type`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from safevlm.errors import BackboneError


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts.

    Args:
        tower: attribute path of the vision tower from the model's root.
        tower_keys: prefixes of the tower's tensors in checkpoint files, tried in order.
        embedding_keys: names of the input embedding table in checkpoint files, tried in order.
    """

    tower: str
    tower_keys: tuple[str, ...]
    embedding_keys: tuple[str, ...]

    def find_tower(self, model: nn.Module) -> nn.Module:
        """The vision tower of a loaded model."""
        return model.get_submodule(self.tower)

    def vision_layer(self, config: Any) -> int:
        """Index of the hidden state that the projector reads; LLaVA-1.5 reads the last but one."""
        layer = config.vision_feature_layer
        if not isinstance(layer, int):
            raise BackboneError(
                f"this {config.model_type} reads several hidden layers at once ({layer}); "
                "the safety projector needs one: set `vision_feature_layer` to a single index"
            )
        return layer

    def drops_class_token(self, config: Any) -> bool:
        """Whether the first position of the tower's output is not a patch that the model uses."""
        return bool(config.vision_feature_select_strategy == "default")


FAMILIES: dict[str, Family] = {
    "llava": Family(
        tower="model.vision_tower",
        tower_keys=("vision_tower.", "model.vision_tower."),
        embedding_keys=(
            "language_model.model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "language_model.embed_tokens.weight",
        ),
    ),
}


def family_of(config: Any) -> Family:
    """The family of a model's config; raises BackboneError that lists the known ones."""
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise BackboneError(
            f"no family for model_type {config.model_type!r}; known: {', '.join(sorted(FAMILIES))}. "
            "To add one, write its entry in safevlm/backbone/families.py"
        ) from None
