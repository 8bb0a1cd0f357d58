"""PaliGemma: one view per image; a prefix that the LLM reads in both directions."""

from __future__ import annotations

from typing import Any, ClassVar

from .agree import agree
from .family import Family


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`; its processor has no chat template: images first, then the text."""

    chat_template = (
        "{% for message in messages %}{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
        "{% endfor %}{% for message in messages %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    )
    needs_bos = True
    one_length = True
    answer_types: ClassVar[dict[str, int]] = {"token_type_ids": 1}
    nested_images = True
    reads_prepared = True

    def complete(self, processor: Any, config: Any) -> None:
        """The number of an image's tokens."""
        super().complete(processor, config)
        vision = config.vision_config
        agree(processor, {"image_seq_length": (int(vision.image_size) // int(vision.patch_size)) ** 2})

    def text_alone(self, text: str, tokenizer: Any) -> str | None:
        """As the processor writes the text after images; without any it misplaces the first token, or refuses."""
        return f"{tokenizer.bos_token}{text}\n"
