"""Answers piece by piece: the same text as in one piece, and nothing left behind."""

from __future__ import annotations

import pytest

from tests.guard.policies import GREEDY, allow_all, refuse_all
from tests.tiny import picture


def test_stream_gives_the_pieces_of_generate(guard):
    policy = allow_all(guard)
    whole = guard.generate([picture(1)], ["Hi"], policy=policy, **GREEDY)[0].text
    pieces = list(guard.stream(picture(1), "Hi", policy=policy, **GREEDY))
    assert "".join(pieces).strip() == whole
    assert list(guard.stream(picture(1), "Hi", policy=refuse_all(guard), **GREEDY)) == [policy.refusal]


def test_stream_raises_what_generate_raises(guard):
    with pytest.raises(ValueError, match="empty and has no image"):
        list(guard.stream(None, "", **GREEDY))


def test_a_stream_that_is_given_up_leaves_nothing_behind(guard):
    expected = guard.assess([picture(2)])[0].score
    pieces = guard.stream(picture(1), "Hi", policy=allow_all(guard), max_new_tokens=200, do_sample=False)
    next(pieces)
    assert guard.assess([picture(2)])[0].score == expected  # waits for the stream's own pass
    pieces.close()
    assert "forward" not in vars(guard.backbone.tower.module)
    assert not guard.language_model.get_input_embeddings()._forward_hooks
    assert guard.assess([picture(2)])[0].score == expected
