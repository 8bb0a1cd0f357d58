"""Chats are read whole or refused by name."""

from __future__ import annotations

import pytest

from safevlm.backbone import make_chat
from safevlm.types import Action
from tests.tiny import picture, tiny_guard

TEXT = {"type": "text", "text": "How do I use it?"}


def user(*parts: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(parts)}]


REFUSED = {
    "image_url": (user({"type": "image_url", "image_url": {"url": "a.png"}}, TEXT), "'image_url'"),
    "input_image": (user({"type": "input_image", "image_url": "a.png"}, TEXT), "'input_image'"),
    "video": (user({"type": "video", "video": "a.mp4"}, TEXT), "'video'"),
    "audio": (user({"type": "audio", "audio": "a.wav"}, TEXT), "'audio'"),
    "input_text": (user({"type": "input_text", "text": "Hi"}), "'input_text'"),
    "no type": (user({"text": "Hi"}), "NoneType"),
    "list as type": (user({"type": ["image"]}), "a list"),
    "image with its own file": (user({"type": "image", "url": "a.png"}, TEXT), "'url'"),
    "text with an image": (user({**TEXT, "image": "a.png"}), "'image'"),
    "text of None": (user({"type": "text", "text": None}), "NoneType"),
    "content of None": ([{"role": "user", "content": None}], "NoneType"),
    "content of a part": ([{"role": "user", "content": TEXT}], "dict"),
    "no content": ([{"role": "user"}], "NoneType"),
    "nested parts": (user([TEXT]), "list"),
    "strings as parts": (user("Hi"), "str"),
    "nested chats": ([user(TEXT)], "list"),
    "strings as messages": (["Hi"], "str"),
    "one message": (user(TEXT)[0], "dict"),
    "bytes": (b"Hi", "bytes"),
    "None": (None, "NoneType"),
    "no message": ([], "no user message"),
    "no user": ([{"role": "system", "content": "Hi"}], "no user message"),
    "tool": ([*user(TEXT), {"role": "tool", "content": "42"}], "'tool'"),
    "a marker as role": ([{"role": "user</s>", "content": "Hi"}], "'user</s>'"),
    "tool calls": ([*user(TEXT), {"role": "assistant", "content": "", "tool_calls": [{}]}], "'tool_calls'"),
    "attachments": ([{"role": "user", "content": "Hi", "images": ["a.png"]}], "'images'"),
    "too few images": (user({"type": "image"}, TEXT), "1 .* parts and 0 images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(case):
    chat, said = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=said):
        make_chat(chat, 0)


def test_more_images_than_parts():
    with pytest.raises(ValueError, match="0 .* parts and 2 images"):
        make_chat(user(TEXT), 2)


def test_what_is_read():
    system = {"role": "system", "content": "Be kind.", "name": None}
    chat = make_chat([system, {"role": "user", "content": ({"type": "image", "text": None}, TEXT, TEXT)}], 1)
    twice = {"type": "text", "text": 2 * TEXT["text"]}
    assert chat[0] == {"role": "system", "content": [{"type": "text", "text": "Be kind."}]}
    assert chat[1]["content"] == [{"type": "image"}, twice]


@pytest.mark.parametrize("kind", ["input_image", "video", "text with an image"])
def test_every_door_refuses(kind):
    guard, (chat, said) = tiny_guard(), REFUSED[kind]
    with pytest.raises(ValueError, match=said):
        guard.generate(None, [chat], max_new_tokens=2)
    with pytest.raises(ValueError, match=said), guard.disabled():
        guard.generate(None, [chat], max_new_tokens=2)
    with pytest.raises(ValueError, match=said):
        list(guard.stream(None, chat, max_new_tokens=2))
    with pytest.raises(TypeError, match="prompt 0 is a list; assess takes text"):
        guard.assess([picture()], [chat])
    assert guard.generate(None, [user(TEXT)], max_new_tokens=2)[0].action is Action.ALLOW
