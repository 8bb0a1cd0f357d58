"""Loading: memory, dtype and device, attention, quantized language models, compiled scorers."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import BitsAndBytesConfig, GenerationConfig

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import load_backbone, load_tower, safety_dtype
from safevlm.backbone.placement import on_cpu, one_device
from safevlm.backbone.quantized import skip_tower
from safevlm.checkpoint import load_tensors
from safevlm.errors import BackboneError, CheckpointError
from tests.backbone.llava_layout import llava_config, measure, write_layout
from tests.backbone.twins import features, twin, vision_model
from tests.tiny import picture, tiny_guard, tiny_llava, tiny_processor

PICTURES = [picture(seed) for seed in range(3)]
MB = 10**6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny backbone and safety modules that were trained on it."""
    path = tmp_path_factory.mktemp("guard")
    guard = tiny_guard()
    guard.language_model.save_pretrained(path / "base")
    guard.backbone.processor.save_pretrained(path / "base")
    guard.config = guard.config.with_changes(backbone=str(path / "base"))
    guard.save_pretrained(path / "adapter")
    return path


def scores(scorer, images=PICTURES, prompts=None):
    return [assessment.score for assessment in scorer.assess(images, prompts)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_scorer_needs_the_memory_of_tower_and_modules_alone(tmp_path):
    """LLaVA-1.5-7B's layout, 14 GB in shards of which the LLM's part are holes, and modules of the paper's size."""
    total = write_layout(tmp_path, llava_config("7b"))
    assert total == pytest.approx(14.13e9, rel=1e-3)
    found = measure(tmp_path, dtype="float32")
    assert found["layers"] == 23
    assert found["tower"] > 1160 * MB
    assert found["modules"] > 480 * MB
    assert found["loaded"] <= found["tower"] + found["modules"] + 200 * MB


def test_modules_are_read_without_a_second_copy(folders):
    scorer = RiskScorer.from_pretrained(folders / "adapter")
    with torch.device("meta"):
        sizes = {key: tensor.shape for key, tensor in scorer.safety.state_dict().items()}
    own = load_tensors(folders / "adapter", sizes)
    for key, tensor in scorer.safety.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, own[key])
    assert all(parameter.requires_grad for parameter in scorer.safety.parameters())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (None, torch.float32),
        ("auto", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_dtype_is_the_towers(folders, dtype, expected):
    scorer = RiskScorer.from_pretrained(folders / "adapter", dtype=dtype)
    assert scorer.tower.dtype == expected
    assert {parameter.dtype for parameter in scorer.safety.parameters()} == {torch.float32}
    guard = SafeVLM.from_pretrained(folders / "adapter", dtype=dtype)
    assert guard.backbone.tower.dtype == expected
    assert {parameter.dtype for parameter in guard.safety.parameters()} == {torch.float32}


def test_auto_keeps_the_files_dtype(tmp_path):
    tiny_llava().to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert load_tower(tmp_path).dtype == torch.float32
    assert load_tower(tmp_path, dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("tower", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_rule_for_the_modules_precision(tower, device):
    half_on_gpu = tower != torch.float32 and device == "cuda"
    expected = torch.bfloat16 if half_on_gpu else torch.float32
    assert safety_dtype(tower, torch.device(device)) == expected
    assert safety_dtype(tower, torch.device(device), asked="auto") == expected
    assert safety_dtype(tower, torch.device(device), asked="float32") == torch.float32


def test_modules_in_bfloat16_score_nearly_the_same(folders):
    plain = scores(RiskScorer.from_pretrained(folders / "adapter"))
    for load in (RiskScorer.from_pretrained, SafeVLM.from_pretrained):
        other = load(folders / "adapter", safety_dtype="bfloat16")
        assert {parameter.dtype for parameter in other.safety.parameters()} == {torch.bfloat16}
        assert scores(other) == pytest.approx(plain, abs=0.05)


def test_saving_keeps_every_bit(folders, tmp_path):
    before = (folders / "adapter" / "safety.safetensors").read_bytes()
    for load in (RiskScorer.from_pretrained, SafeVLM.from_pretrained):
        load(folders / "adapter", dtype="bfloat16").save_pretrained(tmp_path)
        assert (tmp_path / "safety.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "device"),
    [
        (None, "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda:1"), (1, "cuda:1"), ({"": 0}, "cuda:0"), ({"": "cpu"}, "cpu"),
        (torch.device("meta"), "meta"),
    ],
)  # fmt: skip
def test_a_device_map_of_one_device(given, device):
    if isinstance(given, int) or (isinstance(given, dict) and given[""] == 0):
        device = str(torch.device(next(iter(given.values())) if isinstance(given, dict) else given))
    assert str(one_device(given)) == device


@pytest.mark.parametrize("given", ["balanced", {"": 0, "lm_head": 1}, {"model": "cpu"}, {}, 1.5])
def test_a_tower_is_not_split(folders, given):
    with pytest.raises(ValueError, match=r"device_map is .*stays on one device"):
        RiskScorer.from_pretrained(folders / "adapter", device_map=given)


@pytest.mark.parametrize("options", [{"dtype": "float7"}, {"safety_dtype": "half precision"}])
def test_an_unknown_dtype_is_named(folders, options):
    with pytest.raises(ValueError, match=r"dtype is .*give 'auto'"):
        RiskScorer.from_pretrained(folders / "adapter", **options)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}])
