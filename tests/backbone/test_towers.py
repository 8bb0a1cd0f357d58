"""Vision towers without a language model: Hugging Face's and timm's, loaded and in memory."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers.activations import QuickGELU
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import (
    FAMILIES,
    TOWERS,
    load_backbone,
    load_preprocessor,
    load_tower,
    same_weights,
    wrap_tower,
)
from safevlm.backbone.load_timm import timm_image_processor
from safevlm.errors import BackboneError, CheckpointError
from safevlm.info import collect
from tests.backbone.twins import (
    DEPTH,
    PICTURES,
    SIZE,
    WIDTH,
    features,
    processor,
    to_timm,
    twin,
    vision_model,
)
from tests.tiny import picture, tiny_config, tiny_guard, tiny_llava, tiny_processor


def randomised(scorer, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in scorer.safety.parameters():
            parameter.normal_(std=0.3)
    return scorer


def scores(scorer, images=PICTURES):
    return [assessment.score for assessment in scorer.assess(images)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return vision_model(kind)


@pytest.fixture(scope="module")
def folder(kind, model, tmp_path_factory):
    path = tmp_path_factory.mktemp(kind)
    model.save_pretrained(path)
    processor(kind).save_pretrained(path)
    return path


def expected(kind, model, images=PICTURES):
    """What the guard reads: CLIP's last layer but one without class token, SigLIP's output."""
    pixels = processor(kind)(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(pixels, output_hidden_states=True)
    return output.hidden_states[-2][:, 1:] if kind == "clip" else output.last_hidden_state


def test_a_folder_with_a_vision_model(kind, model, folder):
    tower = load_tower(folder)
    assert torch.equal(features(tower), expected(kind, model))
    assert same_weights(tower.fingerprint, wrap_tower(model, processor(kind)).fingerprint)
    layers = tower.module.config.num_hidden_layers
    assert layers == (DEPTH - 1 if kind == "clip" else DEPTH)


def test_the_vision_half_of_a_pair(kind, tmp_path):
    pair = vision_model(kind, pair=True)
    pair.save_pretrained(tmp_path)
    processor(kind).save_pretrained(tmp_path)
    own = expected(kind, pair.vision_model)
    assert torch.equal(features(load_tower(tmp_path)), own)
    assert torch.equal(features(wrap_tower(pair, processor(kind))), own)


def test_the_tower_of_a_whole_model_by_its_folder(tmp_path):
    llava = tiny_llava()
    llava.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    scorer = RiskScorer.attach(tmp_path, tiny_config())
    pixels = tiny_processor().image_processor(images=PICTURES, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        hidden = llava.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(features(scorer.tower), hidden[-2][:, 1:])
    assert not scorer.config.reads_prompts


@pytest.mark.parametrize("source", ["own", "timm", "llava"])
def test_a_preprocessor_makes_the_towers_inputs_without_its_weights(kind, model, folder, source, tmp_path):
    if source == "timm":
        twin(kind, model.state_dict(), tmp_path)
    elif source == "llava":
        tiny_llava().save_pretrained(tmp_path)
        tiny_processor().save_pretrained(tmp_path)
    else:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    name = f"timm:{tmp_path}" if source == "timm" else tmp_path
    expected = load_tower(name).preprocess(PICTURES)
    (tmp_path / "model.safetensors").unlink()
    preprocessor = load_preprocessor(name)
    found = pickle.loads(pickle.dumps(preprocessor)).preprocess(PICTURES)  # noqa: S301  # as it is sent to Ray's tasks
    assert (found.rows, found.grids, found.boxes) == (expected.rows, expected.grids, expected.boxes)
    assert found.tensors.keys() == expected.tensors.keys()
    for key, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[key], tensor)
        assert found.tensors[key].dtype == tensor.dtype


def test_a_preprocessor_that_is_not_there_is_refused(tmp_path):
    for name in (tmp_path / "nowhere", "timm:no_such_model"):
        with pytest.raises(BackboneError):
            load_preprocessor(name)


@pytest.mark.parametrize("layer", [1, 2, -1, -2, -3])
def test_another_layer_is_read_where_the_config_says_so(kind, model, folder, layer):
    scorer = RiskScorer.attach(folder, tiny_config(vision_layer=layer))
    pixels = processor(kind)(images=PICTURES, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        hidden = model(pixels, output_hidden_states=True).hidden_states[layer]
    own = hidden[:, 1:] if kind == "clip" else hidden
    assert torch.equal(features(scorer.tower), own)
    wrapped = wrap_tower(twin(kind, model.state_dict()), processor(kind), layer=layer)
    torch.testing.assert_close(features(wrapped), own, atol=1e-5, rtol=1e-5)
    assert same_weights(wrapped.fingerprint, scorer.tower.fingerprint)


@pytest.mark.parametrize("layer", [0, 4, -4, -9])
def test_a_layer_that_is_not_there_is_refused(kind, model, folder, layer):
    with pytest.raises(BackboneError, match=f"vision_layer is {layer}, the tower has 3 layers"):
        RiskScorer.attach(folder, tiny_config(vision_layer=layer))
    with pytest.raises(BackboneError, match="the tower has 3 layers"):
        wrap_tower(twin(kind, model.state_dict()), layer=layer)


def test_timm_has_the_same_features_and_fingerprint(kind, model, tmp_path):
    twin(kind, model.state_dict(), tmp_path)
    plain = wrap_tower(model, processor(kind))
    for other in (
        load_tower(f"timm:{tmp_path}"),
        wrap_tower(twin(kind, model.state_dict()), processor(kind)),
    ):
        other.image_processor = processor(kind)
        torch.testing.assert_close(features(other), features(plain), atol=1e-5, rtol=1e-5)
        assert same_weights(other.fingerprint, plain.fingerprint)
        assert (other.dim, other.layer) == (plain.dim, plain.layer)
    stranger = wrap_tower(twin(kind, vision_model(kind, seed=5).state_dict()), processor(kind))
    assert not same_weights(stranger.fingerprint, plain.fingerprint)


def test_a_timm_tower_computes_and_holds_no_block_beyond_the_one_read(kind, model, tmp_path):
    twin(kind, model.state_dict(), tmp_path)
    loaded = load_tower(f"timm:{tmp_path}")
    read = DEPTH - 1 if kind == "clip" else DEPTH
    assert len(loaded.module.model.blocks) == read
    assert not [name for name in loaded.module.state_dict() if "head" in name or "attn_pool" in name]
    whole = twin(kind, model.state_dict())
    ran = []
    for number, block in enumerate(whole.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    features(wrap_tower(whole))
    assert ran == list(range(read))


def test_modules_trained_on_llava_score_on_the_timm_tower(tmp_path):
    """LLaVA-1.5's tower is openai/clip-vit-large-patch14-336, which timm has, too."""
    guard = tiny_guard()
    guard.config = guard.config.with_changes(backbone=str(tmp_path / "base"))
    guard.save_pretrained(tmp_path / "adapter")
    guard.language_model.save_pretrained(tmp_path / "base")
    guard.backbone.processor.save_pretrained(tmp_path / "base")
    state = {
        key.partition("vision_tower.")[2]: tensor
        for key, tensor in load_file(tmp_path / "base" / "model.safetensors").items()
        if "vision_tower." in key
    }
    model = twin("clip", state, tmp_path / "timm", depth=2)
    own = RiskScorer.from_pretrained(tmp_path / "adapter", backbone=tmp_path / "base")
    other = RiskScorer.from_pretrained(tmp_path / "adapter", backbone=f"timm:{tmp_path / 'timm'}")
    square = [picture(seed, (SIZE, SIZE)) for seed in range(3)]
    assert scores(other, square) == pytest.approx(scores(own, square), abs=1e-5)
    assert np.ptp(scores(own, square)) > 1e-3
    together, own_together = (scorer.assess(square[:1], ["Hello"])[0].score for scorer in (other, own))
    assert together == pytest.approx(own_together, abs=1e-5)  # prompts are read where the checkpoint says
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.normal_()
    with pytest.raises(CheckpointError, match="tower_fingerprint"):
        RiskScorer.from_pretrained(tmp_path / "adapter", backbone=wrap_tower(model))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_both_routes_preprocess_alike(kind):
    """timm's data config as the Hugging Face image processor, and as timm's own transform has it."""
    name = (
        "vit_large_patch14_clip_quickgelu_336.openai"
        if kind == "clip"
        else "vit_base_patch16_siglip_224.webli"
    )
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    made = timm_image_processor(model)
    # margins that are even: of an odd one the two crop another half
    images = [picture(0, (500, 375)), picture(1, (300, 400)), picture(2, (336, 336))]
    pixels = made(images=images, return_tensors="pt")["pixel_values"]
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    # torch and Pillow round a resized pixel to the one or the other of two neighbours
    step = 1.01 / 255 / min(made.image_std)
    torch.testing.assert_close(pixels, torch.stack([transform(image) for image in images]), atol=step, rtol=0)
    if kind == "clip":  # as openai/clip-vit-large-patch14-336's preprocessor_config.json has it
        size = {"height": 336, "width": 336}
        own = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=size)
        assert torch.equal(pixels, own(images=images, return_tensors="pt")["pixel_values"])


