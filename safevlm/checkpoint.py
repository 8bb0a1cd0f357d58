"""Adapter-only checkpoints: safety_config.json + safety.safetensors (+ lora/). Strict, no pickle.

Nothing is guessed on loading: sizes are compared from the file's header before a tensor is read,
and a missing, foreign or misshapen key is an error that names the file, the key and the remedy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from safevlm.config import SafetyConfig, read_json
from safevlm.errors import CheckpointError, brief
from safevlm.files import write_bytes
from safevlm.lora import LoraSettings

CONFIG, WEIGHTS, LORA, CARD = "safety_config.json", "safety.safetensors", "lora", "README.md"
LORA_CONFIG, LORA_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

MAX_CONFIG_BYTES = 1 << 22
"""The largest config that is read, 4 MiB; those of the embedded checkpoints have 4 kB."""

MAX_HEADER_BYTES = 1 << 24
"""The largest header of a safetensors file that is read, 16 MiB, a hundred bytes for each of 160,000 tensors."""

FLOATS = ("F16", "BF16", "F32", "F64")
"""Types of the tensors that are read, as safetensors names them."""


def embedded() -> tuple[str, ...]:
    """Names of the checkpoints inside the package."""
    found = (entry for entry in Path(str(files("safevlm.checkpoints"))).iterdir())
    return tuple(sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("_")))


def hashes(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256, 64 hex digits, of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def resolve(name: str | Path) -> str | Path:
    """An embedded checkpoint's folder for its name; any other name as it is."""
    folder = Path(str(files("safevlm.checkpoints"))) / str(name)
    return folder if str(name) in embedded() else name


def fetch(name: str | Path, **download: Any) -> Path:
    """The local folder of a checkpoint: an embedded name, a folder, or a hub id (downloaded).

    Args:
        download: `revision`, `token`, `cache_dir`, `local_files_only`, as in huggingface_hub.

    Raises:
        CheckpointError: no such folder, no such repository, or no network.
    """
    location = resolve(name)
    if Path(location).is_dir():
        return Path(location)
    patterns = [CONFIG, WEIGHTS, f"{LORA}/*.json", f"{LORA}/*.safetensors", CARD]
    try:
        return Path(snapshot_download(str(location), allow_patterns=patterns, **download))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot find the checkpoint {str(name)!r}: it is not embedded ({', '.join(embedded())}), not a "
            f"folder, and the hub did not give it ({first}). Check the name, or the network for a hub id"
        ) from error


def save(folder: str | Path, config: SafetyConfig, tensors: Mapping[str, Tensor], *, card: str) -> None:
    """Write a checkpoint; each file appears whole or not at all, the weights first."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / WEIGHTS, tensor_bytes(tensors))
    write_bytes(folder / CONFIG, config.to_json().encode())
    write_bytes(folder / CARD, card.encode())


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors as a safetensors file."""
    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return safetensors_bytes(ready, metadata={"format": "pt"})


