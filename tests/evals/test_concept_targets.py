"""Who is asked about concepts, and what is kept of the answers."""

from __future__ import annotations

import pytest

from safevlm.backbone import PlainModel, load_plain
from safevlm.endpoint import Endpoint
from safevlm.errors import BackboneError, DataError
from safevlm.evals.concepts import (
    Answer,
    AnswerCache,
    EndpointTarget,
    GuardTarget,
    PlainTarget,
    ask,
    load_guard_target,
    load_plain_target,
    make_probes,
    measure,
    version_of,
)
from safevlm.judges import RuleJudge
from tests.chat_server import ChatServer, image_of
from tests.evals.concept_builders import ONE, Knows, cells, serve
from tests.steering.builders import method_of
from tests.tiny import picture, tiny_backbone, tiny_llava, tiny_processor


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


def test_an_embedded_models_plain_backbone_answers_under_either_name():
    images, prompts = [picture(0, (32, 32)), None], ["What does the image show?", "How do I use a kettle?"]
    disabled, version = load_guard_target("safevlm-mini", guard=False)
    plain, of_plain = load_plain_target("safevlm-mini-base")
    assert disabled.answer(images, prompts, max_new_tokens=6) == plain.answer(
        images, prompts, max_new_tokens=6
    )
    assert disabled.name == "safevlm-mini, plain backbone"
    assert of_plain in version
    assert load_guard_target("safevlm-mini")[1] != version


def test_what_is_no_such_model_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(BackboneError, match="cannot load"):
        load_plain(tmp_path)
    processor = tiny_processor()
    processor.chat_template = None
    with pytest.raises(BackboneError, match="no chat template"):
        PlainModel(tiny_backbone().model, processor, name="tiny")


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
