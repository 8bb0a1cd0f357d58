"""The mini model itself: a FastVlmForConditionalGeneration of the real classes, small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from .packing import Rows
from .tower import ARCHITECTURE, CHANNELS, PLACES
from .vocabulary import image_id


def build_fast_vlm(
    tower: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int = 256,
    layers: int = 6,
    heads: int = 4,
) -> FastVlmForConditionalGeneration:
    """A FastVLM with this tower's weights, frozen, and a fresh projector and Llama, in float32."""
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = {
        "model_type": "timm_wrapper", "architecture": ARCHITECTURE, "do_pooling": False, "num_classes": 0,
        "hidden_size": CHANNELS, "model_args": {"global_pool": ""},
    }  # fmt: skip
    config = FastVlmConfig(
        vision_config=vision, text_config=text.to_dict(), image_token_index=image_id(tokenizer),
        image_seq_length=PLACES, tie_word_embeddings=True,
    )  # fmt: skip
    model = FastVlmForConditionalGeneration(config)
    model.model.vision_tower.timm_model.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.tie_weights()
    return model


def rows_loss(model: FastVlmForConditionalGeneration, rows: Rows, *, projected: Tensor | None) -> Tensor:
    """Mean cross entropy of the answers' tokens.

    Args:
        projected: the projector's output for the rows' images in their order, float (n, 49, width); None for rows of
            text alone.
    """
    states = model.get_input_embeddings()(rows.ids)
    if projected is not None:
        places = (rows.ids == model.config.image_token_index)[..., None].expand_as(states)
        states = states.masked_scatter(places, projected.to(states.dtype))
    language, mask = model.model.language_model, rows.mask()
    seen = torch.zeros(mask.shape).masked_fill(
        ~mask, torch.finfo(torch.float32).min
    )  # what eager attention adds
    found = language(
        inputs_embeds=states, attention_mask=seen, position_ids=rows.positions, use_cache=False
    ).last_hidden_state
    wanted = rows.labels[:, 1:]
    kept = wanted != -100
    return cross_entropy(model.lm_head(found[:, :-1][kept]).float(), wanted[kept])
