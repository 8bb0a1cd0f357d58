"""timm models whose output is a grid, as towers: convolutional networks and Swin."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from safevlm import RiskScorer
from safevlm.backbone import load_tower, wrap_tower
from safevlm.backbone.fold_norms import fold_batch_norms
from safevlm.errors import BackboneError
from tests.families import settle_norms
from tests.tiny import picture, tiny_config

pytestmark = pytest.mark.slow

SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "img_size": 64, "window_size": 4}
FASTVIT = {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 64)}
MODELS = {
    "test_efficientnet": {},
    "test_resnet": {},
    "test_convnext": {},
    "test_byobnet": {},
    "test_mambaout": {},
    "mobilenetv4_conv_small_035": {},
    "regnetx_002": {},
    "fastvit_mci0": FASTVIT,
    "swin_tiny_patch4_window7_224": SWIN,
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request):
    torch.manual_seed(0)
    made = timm.create_model(request.param, num_classes=0, **MODELS[request.param])
    settle_norms(made, torch.randn(4, 3, 64, 64))
    return made


def size_of(model) -> int:
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return own[0] if own else model.pretrained_cfg["input_size"][-1]


@torch.no_grad()
def test_features_are_the_models_own_row_by_row(model):
    tower = wrap_tower(model)
    inputs = tower.preprocess([picture(1), picture(2, (50, 30))])
    pixels = inputs.tensors["pixel_values"]
    assert pixels.shape == (2, 3, size_of(model), size_of(model))
    own = model.forward_features(pixels)
    own = own if getattr(model, "output_fmt", "NCHW") == "NHWC" else own.permute(0, 2, 3, 1)
    (group,) = tower(inputs).views.groups
    assert group.grid == tuple(own.shape[1:3])
    assert torch.equal(group.features, own.flatten(1, 2))
    assert tower.dim == own.shape[-1]
    assert tower.positions(inputs) == 2 * own.shape[1] * own.shape[2]


def test_a_scorer_of_it_is_saved_and_loaded_from_timms_own_folder(model, tmp_path):
    name = model.pretrained_cfg["architecture"]
    save_for_hf(
        model,
        tmp_path / "tower",
        model_config={"num_classes": 0},
        model_args=MODELS[name] or None,
        safe_serialization=True,
    )
    scorer = RiskScorer.attach(f"timm:{tmp_path / 'tower'}", tiny_config(text_dim=16))
    scorer.save_pretrained(tmp_path / "guard")
    again = RiskScorer.from_pretrained(tmp_path / "guard")
    images = [picture(1), picture(2)]
    (one, two), others = scorer.assess(images), again.assess(images)
    assert [one.score, two.score] == [other.score for other in others]
    assert one.score != two.score
    assert (
        scorer.tower.fingerprint
        == wrap_tower(model).fingerprint
        == load_tower(f"timm:{tmp_path / 'tower'}").fingerprint
    )


@torch.no_grad()
def test_folded_norms_change_no_feature(model):
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    tower = wrap_tower(model)
    inputs = tower.preprocess([picture(1), picture(2, (50, 30))])
    plain = tower(inputs).views.groups[0].features
    norms = sum(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    copied = wrap_tower(timm_copy(model, kept))
    copied.fold_norms()
    left = sum(isinstance(part, torch.nn.BatchNorm2d) for part in copied.module.modules())
    assert left < norms or norms == 0
    folded = copied(inputs).views.groups[0].features
    assert (folded - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert copied.fingerprint == tower.fingerprint


def timm_copy(model, state):
    name = model.pretrained_cfg["architecture"]
    made = timm.create_model(name, num_classes=0, **MODELS[name])
    made.load_state_dict(state)
    return made


class ReadTwice(torch.nn.Module):
    """A convolution whose output is read by a norm and by another path."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        self.norm.running_mean += 1

    def forward(self, pixels: torch.Tensor) -> object:
        made = self.conv(pixels)
        return type("Output", (), {"last_hidden_state": self.norm(made) + made.relu()})


def test_a_convolution_that_is_read_elsewhere_keeps_its_norm():
    model = ReadTwice().eval()
    pixels = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = model(pixels).last_hidden_state
        assert fold_batch_norms(model, pixels) == 0
        assert torch.equal(model(pixels).last_hidden_state, before)


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        ("mixer_s32_224", r"\(1, 49, 512\)"),
        ("efficientformer_l1", r"\(1, 49, 448\)"),
        ("coat_tiny", "a list"),
    ],
)
def test_models_without_a_grid_are_refused_by_name_before_their_weights_are_asked_for(name, gives):
    with pytest.raises(BackboneError, match=f"{name}: .* gives .*{gives}, not a grid of"):
        RiskScorer.attach(f"timm:{name}")


def small(**changes):
    made = timm.create_model("test_efficientnet", num_classes=0)
    made.pretrained_cfg = {**made.pretrained_cfg, **changes}
    return made


@pytest.mark.parametrize("missing", [["input_size"], ["mean", "std"], ["input_size", "mean", "std"]])
def test_a_data_config_that_states_no_preprocessing_is_refused(missing, tmp_path):
    made = small(**dict.fromkeys(missing))
    with pytest.raises(
        BackboneError, match=rf"EfficientNet: .*has no {', '.join(missing)}, .*image_processor="
    ):
        wrap_tower(made)
    assert wrap_tower(made, wrap_tower(small()).image_processor).dim == made.num_features
    save_for_hf(small(), tmp_path, model_config={"num_classes": 0}, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in missing:
        del config["pretrained_cfg"][key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=f"has no {', '.join(missing)}, .*config.json"):
        load_tower(f"timm:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("tf_eficientnet_lite0", "tf_efficientnet_lite0"),
        ("tf_efficientnet_lite0.in22k", r"tf_efficientnet_lite0\.in1k"),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused_with_close_ones(name, close):
    with pytest.raises(BackboneError, match=f"timm has no model '{name}': .*Close are .*{close}"):
        RiskScorer.attach(f"timm:{name}")


def test_pictures_smaller_than_the_stride_are_scored():
    scorer = RiskScorer.attach(small())
    images = [Image.new("RGB", size, "red") for size in [(1, 1), (1, 50), (31, 31), (500, 10), (300, 200)]]
    found = scorer.assess(images, heatmap=True)
    assert [one.reason for one in found] == [""] * 5
    scores = [one.score for one in found]
    assert scores == pytest.approx(scores[-1:] * 5, abs=1e-5)  # red all over, at any size
    assert all(one.heatmap is not None for one in found)


def test_another_layer_than_the_output_is_refused(model):
    with pytest.raises(BackboneError, match="is read at its tower's output"):
        wrap_tower(model, layer=-2)
