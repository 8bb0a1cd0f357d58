"""The published LLaVA-1.5 shapes, on the meta device: parameters, token positions, sizes of checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from safevlm import SafetyConfig, Taxonomy
from safevlm.backbone import encode, make_chat, wrap_backbone
from safevlm.binding import build_modules
from tests.backbone.llava_layout import IMAGE_TOKEN, TEXT, VISION, VOCABULARY, llava_config, llava_processor
from tests.tiny import picture, tiny_guard

PATCHES = (336 // 14) ** 2
BILLIONS = {"7b": 7.063, "13b": 13.351}  # as the model cards round them: 7.06 B and 13.35 B


@pytest.fixture(scope="module", params=["7b", "13b"])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(size):
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(llava_config(size))
    return wrap_backbone(model, llava_processor(), name=f"llava-hf/llava-1.5-{size}-hf")


@pytest.fixture(scope="module")
def config(size):
    """The paper's sizes, bound to the shape; fingerprints need weights, any tuple says that prompts are read."""
    plain = SafetyConfig(Taxonomy.preset("safevlm"))
    width = TEXT[size]["hidden_size"]
    return plain.with_changes(vision_dim=1024, text_dim=width, vision_layer=-2, prompt_fingerprint=(0.0,))


@pytest.fixture(scope="module")
def modules(config):
    with torch.device("meta"):
        return build_modules(config)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def linear(inputs, outputs):
    return inputs * outputs + outputs


def backbone_parameters(size):
    """Written out from the config."""
    width, inner, layers = (
        TEXT[size][key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    v, v_inner = VISION["hidden_size"], VISION["intermediate_size"]
    embeddings = v + 3 * 14 * 14 * v + (PATCHES + 1) * v  # class token, patches without bias, positions
    layer = (
        4 * linear(v, v) + linear(v, v_inner) + linear(v_inner, v) + 2 * 2 * v
    )  # attention, MLP, two norms
    tower = embeddings + 2 * v + VISION["num_hidden_layers"] * layer + 2 * v  # norms before and after
    projector = linear(v, width) + linear(width, width)
    llm_layer = 4 * width**2 + 3 * width * inner + 2 * width  # attention, gated MLP, two RMS norms; no biases
    llm = (
        VOCABULARY * width + layers * llm_layer + width + VOCABULARY * width
    )  # embeddings, norm, output head
    return tower + projector + llm


def safety_parameters(width, *, hidden=1024, blocks=6, tokens=64, levels=4, categories=7):
    """Projector, tokens and head of the paper, term by term."""
    norm = 2 * hidden
    squeeze = linear(hidden, hidden // 4) + linear(hidden // 4, hidden)
    # 1 x 1, 3 x 3 per channel, squeeze and excitation, 1 x 1; the tower's width is the hidden one: no shortcut
    block = hidden**2 + norm + 9 * hidden + norm + squeeze + hidden**2 + norm
    projector = blocks * block + linear(hidden, width) + linear(width, width)
    query = width + width * width + linear(width, width)  # learned vector, prompt's projection, query
    head = (
        query + width * width + 2 * linear(width, width) + 2 * width
    )  # key without bias, value, output, norm
    return projector + 2 * tokens * width + head + linear(width, levels) + linear(width, categories)


def test_the_backbone_has_the_published_parameters(size, backbone):
    assert count(backbone.model) == backbone_parameters(size)
    assert count(backbone.model) / 1e9 == pytest.approx(BILLIONS[size], abs=0.001)
    assert backbone.text_dim == TEXT[size]["hidden_size"]
    assert (backbone.tower.dim, backbone.tower.layer, backbone.tower.layers_read) == (1024, -2, 23)


def test_the_adapter_has_the_parameters_of_the_formula(size, modules):
    width = TEXT[size]["hidden_size"]
    assert count(modules) == safety_parameters(width)


def test_checkpoints_are_as_large_as_their_parameters(size, modules):
    values = safety_parameters(TEXT[size]["hidden_size"])
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2)):
        cast = modules.to(dtype).state_dict().values()
        assert sum(tensor.numel() * tensor.element_size() for tensor in cast) == width * values
    modules.to(torch.float32)


def test_a_checkpoint_file_is_its_header_and_its_values(tmp_path):
    """On the tiny shape, so that the sizes above are those of files."""
    guard = tiny_guard()
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2)):
        guard.safety.to(dtype)
        guard.save_pretrained(tmp_path)
        content = (tmp_path / "safety.safetensors").read_bytes()
        header = int.from_bytes(content[:8], "little")
        assert len(content) == 8 + header + width * count(guard.safety)
        assert len(json.loads(content[8 : 8 + header])) == len(guard.safety.state_dict()) + 1  # and metadata


@pytest.mark.parametrize("tokens", [8, 64])
@pytest.mark.parametrize("images", [1, 2])
def test_safety_tokens_stand_directly_before_the_576_image_tokens(backbone, tokens, images):
    pictures = [picture(seed, (400, 300)) for seed in range(images)]
    inputs = encode(backbone, [make_chat("What is this?", images)], pictures, safety_tokens=tokens)
    plain = encode(backbone, [make_chat("What is this?", images)], pictures, safety_tokens=0)
    ids, mask = inputs.tensors["input_ids"][0], inputs.token_mask[0]
    places = (ids == IMAGE_TOKEN).nonzero().flatten().reshape(images, PATCHES)
    for row in places.tolist():
        assert row == list(range(row[0], row[0] + PATCHES))
        assert mask[row[0] - tokens : row[0]].all()
    assert int(mask.sum()) == images * tokens
    assert torch.equal(ids[~mask], plain.tensors["input_ids"][0])
    assert inputs.tensors["pixel_values"].shape == (images, 3, 336, 336)
