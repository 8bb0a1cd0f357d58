"""Tiny vision towers of the real classes, and timm models of the same weights."""

from __future__ import annotations

import timm
import torch
from timm.models import save_for_hf
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.tiny import picture

SIZE, PATCH, WIDTH, DEPTH = 16, 4, 32, 3
VISION = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 2,
    "image_size": SIZE, "patch_size": PATCH,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8,
    "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
PICTURES = [picture(), picture(1, (40, 17)), picture(2, (16, 16))]


def processor(kind):
    size = {"height": SIZE, "width": SIZE}
    if kind == "clip":
        return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=size)
    return SiglipImageProcessor(size=size)


def vision_model(kind, *, pair=False, seed=0):
    """A tiny vision model of the real class, or the image-and-text model it is half of."""
    torch.manual_seed(seed)
    if kind == "clip":
        vision = CLIPVisionConfig(**VISION)
        made = (
            CLIPModel(CLIPConfig(text_config=CLIPTextConfig(**TEXT), vision_config=vision)) if pair else None
        )
        made = made or CLIPVisionModel(vision)
    else:
        vision = SiglipVisionConfig(**VISION, hidden_act="gelu")  # timm's base model has the exact one
        made = (
            SiglipModel(SiglipConfig(text_config=SiglipTextConfig(**TEXT), vision_config=vision))
            if pair
            else None
        )
        made = made or SiglipVisionModel(vision)
    with torch.no_grad():  # norms and biases start at 1 and 0, where a swap would not show
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


def timm_sizes(depth=DEPTH):
    return {
        "img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": depth, "num_heads": 2, "mlp_ratio": 48 / WIDTH,
    }  # fmt: skip


def timm_model(kind, depth=DEPTH):
    """The timm architecture of the same tower, tiny."""
    name = "vit_large_patch14_clip_quickgelu_336" if kind == "clip" else "vit_base_patch16_siglip_224"
    return timm.create_model(name, **timm_sizes(depth), num_classes=0).eval()


def to_timm(state, names, depth=DEPTH):
    """A Hugging Face vision state in timm's names: what maps one to the other, written down."""
    plain = {key.removeprefix("vision_model."): tensor for key, tensor in state.items()}
    made = {
        "patch_embed.proj.weight": plain["embeddings.patch_embedding.weight"],
        "patch_embed.proj.bias": plain.get("embeddings.patch_embedding.bias"),
        "pos_embed": plain["embeddings.position_embedding.weight"][None],
        "norm.weight": plain["post_layernorm.weight"],
        "norm.bias": plain["post_layernorm.bias"],
    }
    if "embeddings.class_embedding" in plain:
        made["cls_token"] = plain["embeddings.class_embedding"][None, None]
        made |= {f"norm_pre.{part}": plain[f"pre_layrnorm.{part}"] for part in ("weight", "bias")}
    for layer in range(depth):
        source, target = f"encoder.layers.{layer}.", f"blocks.{layer}."
        for part in ("weight", "bias"):
            attention = f"{source}self_attn."
            made[f"{target}attn.qkv.{part}"] = torch.cat(
                [plain[f"{attention}{x}_proj.{part}"] for x in "qkv"]
            )
            made[f"{target}attn.proj.{part}"] = plain[f"{attention}out_proj.{part}"]
            for number in "12":
                made[f"{target}norm{number}.{part}"] = plain[f"{source}layer_norm{number}.{part}"]
                made[f"{target}mlp.fc{number}.{part}"] = plain[f"{source}mlp.fc{number}.{part}"]
    return {name: made[name] for name in names if made.get(name) is not None}


def twin(kind, state, folder=None, *, depth=DEPTH):
    """timm's model with the weights of a Hugging Face one, in memory and, with a folder, as timm saves it."""
    model = timm_model(kind, depth)
    own = to_timm(state, model.state_dict(), depth)
    missing, foreign = model.load_state_dict(own, strict=False)
    assert not foreign
    assert all(name.startswith("attn_pool.") for name in missing)
    if folder is not None:
        save_for_hf(model, folder, model_args=timm_sizes(depth), safe_serialization=True)
    return model


def features(tower, images=PICTURES):
    (group,) = tower(tower.preprocess(images)).views.groups
    return group.features
