"""Conversations: a question belongs to the answer that follows it, whoever wrote them down."""

from __future__ import annotations

import pytest

from safevlm.data.placeholders import count_placeholders, without_placeholders
from safevlm.labelled.raw import BadRowError
from safevlm.labelled.turns import Exchange, read_exchange


def human(value):
    return {"from": "human", "value": value}


def gpt(value):
    return {"from": "gpt", "value": value}


def turns(asks, answers, speaker="from", text="value"):
    return [{speaker: asks, text: "<image>\nWhat is it?"}, {speaker: answers, text: "A cat."}]


CAT = ("What is it?", "A cat.")
PARTS = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
READ = {
    "LLaVA": turns("human", "gpt"),
    "the authors": turns("USER", "ASSISTANT"),
    "capitals": turns("Human", "GPT"),
    "user, assistant": turns("user", "assistant"),
    "gpt4": turns("user", "gpt4"),
    "bot": turns("user", "bot"),
    "model": turns("user", "model"),
    "role, content": turns("user", "assistant", "role", "content"),
    "role, value": turns("user", "assistant", "role", "value"),
    "Vicuna's": turns("USER:", "ASSISTANT:"),
    "spaces": turns(" user ", "assistant\n"),
    "both fields, one empty": [t | {"role": None, "content": None} for t in turns("human", "gpt")],
    "answer first": [gpt("Hello, ask me."), *turns("human", "gpt")],
    "system, answer first": [{"from": "system", "value": "Be brief."}, gpt("Hello."), *turns("human", "gpt")],
    "two questions": [human("<image>"), human("What is it?"), gpt("A cat.")],
    "two answers": [*turns("human", "gpt"), gpt("A dog.")],
    "an answer without words": [human("Say something?"), gpt(" "), *turns("human", "gpt")],
    "an empty answer before the answer": [human("What is it?"), gpt(""), gpt("A cat.")],
    "a question without words": [human("<image>"), gpt("Hello."), human("What is it?"), gpt("A cat.")],
    "an exchange before the image": [human("Hi."), gpt("Hello."), *turns("human", "gpt")],
    "later turns": [*turns("human", "gpt"), human("And now?"), gpt("A dog.")],
    "parts": [
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": [PARTS[1] | {"text": "A cat."}]},
    ],
    "text and parts": [{"role": "user", "content": ["What is it?", {"type": "image"}]}, gpt("A cat.")],
    "OpenAI's parts": [
        {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "A cat."}]},
    ],
    "Parquet's parts": [human([part | {"image": None, "index": 0} for part in PARTS]), gpt("A cat.")],
}


@pytest.mark.parametrize("kind", READ)
def test_a_question_goes_with_the_answer_behind_it(kind):
    found = read_exchange(READ[kind], "conversations")
    assert (found.prompt, found.response) == CAT


def test_several_questions_in_a_row_are_one():
    found = read_exchange([human("Look."), human("<image>\nWhat is it?"), gpt("A cat.")], "conversations")
    assert found == Exchange("Look.\nWhat is it?", "A cat.", placeholders=1)


def test_without_a_complete_exchange_nothing_is_paired():
    assert read_exchange([], "conversations") == Exchange()
    assert read_exchange([human("What?")], "conversations") == Exchange("What?")
    assert read_exchange([human("<image>"), gpt("A cat.")], "conversations") == Exchange(
        "", "A cat.", placeholders=1
    )
    assert read_exchange([gpt("Hi."), human("What?")], "conversations").response == ""


