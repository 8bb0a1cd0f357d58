"""Where towers and safety modules are, and in what precision they compute."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
"""What a `device_map` of transformers may be that spreads a model over the devices that there are."""

Dtype: TypeAlias = "torch.dtype | str | None"


def one_device(device_map: Any) -> torch.device:
    """The device that a `device_map` names; raises ValueError for a split over several."""
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    value = device_map
    if isinstance(device_map, Mapping):
        value = device_map.get("") if set(device_map) == {""} else device_map
    try:
        return torch.device("cpu" if device_map is None else value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device_map is {device_map!r}; a vision tower alone stays on one device: give 'cpu', 'cuda:0', 0, "
            '{"": 0} or "auto"'
        ) from error


def on_cpu(device_map: Any) -> bool:
    """Whether all of a model goes to the CPU, however the `device_map` says so; None does, "auto" where there is no GPU."""
    if isinstance(device_map, str) and device_map in AUTOMATIC:
        return not torch.accelerator.is_available()
    devices = set(device_map.values()) if isinstance(device_map, Mapping) else {device_map}
    return all(device is None or str(device) == "cpu" for device in devices)


def one_dtype(dtype: Dtype, torch_dtype: Dtype) -> Dtype:
    """The dtype that is asked for, under transformers' older name for it as well; raises ValueError for both."""
    if torch_dtype is None:
        return dtype
    if dtype is not None:
        raise ValueError(f"dtype is {dtype!r} and torch_dtype {torch_dtype!r}; give dtype alone")
    logging.getLogger(__name__).warning("`torch_dtype` is deprecated! Use `dtype` instead!")
    return torch_dtype


def safety_dtype(
    tower_dtype: torch.dtype, device: torch.device, *, asked: torch.dtype | str | None = None
) -> torch.dtype:
    """What safety modules compute in: what is asked, else bfloat16 beside a tower of 16 bits on a GPU, else float32."""
    if found := parse_dtype(asked):
        return found
    half = tower_dtype in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if half and device.type != "cpu" else torch.float32


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype or its name; None for None and "auto". Raises ValueError for others."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if dtype != "auto" and not isinstance(found, torch.dtype):
        raise ValueError(f"dtype is {dtype!r}; give 'auto', a torch.dtype or its name, such as 'bfloat16'")
    return found if dtype != "auto" else None


def tower_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """What a tower's tensors are cast to, None for the files' own; half precision crawls on most CPUs."""
    return torch.float32 if dtype is None and device.type == "cpu" else parse_dtype(dtype)
