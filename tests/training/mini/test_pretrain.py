"""The recipes on tiny sizes: a few steps lower the loss, and what is saved loads again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safevlm.training.mini.corpus import open_corpus
from safevlm.training.mini.dialogues import Turn
from safevlm.training.mini.llava import build_llava, rows_loss
from safevlm.training.mini.packing import Packer
from safevlm.training.mini.pretrain import PretrainRecipe, train_phase
from safevlm.training.mini.scene_bank import open_bank
from safevlm.training.mini.tower import TowerRecipe, tower_data, train_tower
from safevlm.training.mini.tower_model import (
    TowerClassifier,
    hidden_states,
    random_patches,
    start_local,
    tower_config,
)
from safevlm.training.mini.vocabulary import build_processor, train_tokenizer
from transformers import AutoProcessor, CLIPVisionModel, LlavaForConditionalGeneration


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return open_bank(tmp_path_factory.mktemp("bank"), split="train", count=40, free_phrases=0.5)


@pytest.fixture(scope="module")
def corpus(bank):
    return open_corpus(bank, photos=None)


@pytest.fixture(scope="module")
def processor(corpus):
    return build_processor(train_tokenizer(corpus.texts(200, seed=0), size=600))


@pytest.fixture
def llava(processor):
    torch.manual_seed(0)
    tower = CLIPVisionModel(tower_config(width=24, layers=2, heads=2))
    return build_llava(tower, processor.tokenizer, width=32, layers=2, heads=2)


def test_the_tower_s_own_forward_equals_transformers():
    tower = CLIPVisionModel(tower_config(width=24, layers=3, heads=2)).eval()
    images = torch.randn(2, 3, 64, 64)
    theirs = tower(images, output_hidden_states=True).hidden_states
    for mine, other in zip(hidden_states(tower, images), theirs, strict=True):
        assert torch.equal(mine, other)


def test_dropped_patches_are_distinct():
    kept = random_patches(5, patches=64, kept=20, generator=torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 20 for row in kept.tolist())
    assert int(kept.max()) < 64


def test_the_towers_start_looks_at_the_eight_neighbours():
    torch.manual_seed(0)
    tower = CLIPVisionModel(tower_config())
    start_local(tower)
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = tower(torch.randn(2, 3, 64, 64), output_attentions=True).attentions
    place = 1 + 3 * 8 + 4  # row 3, column 4, after the class token
    around = [
        place + 8 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)
    ]
    for weights in attentions[:-1]:
        assert weights[:, :, place].argmax(-1).tolist() == [around] * 2
    with pytest.raises(ValueError, match="3 heads of 64 channels: eight"):
        start_local(CLIPVisionModel(tower_config(heads=3)))


def test_tower_training_lowers_the_loss(bank, tmp_path):
    torch.manual_seed(0)
    data = tower_data(bank, photos=None, cache=tmp_path, scene_share=1.0)
    model = TowerClassifier(
        CLIPVisionModel(tower_config(width=24, layers=2, heads=2)), labels=len(data.names)
    )
    recipe = TowerRecipe(steps=40, batch=16, learning_rate=5e-3)
    losses = train_tower(model, data, recipe=recipe, out=tmp_path / "tower")
    assert len(losses) == 40
    assert sum(losses[-8:]) < sum(losses[:8])
    again = CLIPVisionModel.from_pretrained(tmp_path / "tower")
    for mine, other in zip(model.tower.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_pretraining_lowers_the_loss_and_leaves_the_tower(llava, corpus, processor, tmp_path):
    before = [p.clone() for p in llava.model.vision_tower.parameters()]
    recipe = PretrainRecipe(steps=10, rows=4, length=160, learning_rate=5e-3, text_share=0.3)
    losses = train_phase(llava, corpus, processor=processor, recipe=recipe, out=tmp_path / "base")
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(torch.equal(a, b) for a, b in zip(before, llava.model.vision_tower.parameters(), strict=True))
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert again.dtype == torch.bfloat16
    assert again.config.vision_feature_layer == -2
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "base"), type(processor))


def test_a_branch_costs_what_it_costs_alone(llava, processor):
    llava.eval()
    packer = Packer(processor.tokenizer, length=200, patches=64)
    turns = [Turn("What is this?", "a key.", "caption"), Turn("How many keys?", "two.", "count")]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        rows = [packer.batch([packer.image_row(part)]) for part in (turns, turns[:1], turns[1:])]
        both, first, second = (float(rows_loss(llava, row, images=images)) for row in rows)
        n_first, n_second = (int((row.labels != -100).sum()) for row in rows[1:])
    assert both == pytest.approx((first * n_first + second * n_second) / (n_first + n_second), rel=1e-4)


def test_packed_ids_are_what_the_processor_gives(processor):
    packer = Packer(processor.tokenizer, length=200, patches=64)
    row = packer.image_row([Turn("What is this?", "a key.", "caption")])
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    ids = processor(images=Image.new("RGB", (90, 40)), text=text)["input_ids"][0]
    assert row[0][: len(ids)] == list(ids)


def test_tokenizer_round_trip(processor):
    for text in ("What is this? A. key B. fish", "Grüße, 鍵! \n\t x", "[Safety note: weapons.] Tell me."):
        ids = processor.tokenizer(text)["input_ids"]
        assert processor.tokenizer.decode(ids) == text


def test_the_corpus_draws_the_same_for_the_same_seed(corpus, processor):
    packer = Packer(processor.tokenizer, length=160, patches=64)
    rows = [corpus.image_row(random.Random(3), packer, turns=3)[1] for _ in range(2)]
    assert rows[0] == rows[1]
    assert all(len(column) == 160 for column in rows[0])


def test_no_data_folder_is_needed(corpus):
    assert corpus.photographs is None
    with pytest.raises(FileNotFoundError, match="photos64"):
        open_corpus(corpus.bank, photos=Path("nowhere"))
