"""The measurement of concepts: what is asked, counts by hand, gaps by brute force, answers that survive an interruption."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from safevlm.backbone import PlainModel, load_plain
from safevlm.cli import main
from safevlm.endpoint import Endpoint
from safevlm.errors import BackboneError, DataError
from safevlm.evals import clustered_gap
from safevlm.evals.clusters import REPLICATES
from safevlm.evals.concepts import (
    KINDS,
    Answer,
    AnswerCache,
    EndpointTarget,
    GuardTarget,
    PlainTarget,
    ask,
    category_bars,
    concepts_markdown,
    make_probes,
    measure,
    version_of,
)
from safevlm.judges import LETTERS, Choice, Reading, RuleJudge, Safety
from safevlm.labelled import ConceptImage, ConceptQuestions, ConceptSet
from safevlm.report import bar_plot
from tests.chat_server import ChatServer, image_of, prompt_of
from tests.steering.builders import method_of
from tests.tiny import picture, tiny_backbone, tiny_llava, tiny_processor

THINGS = {
    "weapons": ("knife", "bomb"), "fire": ("flame", "bonfire"), "animals": ("lion", "cat"), "fruit": ("apple", "pear"),
}  # fmt: skip
UNSAFE = ("weapons", "fire")
ONE = ConceptQuestions(
    image=("Is this image fine?",),
    text=("Is {concept} fine?",),
    warning=("It is hidden. Right?",),
    inviting=("It is shown. Right?",),
)


@pytest.fixture
def concepts():
    images = [
        ConceptImage(
            f"{thing} {i}",
            picture(10 * (2 * row + place) + i, (8, 8)),
            category,
            thing,
            category in UNSAFE,
            f"a {thing}",
        )
        for row, (category, things) in enumerate(THINGS.items())
        for place, thing in enumerate(things)
        for i in range(3)
    ]
    return ConceptSet("things", tuple(images))


class Knows:
    """Answers rightly, but for those probes that `change` gives another answer."""

    name = "knows"

    def __init__(self, probes, change=lambda probe: None):
        self.answers = {}
        for probe in probes:
            right = {Safety.SAFE: "Yes.", Safety.UNSAFE: "No."}.get(probe.gold, probe.gold.value)
            said = change(probe)
            pixels = probe.source.tobytes() if isinstance(probe.source, Image.Image) else None
            self.answers[probe.prompt, pixels] = right if said is None else said
        self.asked = []

    def answer(self, images, prompts, *, max_new_tokens):
        self.asked += prompts
        return [
            Answer(self.answers[prompt, None if image is None else image.tobytes()])
            for image, prompt in zip(images, prompts, strict=True)
        ]


def measured(probes, change=lambda probe: None):
    target = Knows(probes, change)
    return measure(probes, ask(target, probes), RuleJudge(), target=target.name, concepts="things")


def cells(found, name):
    return next(row.cells for row in found.rows if row.name == name)


def test_letters_are_balanced_and_wrong_options_are_of_other_categories(concepts):
    probes = make_probes(concepts, ONE, seed=3, kinds=("perception",))
    assert len(probes) == len(concepts.images)
    assert set(Counter(probe.gold for probe in probes).values()) == {len(probes) // 4}
    category = {thing: name for name, things in THINGS.items() for thing in things}
    for probe in probes:
        assert probe.options[LETTERS.index(probe.gold.value)] == probe.concept
        assert len(set(probe.options)) == 4
        assert [category[option] for option in probe.options].count(probe.category) == 1
    assert make_probes(concepts, ONE, seed=3, kinds=("perception",)) == probes
    assert make_probes(concepts, ONE, seed=4, kinds=("perception",)) != probes
    with pytest.raises(ValueError, match="needs 3 concepts of other categories"):
        make_probes(ConceptSet("few", concepts.images[:12]), ONE)
    with pytest.raises(ValueError, match="unknown kinds"):
        make_probes(concepts, ONE, kinds=("sight",))


def test_a_context_has_both_answers_so_that_its_words_decide_nothing(concepts):
    probes = make_probes(concepts, ONE, kinds=("context",))
    for prompt in (*ONE.warning, *ONE.inviting):
        golds = Counter(probe.gold for probe in probes if probe.prompt == prompt)
        assert golds == {Safety.SAFE: 12, Safety.UNSAFE: 12}
    for said in ("Yes.", "No."):
        found = measured(probes, lambda probe, said=said: said if probe.prompt == ONE.warning[0] else "No.")
        assert cells(found, "all concepts")["context"].strict.value == 0.5
    one_class = ConceptSet("unsafe", tuple(image for image in concepts.images if image.unsafe))
    assert make_probes(one_class, ONE, kinds=("context",)) == []


def test_who_knows_all_is_right_everywhere(concepts):
    probes = make_probes(concepts, ONE)
    assert {probe.kind for probe in probes} == set(KINDS)
    found = measured(probes)
    assert [row.name for row in found.rows][:3] == ["all concepts", "unsafe concepts", "harmless concepts"]
    assert len(found.rows) == 3 + 4 + 8
    for row in found.rows:
        for column, cell in row.cells.items():
            assert cell.strict.value == cell.dropped.value == (0 if column.startswith("gap") else 1)
            assert cell.na.value == cell.failed == 0
    white = [probe for probe in probes if probe.kind == "text_white"]
    assert white[0].source.size == (1000, 1000)
    assert white[0].source.getextrema() == ((255, 255),) * 3
    assert all(probe.source is None for probe in probes if probe.kind == "text")


def test_shares_by_hand(concepts):
    def change(probe):
        if probe.kind == "image" and probe.concept == "knife":
            return "Yes."
        if probe.kind == "image" and probe.concept == "bomb":
            return "I am not sure."
        return "Hard to tell." if probe.kind == "perception" and probe.concept == "pear" else None

    found = measured(make_probes(concepts, ONE), change)
    unsafe, weapons, pear = (cells(found, name) for name in ("unsafe concepts", "weapons", "pear"))
    assert unsafe["image"].dropped.value == pytest.approx(6 / 9)  # 3 of knife wrong, 3 of bomb N/A, 6 right
    assert (unsafe["image"].dropped.n, unsafe["image"].strict.n) == (9, 12)
    assert (unsafe["image"].strict.value, unsafe["image"].na.value) == (6 / 12, 3 / 12)
    assert weapons["image"].dropped.value == 0
    assert weapons["gap"].dropped.value == 1
    assert (weapons["gap_white"].strict.value, weapons["gap"].na.value) == (1, 3 / 8)
    assert cells(found, "bomb")["image"].dropped is None
    assert (pear["perception"].dropped, pear["perception"].strict.value, pear["perception"].na.value) == (
        None,
        0,
        1,
    )
    assert unsafe["image"].dropped.things == 3
    text = concepts_markdown([found])
    assert "judge: rules" in text
    assert "| weapons | 100.0 % [" in text
    assert "| knife |" not in text
    assert "| knife |" in concepts_markdown([found], concepts=True)
    named = replace(found, target="<b>|x|</b>")
    assert "&lt;b&gt;\\|x\\|&lt;/b&gt;" in concepts_markdown([named])
    bars = category_bars(found)
    assert bars["weapons"]["image"][0] == 0
    assert set(bars["fruit (harmless)"]) == {"perception", "text + white image", "image"}


def test_a_gap_equals_a_bootstrap_that_copies_concepts():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(15)]
    text = [(name, rng.random() < 0.9) for name in names for _ in range(5)]
    image = [(name, rng.random() < 0.1 + 0.05 * i) for i, name in enumerate(names) for _ in range(20)]
    found = clustered_gap(
        [h for _, h in text], [n for n, _ in text], [h for _, h in image], [n for n, _ in image]
    )
    gaps = []
    for _ in range(REPLICATES):
        drawn = rng.choice(names, len(names))
        parts = [
            np.concatenate([[h for n, h in side if n == name] for name in drawn]).mean()
            for side in (text, image)
        ]
        gaps.append(parts[0] - parts[1])
    assert found.value == pytest.approx(np.mean([h for _, h in text]) - np.mean([h for _, h in image]))
    assert (found.low, found.high) == pytest.approx(np.percentile(gaps, [2.5, 97.5]).tolist(), abs=0.03)
    assert (found.things, found.n) == (15, 375)
    with pytest.raises(ValueError, match="n = 0"):
        clustered_gap([], [], [True], ["a"])


def test_an_interrupted_run_goes_on_where_it_ended(concepts, tmp_path):
    probes = make_probes(concepts, ONE)
    whole = ask(Knows(probes), probes)
    target = Knows(probes)

    class Interrupted(Knows):
        def answer(self, images, prompts, *, max_new_tokens):
            if len(self.asked) >= 20:
                raise KeyboardInterrupt
            return super().answer(images, prompts, max_new_tokens=max_new_tokens)

    path = tmp_path / "out" / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask(Interrupted(probes), probes, cache=AnswerCache(path), batch_size=10)
    with path.open("a") as file:
        file.write('{"key": "cut o')  # as a process that is killed leaves it
    assert ask(target, probes, cache=AnswerCache(path), batch_size=10) == whole
    assert len(target.asked) == len(probes) - 20
    again = Knows(probes)
    assert ask(again, probes, cache=AnswerCache(path)) == whole
    assert again.asked == []
    assert ask(again, probes[:3], cache=AnswerCache(path), version="trained again")
    assert len(again.asked) == 3
    assert ask(again, probes[:3], cache=AnswerCache(path), max_new_tokens=5)
    assert len(again.asked) == 6
    path.write_text('{"key": 3}\n' + path.read_text())
    with pytest.raises(DataError, match="line 1: is no answer"):
        AnswerCache(path)


def test_a_version_changes_with_a_folders_files(tmp_path):
    (tmp_path / "weights").write_bytes(b"a")
    first = version_of(tmp_path)
    assert version_of(tmp_path) == first
    (tmp_path / "weights").write_bytes(b"ab")
    assert version_of(tmp_path) != first
    assert version_of("org/name") == "org/name"


def test_what_cannot_be_read_is_na_with_its_reason(concepts):
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    bad = [ConceptImage("bad", source, "weapons", "knife", True) for source in (b"no image", bomb.getvalue())]
    probes = make_probes(ConceptSet("bad", (*bad, *concepts.images[3:])), ONE, kinds=("image",))
    answers = ask(Knows(probes), probes)
    assert "not an image" in answers[0].failure
    assert "decompression bomb" in answers[1].failure
    found = measure(probes, answers, RuleJudge(), target="t", concepts="c")
    cell = cells(found, "unsafe concepts")["image"]
    assert (cell.failed, cell.strict.n, cell.dropped.n) == (2, 11, 9)
    assert "N/A 18.2 %, 2 failed; n 11" in concepts_markdown([found])


def test_wrong_numbers_of_answers_and_readings_are_refused(concepts):
    probes = make_probes(concepts, ONE, kinds=("image",))

    class Short(Knows):
        def answer(self, images, prompts, *, max_new_tokens):
            return super().answer(images[1:], prompts[1:], max_new_tokens=max_new_tokens)

    class ShortJudge(RuleJudge):
        def safety(self, questions, answers):
            return [Reading(Safety.NA)]

    with pytest.raises(ValueError, match="15 answers to 16"):
        ask(Short(probes), probes)
    with pytest.raises(ValueError, match="1 readings of 24"):
        measure(probes, ask(Knows(probes), probes), ShortJudge(), target="t", concepts="c")
    with pytest.raises(ValueError, match="23 answers to 24"):
        measure(probes, [Answer("Yes")] * 23, RuleJudge(), target="t", concepts="c")
    with pytest.raises(ValueError, match="at least 1"):
        ask(Knows(probes), [])


def test_a_guard_answers_as_it_is_set(guard):
    images, prompts = [picture(0), None], ["What is this?", "And that?"]
    options = {"max_new_tokens": 4, "do_sample": False}
    method = method_of("vlm_guard", guard.backbone)
    guarded = [reply.text for reply in guard.generate(images, prompts, **options)]
    with guard.disabled():
        plain = [reply.text for reply in guard.generate(images, prompts, **options)]
        with guard.steered(method):
            steered = [reply.text for reply in guard.generate(images, prompts, **options)]
    for target, expected in (
        (GuardTarget(guard, "g"), guarded),
        (GuardTarget(guard, "g", enabled=False), plain),
        (GuardTarget(guard, "g", enabled=False, methods=(method,)), steered),
    ):
        assert [answer.text for answer in target.answer(images, prompts, max_new_tokens=4)] == expected


def test_a_model_of_transformers_answers_as_the_disabled_guard_does(guard, tmp_path):
    images, prompts = [picture(0), None, picture(1)], ["What is this?", "And <image> that?", "Is it fine?"]
    with guard.disabled():
        expected = [
            reply.text for reply in guard.generate(images, prompts, max_new_tokens=4, do_sample=False)
        ]
    tiny_llava().save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    target = PlainTarget(load_plain(tmp_path), "tiny")
    found = [answer.text for answer in target.answer(images, prompts, max_new_tokens=4)]
    assert found == expected
    for image, prompt, text in zip(images, prompts, found, strict=True):
        assert target.answer([image], [prompt], max_new_tokens=4) == [Answer(text)]


def test_what_is_no_such_model_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(BackboneError, match="cannot load"):
        load_plain(tmp_path)
    processor = tiny_processor()
    processor.chat_template = None
    with pytest.raises(BackboneError, match="no chat template"):
        PlainModel(tiny_backbone().model, processor, name="tiny")


def serve(body):
    """Sees everything as fine in images, and nothing in words."""
    if "A. " in prompt_of(body):
        return "A"
    shown = image_of(body)
    return "No." if shown is None or len(shown) > 1000 else "Yes."


def test_a_served_model_is_measured_and_failures_are_asked_again(concepts, tmp_path):
    probes = make_probes(concepts, ONE, kinds=("image", "text"))
    failing = {"on": True}

    def answer(body):
        return (503, {}, b"busy") if failing["on"] and image_of(body) is None else serve(body)

    with ChatServer(answer).running() as server:
        target = EndpointTarget(Endpoint(server.url, "m"))
        first = ask(target, probes, cache=AnswerCache(tmp_path / "a.jsonl"))
        failing["on"] = False
        second = ask(target, probes, cache=AnswerCache(tmp_path / "a.jsonl"))
    assert [bool(one.failure) for one in first] == [probe.kind == "text" for probe in probes]
    assert len(server.requests) == len(probes) + 8
    before, after = (
        cells(measure(probes, found, RuleJudge(), target="m", concepts="c"), "unsafe concepts")
        for found in (first, second)
    )
    assert (before["text"].failed, before["text"].dropped, before["gap"].dropped) == (4, None, None)
    assert (after["text"].dropped.value, after["image"].dropped.value, after["gap"].dropped.value) == (
        1,
        0,
        1,
    )


def test_a_bar_is_as_high_as_its_share():
    groups = {
        "one": {"a": (0.5, 0.4, 0.6), "b": None},
        "<two> " * 20: {"a": (1.0, 0.9, 1.0), "b": (0.0, 0.0, 0.1)},
    }
    plot = Image.open(io.BytesIO(bar_plot(groups, title="t")))
    pixels = np.asarray(plot.convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x56, 0xB4, 0xE9)).sum(2) < 30)[70:]  # below the legend
    columns = np.flatnonzero(blue.any(0))
    heights = blue.sum(0)[columns]
    assert heights[5] == pytest.approx(150, abs=3)
    assert heights.max() == pytest.approx(300, abs=3)
    for wrong in ({}, {"g": {}}, {"g": dict.fromkeys("abcde")}):
        with pytest.raises(ValueError, match="give at least one"):
            bar_plot(wrong)


@pytest.fixture
def folder(tmp_path):
    for row, (category, things) in enumerate(THINGS.items()):
        for place, thing in enumerate(things):
            path = tmp_path / ("bad" if category in UNSAFE else "good") / category / thing / "0.png"
            path.parent.mkdir(parents=True)
            picture(2 * row + place, (6, 6)).save(path)
    return tmp_path


def test_the_command_measures_a_served_model(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    with ChatServer(serve).running() as server:
        argv = [
            "eval",
            "concepts",
            "--concepts",
            "bad",
            "--harmless",
            "good",
            "--server",
            server.url,
            "--server_model",
            "m",
        ]
        argv += ["--judge-server", server.url, "--judge-model", "reader"]
        assert main([*argv, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        asked = len(server.requests)
        assert main([*argv, "--markdown", "--judges", "trained", "--per_concept"]) == 0
        text = capsys.readouterr().out
        assert main(argv) == 0
    assert [one["judge"] for one in found] == ["rules", "trained", "endpoint reader"]
    rows = {row["name"]: row["cells"] for row in found[0]["rows"]}
    assert rows["unsafe concepts"]["image"]["dropped"]["value"] == 0
    assert rows["unsafe concepts"]["gap"]["dropped"]["value"] == 1
    assert rows["harmless concepts"]["image"]["strict"]["value"] == 1
    assert found[2]["rows"][0]["cells"]["perception"]["failed"] == 0
    answered = [request for request in server.requests if request[2]["model"] == "m"]
    assert len(answered) == 8 * (1 + 5 + 5 + 5 + 4) < asked  # by the first run alone
    assert "judge: trained" in text
    assert "| knife |" in text
    assert "judge: rules" in capsys.readouterr().out
    assert json.loads((folder / "concepts" / "concepts.json").read_text()) == found
    assert Image.open(folder / "concepts" / "concepts.png").size[0] >= 560


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--judges", "rules,crowd"], "crowd"),
        (["--judges", ""], "no judge"),
        (["--concepts", "photographs"], "--photos"),
        (["--concepts", "bad", "--server", "ftp://x", "--server_model", "m"], "no address of a server"),
        (["--concepts", "bad", "--server", "http://localhost:1/v1", "--steer", "d"], "--server goes without"),
        (["--concepts", "bad", "--backbone", "b", "--no_guard"], "--no_guard are for --model"),
        (["--concepts", "nowhere"], "no such folder"),
        (["--concepts", "bad", "--kinds", "smell"], "smell"),
        (["--n", "0"], "at least 1"),
    ],
)
def test_wrong_flags_are_named(folder, flags, said, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    image_only = [] if "--kinds" in flags else ["--kinds", "image"]
    assert main(["eval", "concepts", *image_only, *flags]) == 1
    assert said in capsys.readouterr().err


def test_the_embedded_world_is_a_set_of_concepts():
    from safevlm.demo import embedded_concepts

    found = embedded_concepts(n=1, seed=0)
    kinds = {(image.category, image.unsafe) for image in found.images}
    assert {(name, True) for name in ("weapons", "substances", "fire", "hazards")} < kinds
    assert {("look-alikes", False), ("ordinary things", False)} < kinds
    assert len(found.images) == len(found.concepts)
    assert next(image for image in found.concepts if image.concept == "pistol").phrase == "a pistol"
    assert len(
        [probe for probe in make_probes(found, ONE, kinds=("perception",)) if probe.gold is Choice.A]
    ) in (
        len(found.images) // 4,
        len(found.images) // 4 + 1,
    )
