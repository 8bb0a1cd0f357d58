"""RiskScorer without an LLM: what a score is, what is undecided, and that batches, threads and copies do not change it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from safevlm import Policy, RiskScorer, SafeVLM
from safevlm.config import Calibration, OperatingPoint
from safevlm.errors import CheckpointError
from safevlm.types import Verdict
from safevlm.viewing import head_output
from tests.tiny import picture, tiny_backbone, tiny_guard

IMAGES = [picture(seed, size) for seed, size in enumerate([(20, 24), (16, 16), (40, 18), (9, 31), (64, 64)])]
PROMPTS = ["Hello", "", "What is on this image, and who made it?", "x", "Hi there"]


@pytest.fixture
def scorer(guard) -> RiskScorer:
    return guard.scorer


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`base`: the tiny model in several shards; `adapter`: a guard on it."""
    folder = tmp_path_factory.mktemp("scorer")
    guard = tiny_guard()
    guard.language_model.save_pretrained(folder / "base", max_shard_size="20KB")
    guard.backbone.processor.save_pretrained(folder / "base")
    guard.config = guard.config.with_changes(backbone=str(folder / "base"))
    guard.save_pretrained(folder / "adapter")
    return folder


def scores(scorer: RiskScorer, images=IMAGES, prompts=None, **options) -> list[float | None]:
    return [found.score for found in scorer.assess(images, prompts, **options)]


def in_the_middle(scorer: RiskScorer) -> Policy:
    """A policy that calls some of IMAGES safe and others unsafe."""
    low, high = sorted(scores(scorer))[1:3]
    assert low < high
    return Policy(scorer.config.taxonomy, threshold=(low + high) / 2)


@torch.no_grad()
def level_logits(scorer: RiskScorer, images=IMAGES, prompts=None) -> torch.Tensor:
    """Of the plain modules, not folded."""
    views = scorer.tower(scorer.preprocess(images)).views
    return head_output(scorer.safety, views, table=scorer.prompt_table(), prompts=prompts).level_logits


