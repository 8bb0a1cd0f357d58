"""What `lora/adapter_config.json` may ask for: plain LoRA matrices on the LLM's linear layers, nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import regex

from safevlm.config import is_number
from safevlm.errors import brief

NOTED = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"}
)
"""Fields of PEFT's file that say where it comes from; they are not used."""

INERT = {
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Fields that PEFT fills in without being asked, by the value that changes nothing."""

MAX_PATTERN = 100_000
"""Characters of `target_modules` as a regular expression; an alternative per linear layer of a 70B model has 40,000."""

PATTERN_SECONDS = 20.0
"""Time that matching `target_modules` may take; a sound one takes milliseconds."""


@dataclass(frozen=True)
class LoraSettings:
    """Plain LoRA, as in PEFT's `LoraConfig`.

    Args:
        r: rank, at least 1.
        alpha: the matrices' product is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`; finite, > 0.
        dropout: probability in [0, 1) with which training drops an input.
        rslora: rank-stabilised scaling (Kalajdzievski, arXiv 2312.03732).
        target: names of modules, or ends of names, or one regular expression.
    """

    r: int
    alpha: float
    dropout: float
    rslora: bool
    target: str | tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Any) -> LoraSettings:
        """Read the values of an `adapter_config.json`.

        Raises:
            ValueError: not an object, not LoRA, a value of a wrong type or range, or a field that is set
                and would touch more than the LoRA matrices.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"holds {brief(values)}, not an object; save the checkpoint again")
        if values.get("peft_type") != "LORA":
            raise ValueError(f"peft_type is {brief(values.get('peft_type'))}; only LORA is loaded")
        own = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules"}
        for key, value in values.items():
            nothing = value is None or value is False or value == {} or value == []
            inert = key in INERT and value == INERT[key] and type(value) is type(INERT[key])
            if key not in own | NOTED and not (nothing or inert):
                raise ValueError(
                    f"{brief(key)} is {brief(value)}; only plain LoRA layers are loaded, save it without"
                )
        settings = cls(
            values.get("r", 8),
            values.get("lora_alpha", 8),
            values.get("lora_dropout", 0.0),
            values.get("use_rslora", False),
            _target(values.get("target_modules")),
        )
        settings._check()
        return settings

    def _check(self) -> None:
        if type(self.r) is not int or self.r < 1:
            raise ValueError(f"r is {brief(self.r)}, a whole number of at least 1 is needed")
        if not is_number(self.alpha) or not self.alpha > 0:
            raise ValueError(f"lora_alpha is {brief(self.alpha)}, a number above 0 is needed")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"lora_dropout is {brief(self.dropout)}, a probability in [0, 1) is needed")
        if type(self.rslora) is not bool:
            raise ValueError(f"use_rslora is {brief(self.rslora)}, true or false is needed")

    def modules(self, names: Iterable[str], allowed: Iterable[str]) -> list[str]:
        """The modules that `target` means, in the order of `names`.

        Args:
            names: of every module of the model.
            allowed: of those that may have LoRA.

        Raises:
            ValueError: none is meant, one outside `allowed` is, or the regular expression is malformed or
                takes too long.
        """
        allowed = set(allowed)
        found = self._matching(list(names)) if isinstance(self.target, str) else self._ending(names)
        outside = [name for name in found if name not in allowed]
        if outside:
            raise ValueError(
                f"target_modules means {brief(outside)}; LoRA is loaded on the language model's linear layers alone"
            )
        if not found:
            raise ValueError(f"target_modules is {brief(self.target)}, which is no module of this backbone")
        return found

    def _ending(self, names: Iterable[str]) -> list[str]:
        ends = tuple(f".{end}" for end in self.target)
        return [name for name in names if f".{name}".endswith(ends)]

    def _matching(self, names: list[str]) -> list[str]:
        deadline = time.monotonic() + PATTERN_SECONDS
        try:
            pattern = regex.compile(self.target)
            return [
                name
                for name in names
                if pattern.fullmatch(name, timeout=max(deadline - time.monotonic(), 1e-3))
            ]
        except regex.error as error:
            raise ValueError(f"target_modules is no regular expression ({error})") from error
        except (TimeoutError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"target_modules is {brief(self.target)}, which takes too long to match; list the modules' names"
            ) from error


def _target(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str) and 0 < len(value) <= MAX_PATTERN:
        return value
    if isinstance(value, list) and value and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise ValueError(
        f"target_modules is {brief(value)}; a list of names or a regular expression of up to "
        f"{MAX_PATTERN:,} characters is needed"
    )
