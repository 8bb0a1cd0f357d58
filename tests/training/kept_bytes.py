"""Bytes per token that autograd keeps of one decoder layer of LLaVA-1.5-7B: `python -m tests.training.kept_bytes`.

The layer has the real widths and random float16 weights, and runs on the CPU under bfloat16 autocast.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

TOKENS = 64


def kept_bytes(layer: nn.Module, config: LlamaConfig) -> float:
    """Bytes per token of the saved tensors that grow with the tokens, each storage once; not of weights."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if TOKENS in tensor.shape:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    states = torch.randn(1, TOKENS, config.hidden_size, requires_grad=True) + 0  # no leaf, as between layers
    places = LlamaRotaryEmbedding(config)(states, torch.arange(TOKENS)[None])
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        layer(states, position_embeddings=places)
    return sum(kept.values()) / TOKENS


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_attention_heads=32, attn_implementation="sdpa"
    )
    layer = LlamaDecoderLayer(config, 0).half().requires_grad_(False).eval()
    print(f"frozen: {kept_bytes(layer, config) / 1000:.0f} kB per token and layer")
    inject_adapter_in_model(LoraConfig(r=256, lora_dropout=0.05, target_modules="all-linear"), layer)
    for name, parameter in layer.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # as in training
    layer.train()
    print(f"with LoRA of rank 256: {kept_bytes(layer, config) / 1000:.0f} kB")
    print(f"checkpointed: {config.hidden_size * 4 / 1000:.0f} kB, the layer's input in float32")


if __name__ == "__main__":
    main()
