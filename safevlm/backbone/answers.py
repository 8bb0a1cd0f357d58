"""Answers as training needs them: the tokens that the model would generate after its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .load_backbone import Backbone


def answer_ids(backbone: Backbone, chat: Sequence[Mapping[str, Any]], answer: str) -> list[int]:
    """Tokens of an answer behind its prompt, up to the one that ends generation.

    Prompt and answer are tokenized together, as the template writes the conversation, and cut where the
    prompt's own tokens end. Where the two would share a token at the border, the prompt keeps the tokens that it
    has in generation and the answer is tokenized as what goes on behind them.

    Args:
        chat: a checked chat.
        answer: its text is taken literally.
    """
    family, tokenizer = backbone.family, backbone.tokenizer
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    asked, told = backbone.renderer(chat).text, backbone.renderer([*chat, reply], ask=False)
    prompt = family.text_alone(asked, tokenizer) or asked
    whole = family.text_alone(told.text, tokenizer) or told.text
    if whole.startswith(prompt):
        rest = whole[len(prompt) :]
    elif told.last is not None:
        rest = _after(prompt, told.text, told.last[0])
    else:
        rest = backbone.renderer.literal(answer)
    return _ended(_continued(tokenizer, prompt, rest.rstrip()), backbone.end_ids, tokenizer.eos_token_id)


def answer_texts(backbone: Backbone, answers: Tensor, generation_kwargs: Mapping[str, Any]) -> list[str]:
    """Generated tokens (B, L) as texts, each up to the token that ended it: padding may be an ordinary token."""
    given = generation_kwargs.get("eos_token_id")
    ends = backbone.end_ids if given is None else (given if isinstance(given, (list, tuple)) else (given,))
    rows = []
    for row in answers.tolist():
        end = next((position for position, number in enumerate(row) if number in ends), len(row))
        rows.append(row[: end + 1])
    texts: list[str] = backbone.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return texts


def _after(prompt: str, told: str, start: int) -> str:
    """The answer from `start` in a conversation that does not begin with the prompt, with the space before it."""
    space = told[len(told[:start].rstrip()) : start]
    return told[start:] if prompt.endswith(space) else space + told[start:]


def _continued(tokenizer: Any, before: str, after: str) -> list[int]:
    """Tokens of `after` where it stands behind `before`, whose own tokens stay as they are."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for start in (before, *_anchors(before)):
        own, both = tokens(start), tokens(start + after)
        if own and both[: len(own)] == own:
            return both[len(own) :]
    return tokens(after)


def _anchors(before: str) -> str:
    """Characters to try instead of `before`, those of its last one's kind first: one that does not merge with the answer."""
    words, others = "ae0xZ", "\n:.)>"
    return words + others if before[-1:].isalnum() else others + words


def _ended(ids: list[int], ends: Sequence[int], eos: int) -> list[int]:
    """Up to the first token that ends generation; one is added where the template writes none."""
    for position, number in enumerate(ids):
        if number in ends:
            return ids[: position + 1]
    return [*ids, eos if eos in ends else ends[0]]
