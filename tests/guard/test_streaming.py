"""Answers piece by piece: the same text as in one piece, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from safevlm.backbone import AnswerStreamer, answer_texts
from safevlm.types import Action
from tests.guard.policies import GREEDY, allow_all, hint_all, refuse_all
from tests.tiny import picture

POLICIES = {"allow": allow_all, "hint": hint_all, "refuse": refuse_all}


@pytest.mark.parametrize("kind", POLICIES)
def test_a_streamed_reply_is_that_of_generate_to_the_last_character(guard, kind):
    policy = POLICIES[kind](guard)
    for image in (picture(1), [picture(1), picture(2)], None):
        whole = guard.generate([image], ["Hi"], policy=policy, max_new_tokens=20, do_sample=False)[0]
        reply = guard.stream(image, "Hi", policy=policy, max_new_tokens=20, do_sample=False)
        assert "".join(reply) == whole.text
        assert (reply.text, reply.action, reply.hint) == (whole.text, whole.action, whole.hint)
        assert (reply.assessment is None) == (image is None)
        assert image is None or reply.assessment.score == whole.assessment.score


def test_a_refusal_is_one_piece(guard):
    policy = refuse_all(guard)
    assert list(guard.stream(picture(1), "Hi", policy=policy, **GREEDY)) == [policy.refusal]


def test_a_reply_can_be_read_before_its_pieces(guard):
    options = {"policy": allow_all(guard), "max_new_tokens": 30, "do_sample": False}
    reply = guard.stream(picture(1), "Hi", **options)
    assert repr(reply) == "StreamedReply(not whole)"
    first = next(reply)
    assert reply.action is Action.ALLOW
    assert first + "".join(reply) == reply.text
    assert repr(reply.text) in repr(reply)
    assert "\n" not in repr(reply)


TEXTS = {
    "words": "I see a cat, and it's asleep.",
    "lines": "One:\n\n- two\n- three\n",
    "characters of several tokens": "\u56fe\u4e2d\u6709\u4e00\u53ea\u732b\u3002 \U0001f408 \u042d\u0442\u043e \u043a\u043e\u0442",
    "spaces around": "   a b   ",
    "nothing": "",
}


@pytest.mark.parametrize("cleans", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_pieces_make_up_the_text_whatever_the_tokens_do(guard, case, cleans):
    """The tokenizer's tokens are bytes, so that characters and words come in parts."""
    tokenizer = guard.tokenizer
    tokenizer.clean_up_tokenization_spaces = cleans
    ids = tokenizer(TEXTS[case], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    streamer = AnswerStreamer(guard.backbone, {})
    streamer.put(torch.tensor([[5, 6, 7]]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    pieces = list(streamer)
    (text,) = answer_texts(guard.backbone, torch.tensor([ids]), {})
    assert "".join(pieces) == text.strip()
    assert len(pieces) > 1 or not text.count(" ") or case == "spaces around"
    assert "\ufffd" not in "".join(pieces)


def test_stream_raises_what_generate_raises(guard):
    with pytest.raises(ValueError, match="empty and has no image"):
        list(guard.stream(None, "", **GREEDY))
    with pytest.raises(ValueError, match="empty and has no image"):
        _ = guard.stream(None, "", **GREEDY).text
    with pytest.raises(ValueError, match="stream answers one prompt, 2 were given"):
        guard.stream(picture(), ["a", "b"])


def test_a_stream_that_is_given_up_leaves_nothing_behind(guard):
    expected = guard.assess([picture(2)])[0].score
    reply = guard.stream(picture(1), "Hi", policy=allow_all(guard), max_new_tokens=200, do_sample=False)
    begun = next(reply)
    assert guard.assess([picture(2)])[0].score == expected  # waits for the stream's own pass
    reply.close()
    assert reply.text.startswith(begun)
    assert "forward" not in vars(guard.backbone.tower.module)
    assert not guard.language_model.get_input_embeddings()._forward_hooks
    assert guard.assess([picture(2)])[0].score == expected
    unread = guard.stream(picture(1), "Hi", **GREEDY)
    unread.close()
    with pytest.raises(ValueError, match="closed before it began"):
        _ = unread.text
