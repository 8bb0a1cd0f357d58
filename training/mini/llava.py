"""The mini model itself: a LlavaForConditionalGeneration of the real classes, small."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from .packing import Rows
from .tower_model import grid_size, hidden_states
from .vocabulary import image_id


def build_llava(
    tower: CLIPVisionModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int = 192,
    layers: int = 6,
    heads: int = 4,
) -> LlavaForConditionalGeneration:
    """A LLaVA with this tower's weights and a fresh projector and Llama, in float32."""
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower.config, text_config=text, vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_token_index=image_id(tokenizer), tie_word_embeddings=True,
        image_seq_length=grid_size(tower),
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.tie_weights()
    return model


def image_states(model: LlavaForConditionalGeneration, images: Tensor) -> Tensor:
    """Projected patch features (n, patches, text width) of images float (n, 3, h, w)."""
    with torch.no_grad():
        features = hidden_states(model.model.vision_tower, images)[-2][:, 1:]
    projected: Tensor = model.model.multi_modal_projector(features)
    return projected


def rows_loss(model: LlavaForConditionalGeneration, rows: Rows, *, images: Tensor | None) -> Tensor:
    """Mean cross entropy of the answers' tokens; images float (n, 3, h, w) in the rows' order."""
    states = model.get_input_embeddings()(rows.ids)
    if images is not None:
        places = (rows.ids == model.config.image_token_index)[..., None].expand_as(states)
        states = states.masked_scatter(places, image_states(model, images).to(states.dtype))
    language = model.model.language_model
    found = language(
        inputs_embeds=states, attention_mask=rows.mask(), position_ids=rows.positions, use_cache=False
    ).last_hidden_state
    wanted = rows.labels[:, 1:]
    kept = wanted != -100
    return cross_entropy(model.lm_head(found[:, :-1][kept]), wanted[kept])
