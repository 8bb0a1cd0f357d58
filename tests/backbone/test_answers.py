"""Answers are trained on the tokens that they have in their conversation."""

from __future__ import annotations

import string

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safevlm.backbone import FAMILIES, Backbone, answer_texts, encode, make_chat, wrap_backbone
from tests.families import family_backbone
from tests.tiny import picture, tiny_llava, tiny_processor

MARK = "\u2581"
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|im_end|>", "<unk>"]
ANSWERS = ["Yes", "Yes A cat", "a </s> in text", "two\nlines ", "\u00fcber"]


def bpe(space: str, **options) -> Tokenizer:
    """A BPE with a merge over the space before a word."""
    merges = [(space, "Y"), ("e", "s"), (f"{space}Y", "es"), ("Y", "es"), (space, "A"), (space, space)]
    if space == MARK:
        alphabet = [*string.printable[:94], "\n"]
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*SPECIAL, space, *alphabet, *(a + b for a, b in merges)])
    return Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, **options))


def byte_level() -> Tokenizer:
    made = bpe("\u0120")
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return made


def prepending() -> Tokenizer:
    """LLaVA-1.5's and Vicuna's form."""
    made = bpe(MARK, unk_token="<unk>")
    made.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    made.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def metaspace(scheme: str) -> Tokenizer:
    made = bpe(MARK, unk_token="<unk>")
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return made


def word_pieces() -> Tokenizer:
    pieces = [*string.printable[:94], *(f"##{c}" for c in string.printable[:94]), "Yes", "cat"]
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return made


STYLES = {
    "byte-level": byte_level,
    "prepend": prepending,
    "metaspace-always": lambda: metaspace("always"),
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-never": lambda: metaspace("never"),
    "word pieces": word_pieces,
}
HEAD = (
    "{% for m in messages %}{{ m['role'] | upper }}:BETWEEN{% for p in m['content'] %}"
    "{{ '<image>\n' if p['type'] == 'image' else p['text'] }}{% endfor %}"
    "{{ 'ENDING' if m['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:ASKING{% endif %}"
)
TEMPLATES = {
    "space in the answer": (" ", "", "</s>"),
    "space in the prompt": (" ", " ", "</s>"),
    "line break": ("\n", "\n", "</s>\n"),
    "no space": ("", "", "</s>"),
    "no end": (" ", "", "\n"),
    "end of turn": ("\n", "\n", "<|im_end|>\n"),
    "thoughts": (" ", " <think></think> ", "<|im_end|>\n"),
}


def backbone_of(style: str, template: str, ends: list[int] | int = 2) -> Backbone:
    between, asking, ending = TEMPLATES[template]
    words = PreTrainedTokenizerFast(
        tokenizer_object=STYLES[style](), pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", additional_special_tokens=["<image>", "<|im_end|>"],
    )  # fmt: skip
    processor = tiny_processor()
    processor.tokenizer = words
    processor.chat_template = (
        HEAD.replace("BETWEEN", between).replace("ENDING", ending).replace("ASKING", asking)
    )
    model = tiny_llava()
    model.resize_token_embeddings(len(words))
    model.generation_config.eos_token_id = ends
    return wrap_backbone(model, processor)


def trained(backbone: Backbone, answer: str, images: int = 0) -> tuple[list[int], list[int]]:
    """The prompt's and the answer's ids of a training row."""
    chat = make_chat("Is it one?", images)
    made = encode(backbone, [chat], [picture()] * images, safety_tokens=0, answers=[answer])
    ids, answered = made.tensors["input_ids"][0], made.labels[0] >= 0
    assert torch.equal(made.labels[0][answered], ids[answered])
    return ids[~answered].tolist(), ids[answered].tolist()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("style", STYLES)
