"""Images and prompts of `generate` and `stream`: single ones, and images that stand in a chat."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

from safevlm.types import Action, Verdict
from tests.guard.policies import GREEDY, allow_all
from tests.tiny import picture, tiny_guard

TEXT = {"type": "text", "text": "What is it?"}


@pytest.fixture(scope="module")
def guard():
    made = tiny_guard()
    made.policy = allow_all(made)
    return made


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def encoded(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_url(image) -> str:
    return f"data:image/png;base64,{base64.b64encode(encoded(image)).decode()}"


def test_a_single_prompt_stands_for_a_list_of_one_with_its_images(guard, tmp_path):
    picture(1).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    chat = user({"type": "image"}, TEXT)
    for images, prompts, same in (
        (path, "Hi", ([path], ["Hi"])),
        (str(path), ["Hi"], ([path], ["Hi"])),
        ([path], "Hi", ([path], ["Hi"])),
        ([path, picture(2)], "Hi", ([[path, picture(2)]], ["Hi"])),
        (np.asarray(picture(1)), "Hi", ([picture(1)], ["Hi"])),
        (None, "Hi", (None, ["Hi"])),
        (path, chat, ([path], [chat])),
        (path, [chat], ([path], [chat])),
    ):
        (expected,) = guard.generate(*same, **GREEDY)
        assert guard.generate(images, prompts, **GREEDY) == [expected]
        assert guard.stream(images, prompts, **GREEDY).text == expected.text
    once = guard.stream((one for one in [path]), (one for one in ["Hi"]), **GREEDY)
    assert once.text == guard.generate(path, "Hi", **GREEDY)[0].text


@pytest.mark.parametrize(
    ("images", "prompts", "kind", "said"),
    [
        (None, [], ValueError, "got no prompts"),
        (None, None, TypeError, "a prompt is a NoneType"),
        (None, {"role": "user", "content": "Hi"}, TypeError, "give a text, or a list of messages"),
        (5, "Hi", TypeError, "images has a int"),
        ([None], "Hi", TypeError, "an image is a PIL image, a path"),
        ([picture(), picture()], ["Hi"], ValueError, "2 image entries and 1 prompts; give one entry per prompt (None where there is no image, a list where a prompt has several: [[first, second]])"),
        (picture(), ["Hi", "Ho"], ValueError, "1 image entries and 2 prompts"),
        ([[[picture()]]], ["Hi"], TypeError, "got list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_a_sentence(guard, images, prompts, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        guard.generate(images, prompts, **GREEDY)


def test_images_in_a_chat_are_taken_from_there(guard, tmp_path):
    image = picture(1)
    image.save(tmp_path / "a.png")
    (expected,) = guard.generate([image], [user({"type": "image"}, TEXT)], **GREEDY)
    for part in (
        {"type": "image", "image": image},
        {"type": "image", "image": np.asarray(image)},
        {"type": "image", "image": str(tmp_path / "a.png")},
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "path": tmp_path / "a.png", "url": None},
        {"type": "image", "url": data_url(image)},
        {"type": "image", "base64": base64.b64encode(encoded(image)).decode()},
        {"type": "image_url", "image_url": {"url": data_url(image), "detail": "high"}},
        {"type": "image_url", "image_url": data_url(image)},
    ):
        chat = user(part, TEXT)
        assert guard.generate(None, chat, **GREEDY) == [expected], part["type"]
        assert len(part) > 1  # what the caller gave is not changed
    for images, prompts in ((None, [chat]), ([None], [chat]), ([[]], [chat])):
        assert guard.generate(images, prompts, **GREEDY) == [expected]
    assert guard.stream(None, chat, **GREEDY).text == expected.text


def test_images_of_several_turns_come_in_order(guard):
    first, second = picture(1), picture(2)
    chat = [
        *user({"type": "image", "image": first}, TEXT),
        {"role": "assistant", "content": "A cat."},
        *user(
            {"type": "image_url", "image_url": {"url": data_url(second)}},
            {"type": "text", "text": "And now?"},
        ),
    ]
    bare = [
        *user({"type": "image"}, TEXT),
        {"role": "assistant", "content": "A cat."},
        *user({"type": "image"}, {"type": "text", "text": "And now?"}),
    ]
    assert guard.generate(None, chat, **GREEDY) == guard.generate([first, second], bare, **GREEDY)


@pytest.mark.parametrize(
    ("images", "part", "said"),
    [
        ([picture()], {"type": "image", "image": picture()}, "1 images in its parts and 1 came beside it"),
        (
            None,
            {"type": "image", "image": picture(), "url": "data:image/png;base64,AA"},
            "give the image once",
        ),
        (None, {"type": "image", "url": "/etc/passwd"}, "no data: or http(s) URL"),
        (None, {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "no data: or http(s) URL"),
        (None, {"type": "image_url", "image_url": None}, "no data: or http(s) URL"),
        (
            None,
            {"type": "image_url", "image_url": {"url": "data:", "file_id": "1"}},
            "file_id, which is not read",
        ),
        (None, {"type": "image", "path": "https://example.org/a.png"}, "no path of a file"),
        (None, {"type": "image", "path": picture()}, "no path of a file"),
        (None, {"type": "image", "image": picture(), "caption": "x"}, "'caption', which is not read"),
        (None, {"type": "video", "path": "a.mp4"}, "'video', which is not read"),
    ],
)
def test_what_is_not_read_of_a_chat_is_refused(guard, images, part, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        guard.generate(images, user(part, TEXT), **GREEDY)


def test_an_image_of_a_chat_that_cannot_be_read_is_undecided_and_refused(guard):
    for part in (
        {"type": "image", "path": "missing.png"},
        {"type": "image", "url": "https://example.org/a.png"},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}},
    ):
        (reply,) = guard.generate(None, user(part, TEXT), **GREEDY)
        assert (reply.action, reply.assessment.verdict) == (Action.REFUSE, Verdict.UNDECIDED)