BEFORE, BEHIND = "turns before the exchange that is taken", "turns behind the exchange that is taken"
LEFT_OUT = {
    ("a system turn",): [{"role": "system", "content": "Be brief."}, *turns("human", "gpt")],
    (BEFORE,): [gpt("Hello."), *turns("human", "gpt")],
    (BEHIND,): READ["later turns"],
    (BEFORE, BEHIND): [*READ["an answer without words"], human("And?"), gpt("No.")],
    (): turns("human", "gpt"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_is_told(what):
    assert read_exchange(LEFT_OUT[what], "conversations").left_out == what


def test_images_of_turns_up_to_the_question():
    path = {"type": "image", "image": "a.png"}
    url = {"type": "image_url", "image_url": {"url": "b.png"}}
    found = read_exchange(
        [human([path, "Say?"]), gpt(""), human([url, "What?"]), gpt("A cat."), human([path])], "messages"
    )
    assert found.images == ("a.png", {"url": "b.png"})
    beside = [
        human("What?") | {"images": ["a.png"]},
        gpt("A cat.") | {"images": None},
    ]  # as Ollama writes them
    assert read_exchange(beside, "messages").images == ("a.png",)
    assert read_exchange([human("<image>\nWhat?") | {"image": "a.png"}], "messages").images == ("a.png",)


def test_an_exchange_before_the_image_does_not_stand_for_a_question_without_an_answer():
    found = read_exchange([human("Hi."), gpt("Hello."), human("<image>\nWhat?")], "conversations")
    assert (found.prompt, found.response, found.placeholders) == ("What?", "", 1)


def test_a_part_with_bytes_and_a_path_is_the_bytes_as_in_a_column():
    part = {"type": "image", "path": "on/another/machine.png", "bytes": b"PNG"}
    assert read_exchange([{"role": "user", "content": [part, "What is it?"]}], "messages").images == (b"PNG",)


BAD = {
    "no list": ("hi", "is not a list"),
    "a turn that is text": ([human("a"), "b"], "is not a list"),
    "no speaker": ([{"value": "What?"}, gpt("A cat.")], "turn 1 names no speaker"),
    "a tool": ([human("What?"), {"from": "tool", "value": "x"}, gpt("A cat.")], "turn 2 is from 'tool'"),
    "two speakers": ([human("What?") | {"role": "assistant"}, gpt("A cat.")], "'from' and 'role', which differ"),
    "two contents": ([human("What?") | {"content": "Who?"}, gpt("A cat.")], "'value' and 'content', which differ"),
    "a number": ([human(3), gpt("A cat.")], "turn 1 has a int where text belongs"),
    "no content": ([human("What?"), {"from": "gpt"}], "turn 2 has no text"),
    "an object": ([human({"a": 1}), gpt("A cat.")], "turn 1 has a part of type 'text'"),
    "audio": ([human([{"type": "audio", "url": "a.wav"}]), gpt("A cat.")], "turn 1 has a part of type 'audio'"),
    "image in an answer": ([human("What?"), gpt([{"type": "image"}])], "turn 2 has an image"),
    "placeholder in an answer": ([human("What?"), gpt("<image>")], "turn 2 has an image placeholder"),
    "a video": ([human("<video>\nWhat?"), gpt("A cat.")], "turn 1 shows a video"),
    "an image beside an answer": ([human("What?"), gpt("A cat.") | {"image": "a.png"}], "turn 2 has an image in"),
    "an image under another name": ([human("What?") | {"photo": "a.png"}], "turn 1 has an image in 'photo'"),
    "a part's under another name": ([human([{"type": "image", "file": "a.png"}])], "turn 1 has an image under"),
    "a label": ([human("What?"), gpt("A cat.") | {"risk_level": "refuse"}], "turn 2 has 'risk_level'"),
    "the authors' label": ([human("What?") | {"safe_level": 0}, gpt("A cat.")], "turn 1 has 'safe_level'"),
    "a name within an answer's placeholder": ([human("<image>a.png</image>"), gpt("A cat.")], "turn 1 shows"),
    "an answer alone": ([gpt("A cat.")], "no question before it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_turn_that_is_not_understood_makes_a_bad_row(kind):
    value, reason = BAD[kind]
    with pytest.raises(BadRowError) as raised:
        read_exchange(value, "conversations")
    assert reason in raised.value.reason
    assert raised.value.column == "conversations"


@pytest.mark.parametrize(
    ("text", "count", "left"),
    [
        ("<image>\nWhat?", 1, "What?"),
        ("What?\n<image>", 1, "What?"),
        ("Is <image> a cat?", 1, "Is a cat?"),
        ("Is<image>a cat?", 1, "Is a cat?"),
        ("One\n<image>\ntwo", 1, "One\ntwo"),
        ("<image_0> and <image_1>", 2, "and"),
        ("<|vision_start|><|image_pad|><|vision_end|>What?", 1, "What?"),
        ("<|image_1|>\nWhat?", 1, "What?"),
        ("[IMG]What?", 1, "What?"),
        ("<image-placeholder>\nWhat?", 1, "What?"),
        ("(<image>./</image>)\nWhat?", 1, "What?"),
        ("<image></image>What?", 1, "What?"),
        ("<im_start><image><im_end>\nWhat?", 1, "What?"),
        ("<img><IMG_CONTEXT></img>\nWhat?", 1, "What?"),
        ("<|begin_of_image|><|image|><|end_of_image|>What?", 1, "What?"),
        (" as it is  ", 0, " as it is  "),
        ("<imagery> of a cat", 0, "<imagery> of a cat"),
    ],
)
def test_placeholders(text, count, left):
    assert count_placeholders(text) == count
    assert without_placeholders(text) == left
