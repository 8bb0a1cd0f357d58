"""What stands for an image in a text: placeholders of LLaVA, Qwen, Llama and others, and images written into it."""

from __future__ import annotations

import re

_PLACEHOLDER = (
    r"\(?<image>\./</image>\)?"  # MiniCPM-V's
    r"|<image(?:[ _-]?\d+)?>"  # LLaVA's, and numbered ones
    r"|<\|image(?:_?\d+|[_-]?(?:pad|placeholder|token))?\|>"  # Llama's, Phi's, Qwen's
    r"|\[IMG\]|\[IMAGE\]"  # Pixtral's
    r"|<(?:image[_-]?(?:placeholder|token|pad|patch|soft_token)|im_patch)>"  # LLaVA's own, DeepSeek's, Gemma's
    r"|<(?:ImageHere|start_of_image|img_context)>"  # InternLM's, Gemma's, InternVL's
)
_OPENING = r"<\|vision_start\|>|<\|begin_of_image\|>|<im_start>|<img>|<fake_token_around_image>"
_CLOSING = r"<\|vision_end\|>|<\|end_of_image\|>|<im_end>|</img>|<fake_token_around_image>|</image>"
_ONE = re.compile(_PLACEHOLDER, re.IGNORECASE)
_SPACED = re.compile(rf"[ \t]*(?:{_OPENING})?(?:{_PLACEHOLDER})(?:{_CLOSING})?[ \t]*", re.IGNORECASE)

TAG = re.compile(r"<\|?image(?:_?\d+)?\|?>", re.IGNORECASE)
"""A placeholder that shows, in a row without an image, that one belongs to it."""
IN_WORDS = re.compile(r"[ \t]*(?:<image>|(?:Picture \d+: *)?<img>[^<>]*</img>)[ \t]*\n?")
"""What a scan leaves out of a row's words: LLaVA's placeholder and Qwen-VL's named images."""
_OTHER_MEDIA = re.compile(
    r"<\|?(?:video|audio)(?:_pad)?\|?>|<img>[^<]*</img>|<image>(?!\./</image>)[^<]+</image>"
    r"|data:(?:image|video|audio)/[\w.+-]+;base64,",
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
