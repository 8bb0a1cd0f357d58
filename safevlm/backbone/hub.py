"""Where a backbone's files come from: a folder, or the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig

from safevlm.errors import BackboneError

from .families import tower_family_of


@dataclass(frozen=True)
class HubOptions:
    """How files are found: the arguments of the same names of `transformers.from_pretrained`."""

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    @property
    def without_revision(self) -> HubOptions:
        """For a second repository, of which the first one's revision says nothing."""
        return replace(self, revision=None)

    @property
    def download(self) -> dict[str, Any]:
        """The arguments of a single download."""
        return {k: v for k, v in vars(self).items() if k != "trust_remote_code"}


def load_config(name: str | Path, hub: HubOptions) -> Any:
    """The transformers config of a hub id or folder; raises BackboneError where there is none, or of no known family."""
    with explain(name):
        raw, _ = PreTrainedConfig.get_config_dict(name, **vars(hub))
        if "model_type" in raw:  # one that transformers does not know either gets the same answer
            tower_family_of(SimpleNamespace(model_type=raw["model_type"]))
        return AutoConfig.from_pretrained(name, **vars(hub))


class explain:
    """Turns the loaders' own errors into one that names the backbone and the remedy."""

    def __init__(self, name: str | Path) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (OSError, ValueError, SafetensorError)) and not isinstance(error, BackboneError):
            first = (
                str(error).strip().splitlines()[0] if str(error).strip() else kind.__name__ if kind else ""
            )
            raise BackboneError(
                f"cannot load the backbone {str(self._name)!r}: {first}. Check the name, give the path of a "
                "local folder, or connect to the network for a hub id"
            ) from error
