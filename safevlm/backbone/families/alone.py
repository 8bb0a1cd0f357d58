"""Vision towers without a language model: CLIP's and SigLIP's, alone or as half of the contrastive pair."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from .family import Family


class TowerAlone(Family):
    """A Hugging Face vision model, or a model of images and texts of which its vision half is read."""

    tower_keys: ClassVar[tuple[str, ...]] = ("",)
    embedding_keys: ClassVar[tuple[str, ...]] = ()
    alone = True

    def find_tower(self, model: nn.Module) -> nn.Module:
        """The vision half of a pair, else the model itself."""
        return model.get_submodule("vision_model") if hasattr(model.config, "vision_config") else model

    def vision_config(self, config: Any) -> Any:
        """The vision half's of a pair, else the config itself."""
        return getattr(config, "vision_config", config)


class Clip(TowerAlone):
    """`CLIPVisionModel` and `CLIPModel`, read as LLaVA-1.5 reads them: last layer but one, no class token."""

    def vision_layer(self, config: Any) -> int | None:
        """The last layer serves the class token alone."""
        return -2

    def drops_class_token(self, config: Any) -> bool:
        """True: CLIP's class token is not a patch."""
        return True


class Siglip(TowerAlone):
    """`SiglipVisionModel` and `SiglipModel`, read at the tower's output; there is no class token."""
