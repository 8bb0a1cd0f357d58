"""Reading writing in images: words count as a prompt does, excuse nothing but themselves, and cost no verdict."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from safevlm import Policy, RiskScorer, SafeVLM
from safevlm.errors import CheckpointError
from safevlm.lettering import MAX_TEXT
from safevlm.types import ReadText, Verdict
from tests.tiny import picture, tiny_guard
from tests.writing import Knowing, reading, reading_scorer

IMAGES = [picture(seed, size) for seed, size in enumerate([(20, 24), (16, 16), (40, 18), (9, 31), (64, 64)])]
TEXTS = ["make a bomb", "", "Fresh bread, \n 2 for 3", RuntimeError("no memory"), "x" * 1000]
WORDS = ["make a bomb", "", "Fresh bread, 2 for 3", None, "x" * MAX_TEXT]
PROMPTS = ["What is this?", "And this?", "", "Hello", "Hi"]


def knowing() -> Knowing:
    return Knowing({image.tobytes(): text for image, text in zip(IMAGES, TEXTS, strict=True)})


def with_reader(
    guard: SafeVLM,
    read_text: ReadText = "always",
    threshold: float | None = None,
    reader: Knowing | None = None,
) -> RiskScorer:
    """The guard's scorer with a reader; images with at least the threshold's P(the first category) are worth reading."""
    worth = None if threshold is None else reading(guard.config.taxonomy.risky_categories[0], threshold)
    return reading_scorer(guard.scorer, reader or knowing(), read_text, worth)


def values(found):
    return [(one.score, one.verdict, dict(one.level_probabilities), one.category) for one in found]


@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_the_riskiest_of_image_words_and_prompt_with_words_counts(guard, prompts):
    plain, scorer = guard.scorer, with_reader(guard)
    found = scorer.assess(IMAGES, prompts)
    assert [one.read_text for one in found] == WORDS
    for n, (image, words, one) in enumerate(zip(IMAGES, WORDS, found, strict=True)):
        own = prompts[n] if prompts else ""
        asked = {own: "prompt" if own else "image"}
        if words:
            asked |= {words: "read_text"} | ({f"{own}\n{words}": "read_text"} if own else {})
        candidates = {prompt: plain.assess([image], [prompt])[0] for prompt in asked}
        riskiest = guard.policy.riskiest(list(candidates.values()))
        assert one.score == pytest.approx(riskiest.score, abs=1e-6)
        (prompt,) = (prompt for prompt, each in candidates.items() if each is riskiest)
        assert one.decided_by == asked[prompt]
    assert {one.decided_by for one in found} > {"read_text"}


def test_never_is_what_it_was_before(guard):
    plain = guard.scorer
    assert plain.lettering is None
    projected = plain.project(plain.tower(plain.preprocess(IMAGES)).views)
    for prompts in (None, PROMPTS):
        found = plain.assess(IMAGES, prompts)
        assert values(found) == values(plain.assess_output(plain.score(projected, prompts)))
        assert {one.read_text for one in found} == {None}


def test_images_below_the_threshold_are_not_read(guard):
    category = guard.config.taxonomy.risky_categories[0]
    chances = [one.category_probabilities[category] for one in guard.assess(IMAGES)]
    low, high = sorted(chances)[2:4]
    reader = knowing()
    found = with_reader(guard, "auto", (low + high) / 2, reader).assess(IMAGES)
    expected = [n for n, chance in enumerate(chances) if chance >= high]
    assert reader.seen == [IMAGES[n].size for n in expected]
    assert all(one.read_text is None for n, one in enumerate(found) if n not in expected)
    assert [found[n].read_text for n in expected] == [WORDS[n] for n in expected]


def test_the_threshold_is_of_the_image_alone_whatever_is_asked(guard):
    category = guard.config.taxonomy.risky_categories[0]
    chances = [one.category_probabilities[category] for one in guard.assess(IMAGES)]
    for threshold in (min(chances) / 2, (1 + max(chances)) / 2):
        readers = knowing(), knowing()
        for reader, prompts in zip(readers, (None, PROMPTS), strict=True):
            with_reader(guard, "auto", threshold, reader).assess(IMAGES, prompts)
        assert readers[0].seen == readers[1].seen


def test_words_excuse_the_category_of_writing_and_nothing_else(guard):
    """What remains of the image alone is the lower bound of its risk, whatever its words say."""
    category, plain = guard.config.taxonomy.risky_categories[0], guard.scorer
    scorer = with_reader(guard, "always", 0.5)
    for image, words, alone, one in zip(
        IMAGES, WORDS, plain.assess(IMAGES), scorer.assess(IMAGES), strict=True
    ):
        excused = words and words != "x" * MAX_TEXT  # of which there is more
        rest = guard.policy.without(alone, category) if excused else alone
        by_words = plain.assess([image], [words or ""])[0].score
        assert one.score == pytest.approx(max(rest.score, by_words) if words else alone.score, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
def test_without_a_category_is_the_verdict_with_it_off(guard, threshold):
    taxonomy = guard.config.taxonomy
    policy = Policy(taxonomy, threshold=threshold, thresholds={taxonomy.risky_categories[1]: threshold / 2})
    for risk, category in itertools.product(guard.assess(IMAGES), taxonomy.risky_categories):
        rest = policy.without(risk, category)
        off = dataclasses.replace(policy, off=frozenset({category})).assess(risk)
        assert policy.assess(rest).verdict is off.verdict
        assert policy.assess(rest).level == off.level
        for chances in (rest.level_probabilities, rest.category_probabilities):
            assert sum(chances.values()) == pytest.approx(1)
            assert list(chances) == list(
                risk.level_probabilities
                if chances is rest.level_probabilities
                else risk.category_probabilities
            )
        assert rest.score == pytest.approx(1 - rest.level_probabilities[taxonomy.safe_level])


@pytest.mark.parametrize("text", ["", RuntimeError("broken\x1b[2J"), MemoryError(), KeyError("a")])
def test_what_cannot_be_read_leaves_the_assessment_as_it_is(guard, text):
    scorer = with_reader(guard, "always", 0.5, Knowing({image.tobytes(): text for image in IMAGES}))
    found = scorer.assess(IMAGES, PROMPTS)
    assert values(found) == values(guard.scorer.assess(IMAGES, PROMPTS))
    for one in found:
        assert one.verdict is not Verdict.UNDECIDED
        if isinstance(text, Exception):
            assert one.read_text is None
            assert f"could not be read: {type(text).__name__}" in one.reason
        else:
            assert (one.read_text, one.reason) == ("", "")


def test_writing_beyond_what_is_judged_excuses_nothing(guard):
    """Else harmless words in front would hide what stands behind them."""
    image = IMAGES[0]
    (plain,) = guard.assess([image])
    found = []
    for text in ("x" * MAX_TEXT, "x" * MAX_TEXT + " make a bomb"):
        reader = Knowing({image.tobytes(): text})
        scorer = with_reader(guard, threshold=1e-9, reader=reader)
        found.append(scorer.assess([image])[0])
        (words,) = guard.assess([image], ["x" * MAX_TEXT])
        risk = guard.policy.without(plain, guard.config.taxonomy.risky_categories[0])
        alone = guard.policy.assess(risk) if len(text) == MAX_TEXT else plain
        assert found[-1].score == pytest.approx(guard.policy.riskiest([alone, words]).score, abs=1e-6)
    assert found[0].score <= found[1].score


def test_undecided_stays_undecided(guard):
    with torch.no_grad():
        guard.safety.head.level.bias[0] = float("nan")
    for one in with_reader(guard).assess(IMAGES):
        assert (one.verdict, one.score) == (Verdict.UNDECIDED, None)
        assert "not finite" in one.reason
    reader = knowing()
    with_reader(guard, "auto", 1e-9, reader).assess(IMAGES)
    assert reader.seen == []


def test_an_image_that_cannot_be_opened_is_not_read(guard):
    reader = knowing()
    found = with_reader(guard, reader=reader).assess([b"no image", IMAGES[0], b""], ["a", "b", "c"])
    assert [one.verdict is Verdict.UNDECIDED for one in found] == [True, False, True]
    assert [one.read_text for one in found] == [None, WORDS[0], None]
    assert len(reader.seen) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_a_batch_equals_its_items_in_order(guard, batch_size, prompts):
    scorer = with_reader(guard, "always", 0.5)
    together = scorer.assess(IMAGES, prompts, batch_size=batch_size, heatmap=True)
    for n, one in enumerate(together):
        (alone,) = scorer.assess([IMAGES[n]], [prompts[n]] if prompts else None, heatmap=True)
        assert one.score == pytest.approx(alone.score, abs=1e-6)
        assert (one.read_text, one.decided_by, one.reason) == (
            alone.read_text,
            alone.decided_by,
            alone.reason,
        )
        assert one.heatmap == pytest.approx(alone.heatmap, abs=1e-5)


def test_a_guard_assesses_image_prompt_and_words(guard):
    images = [IMAGES[0], None, [IMAGES[2], IMAGES[4]], IMAGES[1]]
    prompts = ["What is this?", "Hello", "And these?", "And this?"]
    plain = guard.scorer
    guard.scorer = with_reader(guard)
    seen = []
    patches = guard.backbone.tower.module.embeddings
    handle = patches.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    replies = guard.generate(images, prompts, max_new_tokens=2, do_sample=False)
    handle.remove()
    assert seen == [4]  # one pass over the four images
    assert replies[1].assessment is None
    for reply, numbers, prompt in zip(
        (replies[0], *replies[2:]),
        ((0,), (2, 4), (1,)),
        ("What is this?", "And these?", "And this?"),
        strict=True,
    ):
        asked = [(n, text) for n in numbers for text in ("", prompt, *_with_words(WORDS[n], prompt))]
        candidates = plain.assess([IMAGES[n] for n, _ in asked], [text for _, text in asked])
        assert reply.assessment.score == pytest.approx(guard.policy.riskiest(candidates).score, abs=1e-6)
    with guard.disabled():
        before = len(guard.scorer.lettering.reader.seen)
        guard.generate(images, prompts, max_new_tokens=2, do_sample=False)
        assert len(guard.scorer.lettering.reader.seen) == before


def _with_words(words: str | None, prompt: str) -> tuple[str, ...]:
    return (words, f"{prompt}\n{words}") if words else ()


def test_the_plain_form_says_what_was_read_and_what_decided(guard):
    (one,) = with_reader(guard).assess(IMAGES[:1])
    plain = one.to_dict()
    assert (plain["read_text"], plain["decided_by"]) == ("make a bomb", one.decided_by)


def test_an_unknown_choice_is_named(guard):
    with pytest.raises(ValueError, match="'sometimes'; choose one of never, auto, always"):
        with_reader(guard, "sometimes")


def test_auto_without_a_threshold_names_always():
    with pytest.raises(CheckpointError, match='use read_text "always"'):
        with_reader(tiny_guard(), "auto")


def test_modules_that_read_no_prompts_cannot_read(guard):
    alone = RiskScorer.attach(guard.backbone.tower, guard.config)
    with pytest.raises(CheckpointError, match="read no prompts"):
        RiskScorer(alone.tower, alone.safety, config=alone.config, read_text="always")


def test_images_are_needed_where_writing_is_read(guard):
    scorer = with_reader(guard)
    with pytest.raises(ValueError, match="give `images`"):
        scorer.assess_inputs(scorer.preprocess(IMAGES))
