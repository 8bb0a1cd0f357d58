"""A conversation -> the exchange that is trained on: one question and the answer that follows it.

Turns are LLaVA's (`from`, `value`) or chat messages (`role`, `content`), and a content is text or a list
of parts. Nothing is guessed: a turn of another form or another speaker is a bad row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safevlm.data.placeholders import count_placeholders, has_other_media, without_placeholders
from safevlm.data.text import ANSWERING, ASKING, SYSTEM

from .images import FIELDS, holds_image
from .raw import AUTHORS, LABELS, BadRowError, is_empty

TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image", "image_path")
IMAGE_FIELDS = ("image", "image_path", *FIELDS)

OF_A_TURN = ("image", "images")
"""Where a message has its images beside its content."""


@dataclass(frozen=True)
class Exchange:
    """What is taken of a conversation.

    Args:
        prompt, response: text without `<image>`; empty where the conversation has none.
        images: what its parts name as images, up to the question that is taken.
        placeholders: how many images the turns up to there show by `<image>` or a part without a value.
        left_out: what is not used.
    """

    prompt: str = ""
    response: str = ""
    images: tuple[Any, ...] = ()
    placeholders: int = 0
    left_out: tuple[str, ...] = ()


@dataclass
class _Turn:
    speaker: str
    text: str
    images: list[Any] = field(default_factory=list)
    placeholders: int = 0


@dataclass
class _Pair:
    """A question of one or more turns, the answer to it, and the turns that it takes, `start` to `end` - 1."""

    question: str
    answer: str
    start: int
    end: int


def read_exchange(turns: Any, column: str) -> Exchange:
    """The first complete exchange of a conversation: consecutive questions as one, and the next answer.

    Where turns show an image, exchanges that end before the first of them are passed over. Without a
    complete exchange, it is the first question (that shows it) and what follows, which may be empty.

    Raises:
        BadRowError: no list of turns, an unknown speaker, content that is no text, or answers alone.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise BadRowError(column, "is not a list of {from, value} or {role, content} objects")
    read = [_turn(turn, f"turn {number}", column) for number, turn in enumerate(turns, 1)]
    pairs = _pairs(read)
    if not pairs:
        if any(turn.speaker == "answer" and turn.text for turn in read):
            raise BadRowError(column, "has an answer and no question before it")
        return Exchange(left_out=_left_out(read, _Pair("", "", 0, len(read))))
    shown = next((n for n, turn in enumerate(read, 1) if turn.images or turn.placeholders), 0)
    pairs = [pair for pair in pairs if pair.end >= shown] or pairs
    taken = next((pair for pair in pairs if pair.question and pair.answer), pairs[0])
    used = read[: taken.end]
    return Exchange(
        taken.question,
        taken.answer,
        tuple(image for turn in used for image in turn.images),
        sum(turn.placeholders for turn in used),
        _left_out(read, taken),
    )


def _pairs(turns: list[_Turn]) -> list[_Pair]:
    pairs: list[_Pair] = []
    open_ = False
    for number, turn in enumerate(turns, 1):
        if turn.speaker == "question":
            if open_:
                pairs[-1].question = "\n".join(filter(None, (pairs[-1].question, turn.text)))
                pairs[-1].end = number
            else:
                pairs.append(_Pair(turn.text, "", number - 1, number))
            open_ = True
        elif turn.speaker == "answer" and pairs:
            follows = pairs[-1].end == number - 1 and not pairs[-1].answer  # behind an answer without words
            if open_ or follows:
                pairs[-1].answer, pairs[-1].end, open_ = turn.text, number, False
    return pairs


def _left_out(turns: list[_Turn], taken: _Pair) -> tuple[str, ...]:
    spoken = {
        "a system turn": [turn for turn in turns if turn.speaker == "system"],
        "turns before the exchange that is taken": [
            turn for turn in turns[: taken.start] if turn.speaker != "system"
        ],
        "turns behind the exchange that is taken": [
            turn for turn in turns[taken.end :] if turn.speaker != "system"
        ],
    }
    return tuple(what for what, found in spoken.items() if any(turn.text for turn in found))