def load_config(folder: Path) -> SafetyConfig:
    """Read and check `safety_config.json`; raises CheckpointError with the key and the remedy."""
    path = folder / CONFIG
    if not path.is_file():
        pickled = [p.name for p in folder.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]
        hint = f"; {pickled[0]} is a pickle, which is never read" if pickled else ""
        raise CheckpointError(
            f"{folder} has no {CONFIG}{hint}: it is no SafeVLM checkpoint; write one with `save_pretrained`"
        )
    try:
        return SafetyConfig.from_json(config_text(path))
    except (ValueError, TypeError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{path}: {error}") from error


def stored_sizes(folder: Path) -> dict[str, torch.Size]:
    """Names and sizes of the tensors in `safety.safetensors`, from its header alone.

    Raises:
        CheckpointError: no such file, a header that cannot be read, or a tensor of another type than `FLOATS`.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {WEIGHTS}; only safetensors files are read: save it with `save_pretrained`"
        )
    return _sizes(path)


def load_tensors(
    folder: Path,
    expected: Mapping[str, torch.Size],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Read `safety.safetensors` after comparing every name and size with `expected`; each tensor cast as it is read."""
    stored_sizes(folder)  # says what to do where there is none
    return read_tensors(folder / WEIGHTS, expected, dtype=dtype, device=device)


def read_tensors(
    path: Path,
    expected: Mapping[str, torch.Size],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Read a safetensors file that has these names and sizes and no others; each tensor cast as it is read.

    Raises:
        CheckpointError: a header that cannot be read, another name, size, or type than `FLOATS`.
    """
    _compare(path, _sizes(path), expected)
    tensors = {}
    for key in expected:
        with safe_open(
            path, framework="pt"
        ) as file:  # anew for each: an open file keeps what was read in memory
            tensors[key] = file.get_tensor(key).to(device, dtype, copy=True)
    return tensors


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """What `safety.safetensors` holds, unchecked: enough to hash it, not to load modules from."""
    path = folder / WEIGHTS
    return load_tensors(folder, _sizes(path) if path.is_file() else {})


def _sizes(path: Path) -> dict[str, torch.Size]:
    """Names and sizes from a file's header; no tensor is read."""
    try:
        with safe_open(path, framework="pt"):  # the library checks that offsets and sizes fit the file
            header = read_json(_header(path))  # and lets a key come twice
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); download or save it again"
        ) from error
    header.pop("__metadata__", None)
    for key, entry in header.items():
        if entry["dtype"] not in FLOATS:
            raise CheckpointError(
                f"{path}: {brief(key)} is of type {entry['dtype']}, one of {', '.join(FLOATS)} is needed; "
                "save the checkpoint again with `save_pretrained`"
            )
    return {key: torch.Size(entry["shape"]) for key, entry in header.items()}


def _header(path: Path) -> bytes:
    """The JSON at the start of a safetensors file, behind its length in 8 bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"its header has {size:,} bytes, more than the limit of {MAX_HEADER_BYTES:,}")
        return file.read(size)


def config_text(path: Path) -> bytes:
    """A config's bytes; raises ValueError where there are more than `MAX_CONFIG_BYTES`."""
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise ValueError(f"has more than {MAX_CONFIG_BYTES:,} bytes, the limit of a config")
    return data


def _compare(path: Path, found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> None:
    remedy = "the file does not belong to its config; restore both from one save"
    for key in expected:
        if key not in found:
            raise CheckpointError(f"{path}: the key {key!r} is missing; {remedy}")
    for key, size in found.items():
        if key not in expected:
            raise CheckpointError(f"{path}: the key {key!r} is foreign; {remedy}")
        if size != expected[key]:
            raise CheckpointError(
                f"{path}: {key!r} has size {tuple(size)}, {tuple(expected[key])} expected; {remedy}"
            )


def save_lora(folder: str | Path, model: nn.Module) -> None:
    """Write the model's LoRA layers to `folder`/lora in PEFT's own form."""
    from peft import get_peft_model_state_dict

    target = Path(folder) / LORA
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as own:  # PEFT writes in place
        model.peft_config["default"].save_pretrained(own)  # type: ignore[index, union-attr]
        write_bytes(target / LORA_CONFIG, (Path(own) / LORA_CONFIG).read_bytes())
    write_bytes(target / LORA_WEIGHTS, tensor_bytes(get_peft_model_state_dict(model)))


def lora_files(folder: Path) -> tuple[Path, Path]:
    """Config and weights of a checkpoint's LoRA layers; raises CheckpointError where one of the files is missing."""
    files = folder / LORA / LORA_CONFIG, folder / LORA / LORA_WEIGHTS
    for path in files:
        if not path.is_file():
            raise CheckpointError(
                f"{folder / CONFIG} says has_lora, but {path} is missing; "
                "restore it, or save the checkpoint again"
            )
    return files


def copy_lora(source: Path, folder: Path) -> None:
    """Copy the LoRA layers of a checkpoint to another one, byte by byte.

    Raises:
        CheckpointError: `source` lacks one of the files.
        OSError: they cannot be written.
    """
    (folder / LORA).mkdir(parents=True, exist_ok=True)
    for path in lora_files(source):
        write_bytes(folder / LORA / path.name, path.read_bytes())


def load_lora(folder: Path, model: nn.Module, linears: Mapping[str, nn.Linear]) -> None:
    """Put the LoRA matrices of `folder`/lora into the model; nothing else of the model changes.

    Args:
        folder: of the checkpoint.
        model: the backbone, without LoRA layers.
        linears: the modules that may have LoRA, by their names in `model`: the LLM's linear layers.

    Raises:
        CheckpointError: a file is missing or malformed, asks for more than plain LoRA, names a module
            outside `linears`, or holds other tensors than its config says.
    """
    source = folder / LORA
    lora_files(folder)
    if getattr(model, "peft_config", None):
        raise CheckpointError(
            f"{folder}: the backbone has LoRA layers already, of another checkpoint or of its own; load it anew"
        )
    settings, targets = _read_lora_config(source / LORA_CONFIG, model, linears)
    tensors = _read_lora_tensors(source / LORA_WEIGHTS, settings, {name: linears[name] for name in targets})
    own = [(tensor, _changes(tensor)) for tensor in (*model.parameters(), *model.buffers())]
    _inject_lora(model, settings, targets, tensors)
    _check_untouched(model, own, source)


def _read_lora_config(
    path: Path, model: nn.Module, linears: Mapping[str, nn.Linear]
) -> tuple[LoraSettings, list[str]]:
    """The settings of an `adapter_config.json`, and the names of the modules that they mean."""
    try:
        settings = LoraSettings.from_dict(read_json(config_text(path)))
        return settings, settings.modules([name for name, _ in model.named_modules()], linears)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_lora_tensors(
    path: Path, settings: LoraSettings, targets: Mapping[str, nn.Linear]
) -> dict[str, Tensor]:
    """The LoRA matrices of these linear layers, finite, and no others."""
    expected = {
        f"{name}.lora_{side}.weight": torch.Size(size)
        for name, linear in targets.items()
        for side, size in (
            ("A", (settings.r, linear.in_features)),
            ("B", (linear.out_features, settings.r)),
        )
    }
    _compare(path, _sizes(path), expected)
    tensors: dict[str, Tensor] = load_file(path)
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{path}: {key!r} has values that are not finite; the training that wrote it "
                "failed, restore an earlier save"
            )
    return tensors