def test_an_answer_has_the_tokens_of_its_conversation(style, template):
    backbone = backbone_of(style, template, ends=[4, 2])
    tokenizer = backbone.tokenizer
    chat = make_chat("Is it one?", 0)
    generated = encode(backbone, [chat], [], safety_tokens=0).tensors["input_ids"][0].tolist()
    for answer in ANSWERS:
        prompt, ids = trained(backbone, answer)
        assert prompt == generated
        assert [number in (2, 4) for number in ids] == [*[False] * (len(ids) - 1), True]
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole = backbone.renderer([*chat, reply], ask=False).text.rstrip()
        own = tokenizer(whole)["input_ids"]
        if own[: len(prompt)] == prompt:
            expected = [*own[len(prompt) :], 2]
            first = next(place for place, number in enumerate(expected) if number in (2, 4))
            assert ids == expected[: first + 1], answer
        told = tokenizer.decode([*prompt, *ids[:-1]])
        asked = backbone.renderer(chat).text
        written = answer.strip().replace("</s>", "< /s>")
        if style == "word pieces" or "\u00fc" in answer:  # which keep no white space, and unknown characters
            continue
        lead = "" if asked.endswith((" ", "\n")) else TEMPLATES[template][0]
        assert told.rstrip() == tokenizer.decode(tokenizer(f"{asked}{lead}{written}")["input_ids"]).rstrip()


def test_the_border_that_would_be_one_token_keeps_the_prompts_own():
    """ "ASSISTANT: " and "Yes" are ":", " Yes" together; generation starts behind ":", " "."""
    backbone = backbone_of("byte-level", "space in the prompt")
    prompt, ids = trained(backbone, "Yes")
    assert backbone.tokenizer.convert_ids_to_tokens(prompt)[-2:] == [":", "\u0120"]
    assert backbone.tokenizer.convert_ids_to_tokens(ids) == ["Yes", "</s>"]
    prompt, ids = trained(backbone_of("prepend", "space in the prompt"), "Yes")
    assert backbone_of("prepend", "no end").tokenizer.convert_ids_to_tokens(ids) == ["Yes", "</s>"]


def test_an_end_of_turn_that_does_not_end_generation_is_followed_by_one_that_does():
    assert trained(backbone_of("byte-level", "end of turn", 2), "Yes")[1][-2:] == [4, 2]
    assert trained(backbone_of("byte-level", "end of turn", [4]), "Yes")[1][-2:] != [4, 2]
    assert trained(backbone_of("byte-level", "no end", [4]), "Yes")[1][-1:] == [4]


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_family_continues_its_prompt(kind):
    backbone = family_backbone(kind)
    for images in (0, 1):
        prompt, ids = trained(backbone, "Yes, one.", images)
        chat = make_chat("Is it one?", images)
        asked = encode(backbone, [chat], [picture()] * images, safety_tokens=0).tensors["input_ids"][0]
        assert prompt == asked.tolist()
        assert backbone.tokenizer.decode(ids) == "Yes, one.</s>"


def test_paligemma_answers_as_its_processor_writes_a_suffix():
    backbone = family_backbone("paligemma")
    made = backbone.processor(
        text=["<image>Is it one?"], images=[[picture()]], suffix=["Yes"], return_tensors="pt"
    )
    prompt, ids = trained(backbone, "Yes", 1)
    assert [*prompt, *ids] == made["input_ids"][0].tolist()
    assert ids == [number for number in made["labels"][0].tolist() if number >= 0]


def test_an_answer_beyond_the_context():
    backbone = family_backbone("llava")
    with pytest.raises(
        ValueError, match=r"prompt 0 has \d+ tokens with its images and its answer.*takes 2048"
    ):
        trained(backbone, "word " * 500)


def test_padding_that_is_an_ordinary_token_is_no_part_of_an_answer():
    backbone = family_backbone("llava")
    letter = backbone.tokenizer.convert_tokens_to_ids
    made = torch.tensor([[letter("a"), 2, letter("x"), letter("x")], [letter(c) for c in "abcd"]])
    assert answer_texts(backbone, made, {}) == ["a", "abcd"]
    assert answer_texts(backbone, made, {"eos_token_id": [letter("b")]}) == ["axx", "ab"]