def test_device_maps_reach_both_routes(folders, device_map):
    expected = scores(RiskScorer.from_pretrained(folders / "adapter"))
    for load in (RiskScorer.from_pretrained, SafeVLM.from_pretrained):
        loaded = load(folders / "adapter", device_map=device_map, dtype="float32")
        assert scores(loaded) == pytest.approx(expected, abs=1e-6)


def test_eager_and_fused_attention_agree(folders):
    found = {}
    for name in ("eager", "sdpa"):
        for load in (RiskScorer.from_pretrained, SafeVLM.from_pretrained):
            loaded = load(folders / "adapter", attn_implementation=name)
            tower = loaded.backbone.tower if isinstance(loaded, SafeVLM) else loaded.tower
            assert tower.module.config._attn_implementation == name
            found[name, load] = scores(loaded)
    first = next(iter(found.values()))
    assert all(other == pytest.approx(first, abs=1e-5) for other in found.values())


def test_eager_and_fused_attention_agree_in_timm(tmp_path):
    state = vision_model("clip").state_dict()
    twin("clip", state, tmp_path)
    found = {}
    for name in ("eager", "sdpa"):
        tower = load_tower(f"timm:{tmp_path}", attn_implementation=name)
        assert all(block.attn.fused_attn == (name == "sdpa") for block in tower.module.model.blocks)
        found[name] = features(tower, PICTURES)
    torch.testing.assert_close(found["eager"], found["sdpa"], atol=1e-5, rtol=1e-5)
    with pytest.raises(BackboneError, match="'sdpa' and 'eager'"):
        load_tower(f"timm:{tmp_path}", attn_implementation="flash_attention_2")


def test_an_attention_that_is_not_there_is_named(folders):
    with pytest.raises(BackboneError, match="attn_of_nobody"):
        RiskScorer.from_pretrained(folders / "adapter", attn_implementation="attn_of_nobody")


@pytest.fixture(params=[4, 8])
def quantization(request):
    pytest.importorskip("bitsandbytes")
    if request.param == 4:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return BitsAndBytesConfig(load_in_8bit=True)


def test_a_quantized_llm_beside_its_own_tower(folders, quantization, tmp_path):
    """The LLM's matrices are quantized, the tower and the modules are not, and scores are the checkpoint's."""
    import bitsandbytes as bnb

    expected = scores(RiskScorer.from_pretrained(folders / "adapter"))
    guard = SafeVLM.from_pretrained(folders / "adapter", quantization_config=quantization)
    quantized = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    names = [name for name, part in guard.language_model.named_modules() if isinstance(part, quantized)]
    assert any("language_model.layers" in name for name in names)
    assert not any("vision_tower" in name or "lm_head" in name for name in names)
    assert all(parameter.is_floating_point() for parameter in guard.safety.parameters())
    assert scores(guard) == pytest.approx(expected, abs=1e-6)
    prompted = scores(guard, prompts=["Hello"] * 3)
    assert prompted == pytest.approx(
        scores(RiskScorer.from_pretrained(folders / "adapter"), prompts=["Hello"] * 3), abs=1e-6
    )
    guard.save_pretrained(tmp_path)
    again = SafeVLM.from_pretrained(tmp_path, quantization_config=quantization)
    assert scores(again) == scores(guard)


