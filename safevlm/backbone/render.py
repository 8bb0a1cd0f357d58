"""Chats -> the prompt that the template writes, with what users wrote known and taken literally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from safevlm.errors import BackboneError

from .families import Family
from .literal import Specials, literal, take_literally, well_formed, written_apart


@dataclass(frozen=True)
class Rendered:
    """A prompt as the tokenizer takes it.

    Args:
        text: special tokens in users' texts are broken up.
        last: (start, end) of the chat's last text in it; None where the template changes that text.
    """

    text: str
    last: tuple[int, int] | None


class Renderer:
    """Writes chats with a processor's template.

    Args:
        processor: has the tokenizer, and the template unless the family has one of its own.
        ids: token ids that the model's config reads as something else than text.
        name: of the backbone, for messages.

    Raises:
        BackboneError: no template.
    """

    def __init__(self, processor: Any, family: Family, *, ids: Sequence[int], name: str) -> None:
        self.processor, self.family, self.name = processor, family, name
        tokenizer = processor.tokenizer
        strings = [value for key, value in vars(processor).items() if key.endswith("_token")]
        written = [family.opening(processor), *(value for value in strings if isinstance(value, str))]
        self.specials = Specials.of(tokenizer, strings=written, ids=ids)
        self.template = self._find_template()

    def check(self) -> None:
        """Raise BackboneError where the template does not write an image."""
        probe = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
        opening, said = self.family.opening(self.processor), ""
        try:
            written = self._apply(probe)
        except ValueError as error:
            written, said = "", f" ({error})"
        if written.count(opening) != 1 or "'type'" in written:  # the latter: content lists printed as Python
            raise BackboneError(
                f"the chat template of {self.name!r} does not write an image part as {opening!r}{said}; it is "
                "one for text alone. Put the model's own chat_template.jinja into its folder"
            )

    def _find_template(self) -> str:
        own = self.processor.chat_template or getattr(self.processor.tokenizer, "chat_template", None)
        if isinstance(own, Mapping):
            own = own.get("default")
        template = own or self.family.chat_template
        if not template:
            raise BackboneError(
                f"the processor of {self.name!r} has no chat template; put the model's chat_template.jinja "
                "into its folder, or set `processor.chat_template` and call wrap_backbone"
            )
        return str(template)

    def __call__(self, chat: Sequence[Mapping[str, Any]], *, ask: bool = True) -> Rendered:
        """The prompt of a checked chat; with `ask` the template begins the answer.

        Raises:
            ValueError: the template refuses the chat or leaves a text out, or a text makes a special token
                that cannot be broken up.
        """
        given = [written_apart(well_formed(text), self.specials) for text in _texts(chat)]
        plain = self._apply(_with_texts(chat, given), ask=ask)
        owners = self._owners(chat, given, plain, ask=ask)
        if owners is None:
            self._check_unchanged(chat, plain, ask=ask)
            return Rendered(plain, None)
        text, kept = literal(plain, owners, self.processor.tokenizer, specials=self.specials)
        last = [position for position, owner in enumerate(kept) if owner == len(given) - 1]
        return Rendered(text, (last[0], last[-1] + 1) if last else None)

    def literal(self, text: str) -> str:
        """A text that stands alone, as the tokenizer takes it."""
        return take_literally(text, self.processor.tokenizer, specials=self.specials)

    def _apply(self, chat: Sequence[Mapping[str, Any]], *, ask: bool = True) -> str:
        with _explained():
            return str(
                self.processor.apply_chat_template(
                    chat, chat_template=self.template, tokenize=False, add_generation_prompt=ask
                )
            )

    def _owners(
        self, chat: Sequence[Mapping[str, Any]], given: Sequence[str], plain: str, *, ask: bool
    ) -> list[int] | None:
        """The number of the text that each character of the prompt is from, -1 for the template's own.

        Found by rendering again with a delimiter around each text. The delimiters stand inside its outer white space,
        which templates strip.

        Returns:
            One number per character; None if the template changes the texts, so that the delimiters do not fit.

        Raises:
            ValueError: the template leaves a text out.
        """
        delimiters = _delimiters({*plain, *chain.from_iterable(given)}, len(given) + 1)
        close, opens = delimiters[0], {opening: number for number, opening in enumerate(delimiters[1:])}
        delimited = self._apply(
            _with_texts(chat, [_delimited(t, m, close) for t, m in zip(given, opens, strict=True)]), ask=ask
        )
        kept, owners, owner, seen = [], list[int](), -1, set()
        for character in delimited:
            if character in opens and owner < 0:
                owner = opens[character]
                seen.add(owner)
            elif character == close and owner >= 0:
                owner = -1
            elif character in opens or character == close:
                return None
            else:
                kept.append(character)
                owners.append(owner)
        if "".join(kept) != plain or owner >= 0:
            return None
        for number, text in enumerate(given):
            if text.strip() and number not in seen:
                raise ValueError(
                    f"the chat template of {self.name!r} leaves out the text {text.strip()[:80]!r}; the model "
                    "would not see it. Put it into a user message"
                )
        return owners

    def _check_unchanged(self, chat: Sequence[Mapping[str, Any]], plain: str, *, ask: bool) -> None:
        """Where texts cannot be followed through the template: refuse other special tokens than without them."""
        neutral = self._apply(
            _with_texts(chat, ["x" if text.strip() else text for text in _texts(chat)]), ask=ask
        )
        if self._special(plain) != self._special(neutral):
            raise ValueError(
                f"the chat template of {self.name!r} changes special tokens with the texts of this chat; write "
                "them without the template's own markers"
            )

    def _special(self, prompt: str) -> tuple[Counter[str], Counter[int]]:
        ids = self.processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return (
            Counter(match[1] for match in self.specials.pattern.finditer(prompt)),
            Counter(number for number in ids if number in self.specials.ids),
        )


class _explained:
    """Turns the template's own refusal of a chat, such as of roles that do not alternate, into a ValueError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is not None and kind.__module__.startswith("jinja2"):
            raise ValueError(f"the chat template refuses this chat: {error}") from error


def _texts(chat: Sequence[Mapping[str, Any]]) -> list[str]:
    return [part["text"] for message in chat for part in message["content"] if part["type"] == "text"]


def _with_texts(chat: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[dict[str, Any]]:
    """The chat with other texts, in order."""
    left = iter(texts)
    return [
        {
            **message,
            "content": [
                {**part, "text": next(left)} if part["type"] == "text" else part
                for part in message["content"]
            ],
        }
        for message in chat
    ]


def _delimiters(used: set[str], count: int) -> list[str]:
    """Private-use characters that are not in use."""
    free = (chr(code) for code in chain(range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)))
    return list(islice((character for character in free if character not in used), count))


def _delimited(text: str, opening: str, closing: str) -> str:
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{opening}{core}{closing}{text[start + len(core) :]}"
