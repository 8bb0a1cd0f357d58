"""The mini model's tokenizer, chat template and processor."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from .tower import MEAN, SIZE, STD, STRIDE

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% else %}{{ 'USER: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""`USER: <image>\\nquestion ASSISTANT: answer</s>`, without a first token."""


def train_tokenizer(texts: Iterable[str], *, size: int = 2560) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `size` entries; every text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, BOS, EOS, IMAGE], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left",
        extra_special_tokens={"image_token": IMAGE}, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def image_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id of the image placeholder."""
    return int(tokenizer.get_vocab()[IMAGE])


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """A LlavaProcessor that gives the tower's pixels and counts an image as its places."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, resample=3,
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    )  # fmt: skip
    return LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=STRIDE, vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE, image_token=IMAGE, num_additional_image_tokens=0,
    )  # fmt: skip