def _turn(turn: dict[str, Any], where: str, column: str) -> _Turn:
    speaker = _one_of(turn, ("from", "role"), where, column)
    content = _one_of(turn, ("value", "content"), where, column)
    if not isinstance(speaker, str):
        raise BadRowError(column, f"{where} names no speaker in `from` or `role`")
    name = speaker.strip().removesuffix(":").casefold()
    kinds = {"question": ASKING, "answer": ANSWERING, "system": SYSTEM}
    kind = next((kind for kind, names in kinds.items() if name in names), None)
    if kind is None:
        known = ", ".join((*ASKING, *ANSWERING, *SYSTEM))
        raise BadRowError(column, f"{where} is from {speaker!r:.60}; known are {known}")
    parts = content if isinstance(content, list) else [content]
    texts, found = [], _Turn(kind, "", _beside(turn, kind, where, column))
    for part in parts:
        text, image = _part(part, where, column)
        if text is not None:
            texts.append(text)
        elif kind != "question":
            raise BadRowError(column, f"{where} has an image, and only questions may show one")
        elif is_empty(image):
            found.placeholders += 1
        else:
            found.images.append(image)
    text = "\n".join(text for text in texts if text)
    if kind != "system" and has_other_media(text):
        raise BadRowError(column, f"{where} shows a video, sound, or an image written into its text")
    if kind == "question":
        found.placeholders = max(found.placeholders, count_placeholders(text))
        text = without_placeholders(text)
    elif kind == "answer" and count_placeholders(text):
        raise BadRowError(column, f"{where} has an image placeholder in an answer")
    found.text = text.strip()
    return found


def _one_of(turn: dict[str, Any], names: tuple[str, str], where: str, column: str) -> Any:
    """The value of one of two fields; the other is absent, or says the same."""
    first, second = (turn.get(name) for name in names)
    if first is not None and second is not None and first != second:
        raise BadRowError(column, f"{where} has {names[0]!r} and {names[1]!r}, which differ")
    return second if first is None else first


def _part(part: Any, where: str, column: str) -> tuple[str | None, Any]:
    """A part's text and None, or None and its image (empty for one that stands elsewhere)."""
    if isinstance(part, str):
        return part, None
    if not isinstance(part, dict):
        what = "no text" if part is None else f"a {type(part).__name__} where text belongs"
        raise BadRowError(column, f"{where} has {what}")
    kind, text = part.get("type"), part.get("text")
    image = next((part[name] for name in IMAGE_FIELDS if not is_empty(part.get(name))), None)
    if kind is None:
        kind = "text" if image is None else "image"
    if kind in TEXT_PARTS and isinstance(text, str) and image is None:
        return text, None
    others = [value for name, value in part.items() if name not in ("type", "text", *IMAGE_FIELDS)]
    if image is None and holds_image(others):
        known = ", ".join(IMAGE_FIELDS)
        raise BadRowError(column, f"{where} has an image under another name; known are {known}")
    if kind in IMAGE_PARTS and is_empty(text):
        return None, image
    raise BadRowError(column, f"{where} has a part of type {kind!r:.60} that is neither text nor one image")


def _beside(turn: dict[str, Any], kind: str, where: str, column: str) -> list[Any]:
    """The images that a turn has beside its content.

    Raises:
        BadRowError: a label, an image under another name, or one that is not a question's.
    """
    found: list[Any] = []
    for name, value in turn.items():
        if name in ("from", "role", "value", "content") or is_empty(value):
            continue
        if name in (*LABELS, *AUTHORS):
            raise BadRowError(column, f"{where} has {name!r}, which is not read; write it beside {column!r}")
        if name not in OF_A_TURN and not holds_image(value):
            continue
        if name not in OF_A_TURN or kind != "question":
            raise BadRowError(
                column, f"{where} has an image in {name!r}, which is not read; write it in 'image'"
            )
        found += value if isinstance(value, list) else [value]
    return found
