"""Marks in a text that stand for an image, which tables of other tools write into their prompts."""

from __future__ import annotations

import re

_MARK = (
    r"<image(?:[ _-]?\d+)?>"  # LLaVA's, and numbered ones
    r"|<\|image(?:_\d+|_pad)?\|>"  # Llama's, Phi's, Qwen's
    r"|\[IMG\]|\[IMAGE\]"  # Pixtral's
    r"|<(?:image_placeholder|ImageHere|start_of_image|image_soft_token)>"  # DeepSeek's, InternLM's, Gemma's
)
_ONE = re.compile(_MARK, re.IGNORECASE)
_SPACED = re.compile(rf"[ \t]*(?:<\|vision_start\|>)?(?:{_MARK})(?:<\|vision_end\|>)?[ \t]*", re.IGNORECASE)


_OTHER_MEDIA = re.compile(
    r"<\|?(?:video|audio)(?:_pad)?\|?>|<img>[^<]*</img>|data:(?:image|video|audio)/[\w.+-]+;base64,",
    re.IGNORECASE,
)


def has_other_media(text: str) -> bool:
    """Whether a text shows a video or sound, or holds an image that is written or named within its words."""
    return bool(_OTHER_MEDIA.search(text))


def count_placeholders(text: str) -> int:
    """How many images a text shows by a placeholder."""
    return len(_ONE.findall(text))


def without_placeholders(text: str) -> str:
    """The text without placeholders and the space around them; unchanged where there is none.

    Words that stood on both sides of one stay apart, and a line that held nothing else goes.
    """
    if not count_placeholders(text):
        return text
    lines = []
    for line in text.split("\n"):
        words = _SPACED.sub(" ", line).strip() if _ONE.search(line) else line
        if words or not _ONE.search(line):
            lines.append(words)
    return "\n".join(lines).strip()