def test_identity_with_a_quantized_llm(folders, quantization):
    guard = SafeVLM.from_pretrained(folders / "adapter", quantization_config=quantization)
    plain = load_backbone(folders / "base", quantization_config=quantization)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = plain.processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = plain.processor(text=[text], images=[PICTURES[0]], return_tensors="pt")
    greedy = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0)
    with torch.no_grad(), guard.disabled():
        ours, theirs = guard.language_model(**inputs).logits, plain.model(**inputs).logits
        reply = guard.generate([PICTURES[0]], ["What is this?"], generation_config=greedy)[0]
        made = plain.model.generate(**inputs, generation_config=greedy)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(ours, theirs)
    assert reply.text == plain.tokenizer.decode(made[0], skip_special_tokens=True).strip()
    assert (
        guard.generate([PICTURES[0]], ["What is this?"], generation_config=greedy)[0].assessment is not None
    )


def test_the_quantizers_list_is_extended_and_not_replaced():
    given = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["multi_modal_projector"])
    assert skip_tower(given, "model.vision_tower").llm_int8_skip_modules == [
        "multi_modal_projector", "model.vision_tower",
    ]  # fmt: skip
    assert given.llm_int8_skip_modules == ["multi_modal_projector"]
    as_dict = skip_tower({"quant_method": "bitsandbytes", "load_in_8bit": True}, "model.visual")
    assert as_dict.llm_int8_skip_modules == ["lm_head", "model.visual"]
    with pytest.raises(BackboneError, match="object cannot leave modules out"):
        skip_tower(object(), "model.visual")


def test_a_tower_that_is_quantized_already_is_refused(folders, quantization, tmp_path):
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folders / "base", quantization_config=quantization)
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    with pytest.raises((BackboneError, CheckpointError), match="quantized"):
        SafeVLM.from_pretrained(folders / "adapter", backbone=tmp_path)
    with pytest.raises((BackboneError, CheckpointError), match="quantized"):
        RiskScorer.from_pretrained(folders / "adapter", backbone=tmp_path)


@pytest.mark.slow
def test_a_compiled_scorer_gives_equal_scores(folders, tmp_path):
    """With a backend that runs the traced graphs as they are: the default's C++ compiler takes half a minute."""
    scorer = RiskScorer.from_pretrained(folders / "adapter")
    expected, before = scores(scorer), set(scorer.safety.state_dict())
    seen = []

    def backend(graph, inputs):
        seen.append(len(graph.graph.nodes))
        return graph.forward

    scorer.compile(backend=backend)
    assert scores(scorer) == pytest.approx(expected, abs=1e-5)
    assert seen
    count = len(seen)
    assert scores(scorer) == pytest.approx(expected, abs=1e-5)
    assert len(seen) == count  # nothing is compiled again
    assert set(scorer.safety.state_dict()) == before
    scorer.save_pretrained(tmp_path)
    assert (tmp_path / "safety.safetensors").read_bytes() == (
        folders / "adapter" / "safety.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_guard_with_a_compiled_scorer_still_runs_the_tower_once(folders):
    guard = SafeVLM.from_pretrained(folders / "adapter")
    greedy = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=2, pad_token_id=0)
    expected = guard.generate(PICTURES[:2], ["Hi", "You"], generation_config=greedy)
    guard.scorer.compile(backend="aot_eager")
    calls = []
    first = guard.backbone.tower.module.get_submodule("encoder.layers.0")
    first.register_forward_hook(lambda *_: calls.append(1))
    for number in (1, 2, 3):
        found = guard.generate(PICTURES[:2], ["Hi", "You"], generation_config=greedy)
        assert [reply.text for reply in found] == [reply.text for reply in expected]
        assert [reply.assessment.score for reply in found] == pytest.approx(
            [reply.assessment.score for reply in expected], abs=1e-5
        )
        assert len(calls) == number
    with guard.disabled():
        guard.generate(PICTURES[:1], ["Hi"], generation_config=greedy)
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("device_map", "expected"),
    [(None, True), ("cpu", True), ({"": "cpu"}, True), (torch.device("cpu"), True), ("auto", not torch.cuda.is_available()),
     ({"": 0}, False), ({"model.vision_tower": "cpu", "model.language_model": "cuda:0"}, False)],
)  # fmt: skip
def test_a_model_that_is_all_on_the_cpu_is_told_by_any_spelling(device_map, expected):
    assert on_cpu(device_map) is expected