def _inject_lora(
    model: nn.Module, settings: LoraSettings, targets: list[str], tensors: Mapping[str, Tensor]
) -> None:
    """Put LoRA layers with these matrices on the modules `targets`, in eval mode."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        target_modules=f"({'|'.join(map(re.escape, targets))})",
        inference_mode=True,
    )
    inject_adapter_in_model(config, model)
    model.peft_config = {"default": config}  # type: ignore[assignment]
    set_peft_model_state_dict(model, tensors)
    for layer in _lora_layers(model):
        # injected in train mode, under frozen parents that pass no `eval()` on
        for part in layer.modules():
            part.training = False


def _check_untouched(model: nn.Module, own: list[tuple[Tensor, int]], source: Path) -> None:
    """Raise CheckpointError unless every tensor that the model had is there as it was."""
    now = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if any(id(tensor) not in now or _changes(tensor) != before for tensor, before in own):
        raise CheckpointError(
            f"{source} changed the backbone's own weights; load the backbone anew without it"
        )


def _changes(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for one of `torch.inference_mode`, which does not count.

    A whole number's own value: BatchNorm copies its count of batches onto itself whenever something is loaded.
    """
    if tensor.ndim == 0 and not (tensor.is_floating_point() or tensor.is_meta):
        return int(tensor)
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def lora_disabled(model: nn.Module) -> Iterator[None]:
    """Within the context the model's LoRA layers do nothing; afterwards each is as it was before.

    PEFT's own switch, `enable_adapters`, would also change which parameters take gradients.
    """
    before = [(layer, layer._disable_adapters) for layer in _lora_layers(model)]
    try:
        for layer, _ in before:
            layer._disable_adapters = True
        yield
    finally:
        for layer, was in before:
            layer._disable_adapters = was


def merge_lora(model: nn.Module, source: str | Path) -> None:
    """Add LoRA layers to the weights beside them and take them away; raises CheckpointError, with `source`, for quantized weights."""
    layers = set(_lora_layers(model))
    for name, layer in [(name, part) for name, part in model.named_modules() if part in layers]:
        if not layer.get_base_layer().weight.is_floating_point():
            raise CheckpointError(
                f"{source}: its LoRA layers cannot be merged into quantized weights; load it in bfloat16"
            )
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [part for part in model.modules() if isinstance(part, BaseTunerLayer)]
