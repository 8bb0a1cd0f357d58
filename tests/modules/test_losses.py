from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from safevlm.modules import LossParts, answer_losses, safety_loss, total_loss

LEVEL_WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])
CATEGORY_WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.1])


def batch(size: int = 8, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    return (
        torch.randn(size, 4, generator=generator, dtype=dtype).requires_grad_(),
        torch.randn(size, 7, generator=generator, dtype=dtype).requires_grad_(),
        torch.randint(4, (size,), generator=generator),
        torch.randint(7, (size,), generator=generator),
    )


def test_is_cross_entropy_of_each_classifier() -> None:
    level, category, levels, categories = batch()
    levels[2] = categories[5] = -100
    parts = safety_loss(level, category, levels, categories)
    torch.testing.assert_close(parts.level, F.cross_entropy(level, levels))
    torch.testing.assert_close(parts.category, F.cross_entropy(category, categories))
    torch.testing.assert_close(parts.total, parts.level + parts.category)


def test_class_weights_by_hand() -> None:
    level, category, levels, categories = batch()
    levels[0] = -100
    parts = safety_loss(
        level, category, levels, categories, level_weights=LEVEL_WEIGHTS, category_weights=CATEGORY_WEIGHTS
    )
    terms = [
        -LEVEL_WEIGHTS[label] * level[i].log_softmax(dim=-1)[label] for i, label in enumerate(levels) if i
    ]
    torch.testing.assert_close(parts.level, torch.stack(terms).sum() / 7)
    each = F.cross_entropy(category, categories, reduction="none") * CATEGORY_WEIGHTS[categories]
    torch.testing.assert_close(parts.category, each.mean())


def test_class_weights_survive_batches_of_one() -> None:
    level, category, levels, categories = batch()
    weights = {"level_weights": LEVEL_WEIGHTS, "category_weights": CATEGORY_WEIGHTS}
    whole = safety_loss(level, category, levels, categories, **weights).total
    ones = [
        safety_loss(
            level[i : i + 1], category[i : i + 1], levels[i : i + 1], categories[i : i + 1], **weights
        ).total
        for i in range(8)
    ]
    torch.testing.assert_close(torch.stack(ones).mean(), whole)


@pytest.mark.parametrize("size", [0, 8])
def test_without_labels_zero_with_zero_gradients(size: int) -> None:
    level, category, levels, categories = batch(size)
    parts = safety_loss(
        level, category, levels.fill_(-100), categories.fill_(-100), level_weights=LEVEL_WEIGHTS
    )
    assert parts.level.item() == parts.category.item() == 0.0
    parts.total.backward()
    for logits in (level, category):
        assert logits.grad is not None
        assert (logits.grad == 0).all()


def test_another_ignore_index() -> None:
    level, category, levels, categories = batch()
    levels[:3] = -1
    parts = safety_loss(level, category, levels, categories, ignore_index=-1)
    torch.testing.assert_close(parts.level, F.cross_entropy(level[3:], levels[3:]))


def test_bfloat16_logits_are_summed_in_float32() -> None:
    level, category, levels, categories = batch(dtype=torch.bfloat16)
    parts = safety_loss(level, category, levels, categories)
    assert parts.level.dtype == torch.float32
    torch.testing.assert_close(parts.level, F.cross_entropy(level.float(), levels))


def test_nan_logits_are_a_nan_loss() -> None:
    level, category, levels, categories = batch()
    parts = safety_loss(level * torch.nan, category, levels, categories)
    assert parts.total.isnan()


def test_a_label_out_of_range_raises() -> None:
    level, category, levels, categories = batch()
    levels[0] = 4
    with pytest.raises(IndexError, match="out of bounds"):
        safety_loss(level, category, levels, categories)


def test_total_is_the_language_model_plus_ten_times_the_head() -> None:
    parts = LossParts(torch.tensor(0.5), torch.tensor(0.25))
    assert total_loss(torch.tensor(2.0), parts).item() == 2.0 + 10 * 0.75
    assert total_loss(torch.tensor(2.0), parts, weight=0).item() == 2.0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_raises(weight: float) -> None:
    with pytest.raises(ValueError, match="finite and >= 0"):
        total_loss(torch.tensor(2.0), LossParts(torch.tensor(0.5), torch.tensor(0.25)), weight=weight)


def answers(*, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(11, (3, 6), generator=generator)
    labels[0, :2] = labels[1, :4] = labels[2] = -100
    return torch.randn(3, 6, 11, generator=generator, dtype=dtype).requires_grad_(), labels


def test_answer_losses_are_the_mean_of_each_row() -> None:
    logits, labels = answers()
    losses = answer_losses(logits, labels)
    for row in range(2):
        expected = F.cross_entropy(logits[row, :-1], labels[row, 1:])  # position i predicts label i + 1
        torch.testing.assert_close(losses[row], expected)
    assert losses[2].item() == 0.0  # no labels: zero, not NaN
    losses.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert logits.grad.isfinite().all()


def test_answer_losses_are_float32() -> None:
    logits, labels = answers(dtype=torch.bfloat16)
    losses = answer_losses(logits, labels)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses[0], F.cross_entropy(logits[0, :-1].float(), labels[0, 1:]))