def test_the_openai_tower_of_timm_is_the_one_of_llava():
    """The published architecture, without its weights: same shapes as LLaVA-1.5's tower, tensor by tensor."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    with torch.device("meta"):
        theirs = CLIPVisionModel(vision)
        own = timm.create_model("vit_large_patch14_clip_quickgelu_336.openai", num_classes=0)
    shapes = {name: tensor.shape for name, tensor in own.state_dict().items()}
    made = to_timm(theirs.state_dict(), shapes, depth=24)
    assert {name: tensor.shape for name, tensor in made.items()} == shapes
    assert isinstance(own.blocks[0].mlp.act, QuickGELU)
    assert theirs.config.hidden_act == "quick_gelu"
    assert own.blocks[0].norm1.eps == theirs.config.layer_norm_eps
    assert own.blocks[0].attn.num_heads == 16


def test_a_scorer_without_an_llm_is_saved_and_loads_again(kind, model, folder, tmp_path):
    twin(kind, model.state_dict(), tmp_path / "timm")
    for number, source in enumerate([folder, f"timm:{tmp_path / 'timm'}"]):
        scorer = randomised(RiskScorer.attach(source, tiny_config()))
        assert scorer.config.backbone_type == ("timm" if number else f"{kind}_vision_model")
        assert (scorer.config.vision_dim, scorer.config.text_dim) == (WIDTH, WIDTH)
        assert scorer.safety.head.prompt is None
        before = scores(scorer)
        assert np.ptp(before) > 1e-3
        scorer.save_pretrained(tmp_path / "saved")
        assert {path.name for path in (tmp_path / "saved").iterdir()} == {
            "safety_config.json", "safety.safetensors", "README.md",
        }  # fmt: skip
        again = RiskScorer.from_pretrained(tmp_path / "saved")
        assert again.config == scorer.config
        assert scores(again) == before
        assert "RiskScorer.from_pretrained" in (tmp_path / "saved" / "README.md").read_text()


def test_the_width_may_be_chosen(folder):
    scorer = RiskScorer.attach(folder, tiny_config(text_dim=24))
    assert scorer.safety.tokens.prompt.shape == (3, 24)
    assert scorer.assess(PICTURES[:1])[0].score is not None


def test_modules_on_a_model_in_memory_need_a_backbone_to_load_again(kind, model, tmp_path):
    scorer = randomised(RiskScorer.attach(model, tiny_config(), image_processor=processor(kind)))
    before = scores(scorer)
    scorer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"names no backbone.*give backbone="):
        RiskScorer.from_pretrained(tmp_path)
    tower = wrap_tower(model, processor(kind))
    assert scores(RiskScorer.from_pretrained(tmp_path, backbone=tower)) == before


def test_a_tower_alone_reads_no_prompts_and_does_not_answer(folder, tmp_path):
    scorer = RiskScorer.attach(folder, tiny_config())
    assert scorer.assess(PICTURES[:1], [""])[0].score is not None
    with pytest.raises(CheckpointError, match="tower alone and read no prompts"):
        scorer.assess(PICTURES[:1], ["Hello"])
    scorer.save_pretrained(tmp_path)
    for load in (
        lambda: SafeVLM.from_pretrained(tmp_path),
        lambda: load_backbone("timm:vit_tiny_patch16_224"),
    ):
        with pytest.raises(BackboneError, match=r"without a language model.*RiskScorer"):
            load()


def test_modules_of_a_tower_alone_are_refused_on_the_whole_model(tmp_path):
    guard = tiny_guard()
    guard.language_model.save_pretrained(tmp_path / "base")
    guard.backbone.processor.save_pretrained(tmp_path / "base")
    RiskScorer.attach(tmp_path / "base", tiny_config()).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"attached to a vision tower alone.*RiskScorer"):
        SafeVLM.from_pretrained(tmp_path / "adapter")


def test_lora_is_not_lost_by_saving_a_scorer(tmp_path):
    guard = tiny_guard()
    scorer = RiskScorer(guard.backbone.tower, guard.safety, config=guard.config.with_changes(has_lora=True))
    with pytest.raises(CheckpointError, match="save it with SafeVLM"):
        scorer.save_pretrained(tmp_path)


def test_what_is_no_tower_is_named(tmp_path):
    with pytest.raises(BackboneError, match="Linear is no vision tower"):
        RiskScorer.attach(torch.nn.Linear(2, 2))
    with pytest.raises(BackboneError, match="MlpMixer gives features of shape"):
        RiskScorer.attach(timm.create_model("mixer_s32_224"))
    with pytest.raises(BackboneError, match="timm has no model 'vit_of_nobody'"):
        RiskScorer.attach("timm:vit_of_nobody")
    with pytest.raises(BackboneError, match="image_processor="):
        RiskScorer.attach(vision_model("clip"))
    with pytest.raises(ValueError, match=r"\['dtype'\] are for towers that are loaded"):
        RiskScorer.attach(vision_model("clip"), image_processor=processor("clip"), dtype="float32")


def test_a_timm_file_that_lacks_tensors_is_refused(tmp_path):
    from safetensors.torch import save_file

    twin("clip", vision_model("clip").state_dict(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["blocks.1.attn.proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensors of the vision tower are missing.*blocks.1.attn.proj"):
        load_tower(f"timm:{tmp_path}")


def test_towers_are_listed():
    found = collect()
    assert found["towers"] == sorted(TOWERS)
    assert not set(TOWERS) & set(FAMILIES)