def test_a_score_is_one_minus_the_probability_of_the_safe_level(scorer):
    for prompts in (None, PROMPTS):
        expected = 1 - level_logits(scorer, prompts=prompts).double().softmax(-1)[:, 0]
        assert scores(scorer, prompts=prompts) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_calibration_divides_the_logits_by_its_temperature(scorer):
    assert not scorer.assess(IMAGES[:1])[0].calibrated
    before = level_logits(scorer)
    scorer.config = scorer.config.with_changes(calibration=Calibration(2.5, "tune", 80))
    found = scorer.assess(IMAGES)
    expected = 1 - (before.double() / 2.5).softmax(-1)[:, 0]
    assert [one.score for one in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert all(one.calibrated for one in found)


def test_the_default_policy_is_at_the_operating_point(scorer):
    """And one that is given is used as it is."""
    config = scorer.config.with_changes(operating_point=OperatingPoint(0.2, 0.03, "tune", 200))
    parts = (scorer.tower, scorer.safety)
    assert RiskScorer(*parts, config=config).policy == Policy(config.taxonomy, threshold=0.2)
    assert RiskScorer(*parts, config=scorer.config).policy == Policy(config.taxonomy)
    given = Policy(config.taxonomy, threshold=0.7)
    assert RiskScorer(*parts, config=config, policy=given).assess(IMAGES)[0].threshold == 0.7


def test_a_calibration_assumes_its_prior(scorer):
    before = [s / (1 - s) for s in scores(scorer)]
    scorer.config = scorer.config.with_changes(calibration=Calibration(1.0, "t", 80, share=0.5, prior=0.1))
    assert [s / (1 - s) for s in scores(scorer)] == pytest.approx([odds / 9 for odds in before])


def test_probabilities_are_named_and_sum_to_one(scorer):
    taxonomy = scorer.config.taxonomy
    (found,) = scorer.assess(IMAGES[:1])
    assert tuple(found.level_probabilities) == taxonomy.levels
    assert tuple(found.category_probabilities) == taxonomy.category_names
    for values in (found.level_probabilities, found.category_probabilities):
        assert sum(values.values()) == pytest.approx(1)
    assert found.score == pytest.approx(1 - found.level_probabilities[taxonomy.safe_level])


@pytest.mark.parametrize("prompts", [None, PROMPTS])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_batch_equals_its_items(scorer, prompts, batch_size):
    together = scorer.assess(IMAGES, prompts, heatmap=True, batch_size=batch_size)
    for number, found in enumerate(together):
        own = None if prompts is None else [prompts[number]]
        (alone,) = scorer.assess([IMAGES[number]], own, heatmap=True)
        assert found.score == pytest.approx(alone.score, abs=1e-6)
        assert found.category == alone.category
        np.testing.assert_allclose(found.heatmap, alone.heatmap, atol=1e-5)


def test_an_empty_prompt_means_the_image_alone(scorer):
    alone, together = scores(scorer), scores(scorer, prompts=PROMPTS)
    same = [abs(one - other) < 1e-6 for one, other in zip(alone, together, strict=True)]
    assert same == [not prompt for prompt in PROMPTS]


def test_paths_bytes_and_images_score_alike(scorer, tmp_path):
    IMAGES[0].save(tmp_path / "a.png")
    buffer = io.BytesIO()
    IMAGES[0].save(buffer, "PNG")
    found = scores(scorer, [IMAGES[0], tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue()])
    assert found == pytest.approx([found[0]] * 4, abs=1e-6)


def test_what_cannot_be_read_is_undecided_and_moves_no_other(scorer, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    given = [broken, IMAGES[0], b"", tmp_path / "missing.png", IMAGES[1], broken]
    prompts = ["a", PROMPTS[0], "b", "c", PROMPTS[1], "d"]
    found = scorer.assess(given, prompts, heatmap=True, batch_size=2)
    for number in (0, 2, 3, 5):
        assert found[number].verdict is Verdict.UNDECIDED
        assert found[number].score is None
        assert found[number].heatmap is None
        assert found[number].reason
    expected = scores(scorer, IMAGES[:2], PROMPTS[:2])
    assert [found[1].score, found[4].score] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["level", "category"])
def test_a_logit_that_is_not_finite_is_undecided(scorer, part, value):
    with torch.no_grad():
        getattr(scorer.safety.head, part).bias[0] = value
    for found in scorer.assess(IMAGES, heatmap=True):
        assert found.verdict is Verdict.UNDECIDED
        assert found.score is None
        assert "not finite" in found.reason
        assert found.heatmap is None


def test_attention_that_is_not_finite_is_undecided(scorer):
    with torch.no_grad():
        scorer.safety.head.query_vector.fill_(float("nan"))
    (found,) = scorer.assess(IMAGES[:1], heatmap=True)
    assert (found.verdict, found.score, found.heatmap) == (Verdict.UNDECIDED, None, None)


def test_heatmaps_of_flagged_images_are_those_of_all(scorer):
    policy = in_the_middle(scorer)
    plain, flagged, whole = (
        scorer.assess(IMAGES, heatmap=asked, policy=policy) for asked in (False, "flagged", True)
    )
    assert {found.verdict for found in plain} == {Verdict.SAFE, Verdict.UNSAFE}
    assert all(found.heatmap is None for found in plain)
    for one, other in zip(flagged, whole, strict=True):
        assert (one.heatmap is None) == (one.verdict is Verdict.SAFE)
        assert one.heatmap is None or np.array_equal(one.heatmap, other.heatmap)
        assert other.heatmap.max() == 1
        assert other.heatmap.min() >= 0


def test_the_steps_give_what_assess_gives(scorer):
    """As a guard takes them: one projection, read alone and together with prompts."""
    projected = scorer.project(scorer.tower(scorer.preprocess(IMAGES)).views)
    for prompts in (None, PROMPTS):
        found = scorer.assess_output(scorer.score(projected, prompts))
        assert [one.score for one in found] == scores(scorer, prompts=prompts)


def test_a_changed_weight_changes_the_score_at_once(scorer):
    before = scores(scorer)
    with torch.no_grad():
        scorer.safety.projector.last.weight.mul_(-1)
    expected = 1 - level_logits(scorer).double().softmax(-1)[:, 0]
    assert scores(scorer) == pytest.approx(expected.tolist(), abs=1e-5)
    assert scores(scorer) != pytest.approx(before, abs=1e-3)


def test_any_changed_weight_changes_what_the_plain_modules_say_alike(scorer):
    scores(scorer)
    for name, weight in scorer.safety.named_parameters():
        with torch.no_grad():
            weight.add_(0.1)
        expected = 1 - level_logits(scorer).double().softmax(-1)[:, 0]
        assert scores(scorer) == pytest.approx(expected.tolist(), abs=1e-5), name


def test_compiling_keeps_the_scores(scorer):
    used = []

    def backend(graph, _):
        used.append(graph)
        return graph.forward

    before = scores(scorer, prompts=PROMPTS)
    names = list(scorer.safety.state_dict())
    scorer.compile(backend=backend)
    assert scores(scorer, prompts=PROMPTS) == pytest.approx(before, abs=1e-5)
    assert used
    assert list(scorer.safety.state_dict()) == names


def test_a_pickled_scorer_gives_equal_scores(scorer):
    scorer.policy = in_the_middle(scorer)
    before = scorer.assess(IMAGES, PROMPTS)
    again = pickle.loads(pickle.dumps(scorer))  # noqa: S301  # as workers get it
    assert [(one.score, one.verdict) for one in again.assess(IMAGES, PROMPTS)] == [
        (one.score, one.verdict) for one in before
    ]
    assert again.safety is not scorer.safety


@pytest.mark.parametrize(
    ("images", "prompts", "kind", "message"),
    [
        ([], None, ValueError, "got no images"),
        (IMAGES[:2], ["a"], ValueError, "2 images and 1 prompts"),
        (IMAGES[:1], [], ValueError, "1 images and 0 prompts"),
        (IMAGES[:2], ["a", None], TypeError, "prompt 1 is a NoneType"),
        (IMAGES[:1], [b"a"], TypeError, "prompt 0 is a bytes"),
    ],
)
def test_wrong_arguments_are_refused(scorer, images, prompts, kind, message):
    with pytest.raises(kind, match=message):
        scorer.assess(images, prompts)


def test_scorer_loads_without_the_llm(folders):
    scorer, guard = RiskScorer.from_pretrained(folders / "adapter"), tiny_guard()
    assert scores(scorer) == pytest.approx(scores(guard.scorer), abs=1e-6)
    own, whole = (dict(tower.module.named_parameters()) for tower in (scorer.tower, guard.backbone.tower))
    assert {name for name in whole if name not in own} == {name for name in whole if ".layers.1." in name}
    assert all(torch.equal(parameter, whole[name]) for name, parameter in own.items())
    loaded = SafeVLM.from_pretrained(folders / "adapter")
    assert loaded.assess(IMAGES[:1], ["Hi"])[0].score == guard.assess(IMAGES[:1], ["Hi"])[0].score
    assert loaded.scorer.name == scorer.name == str(folders / "adapter")


def test_scorer_reads_the_prompt_table_from_the_shards(folders):
    assert (folders / "base" / "model.safetensors.index.json").exists()
    scorer, guard = RiskScorer.from_pretrained(folders / "adapter"), tiny_guard()
    expected = scores(guard.scorer, prompts=PROMPTS)
    assert scores(scorer, prompts=PROMPTS) == pytest.approx(expected, abs=1e-6)
    assert scores(scorer)[0] != pytest.approx(expected[0], abs=1e-6)


def test_a_pickled_scorer_still_finds_its_prompt_table(folders):
    scorer = RiskScorer.from_pretrained(folders / "adapter")
    again = pickle.loads(pickle.dumps(scorer))  # noqa: S301
    assert scores(again, prompts=PROMPTS) == scores(scorer, prompts=PROMPTS)


def test_a_tower_in_memory_reads_prompts_where_the_checkpoint_says(folders):
    tower = tiny_backbone().tower
    scorer = RiskScorer.from_pretrained(folders / "adapter", backbone=tower)
    assert scorer.tower is tower
    expected = scores(tiny_guard().scorer, prompts=PROMPTS)
    assert scores(scorer, prompts=PROMPTS) == pytest.approx(expected, abs=1e-6)


def test_another_language_model_of_the_same_width_is_noticed(folders, tmp_path):
    other = tiny_backbone(seed=0)
    with torch.no_grad():
        other.input_embeddings.weight.normal_()
    with pytest.raises(CheckpointError, match="prompt_fingerprint"):
        SafeVLM.from_pretrained(folders / "adapter", backbone=other)
    other.model.save_pretrained(tmp_path)
    other.processor.save_pretrained(tmp_path)
    scorer = RiskScorer.from_pretrained(folders / "adapter", backbone=tmp_path)
    assert scores(scorer) == scores(tiny_guard().scorer)
    with pytest.raises(CheckpointError, match="prompt_fingerprint"):
        scorer.assess(IMAGES[:1], ["Hello"])


def test_saving_and_loading_keeps_config_and_scores(folders, tmp_path):
    scorer = RiskScorer.from_pretrained(folders / "adapter")
    scorer.save_pretrained(tmp_path / "again")
    again = RiskScorer.from_pretrained(tmp_path / "again")
    assert again.config == scorer.config
    assert scores(again, prompts=PROMPTS) == scores(scorer, prompts=PROMPTS)
