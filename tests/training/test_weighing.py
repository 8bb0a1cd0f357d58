"""How much a row weighs: classes over an epoch's draw, and answers of which a share goes through the LLM."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from safevlm.training.balance import class_weights
from safevlm.training.batch import collate
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.head import HeadTraining
from safevlm.training.options import Loss, Sizes

from safevlm import Taxonomy
from safevlm.guard import lm_losses
from safevlm.labelled.table import LabelledRow, Needs
from safevlm.types import IGNORED
from tests.training.builders import SIZES, rows, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")


class Alone(HeadTraining):
    """Stage 1 without a trainer and a cache."""

    epoch = 0
    given: SafetyDataModule
    data = property(lambda self: self.given)
    current_epoch = property(lambda self: self.epoch)
    root_device = torch.device("cpu")

    def answer_losses(self, batch, rows):
        chosen = ([batch[column][row] for row in rows] for column in ("images", "prompts", "responses"))
        return lm_losses(self.guard.backbone, self.guard.safety, *chosen)


def recipe(backbone, data, tmp_path, **options):
    made = Alone(str(backbone), output_dir=str(tmp_path / "out"), sizes=Sizes(**SIZES), **options)
    made.given = data
    return made


def row(number, level, category, image=b"x"):
    return LabelledRow(image, str(number), "", "", level, category, "train", "")


def test_class_weights_by_hand():
    """Six labelled rows of three classes, 3 : 2 : 1; the fourth has none."""
    labels = [(0, 1.0)] * 3 + [(1, 1.0)] * 2 + [(2, 1.0), (IGNORED, 1.0)]
    expected = torch.tensor([6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1), 0.0])
    torch.testing.assert_close(class_weights(labels, 4), expected)
    halved = [(label, times / 2) for label, times in labels]
    torch.testing.assert_close(class_weights(halved, 4), expected)
    assert class_weights([], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("fraction", [None, 0.3, 0.05])
def test_every_class_weighs_alike_over_what_an_epoch_draws(fraction, backbone, tmp_path):
    data = SafetyDataModule("t", clean="c" if fraction else None, clean_fraction=fraction)
    clean = TAXONOMY.category_names.index("clean")
    data.train_rows = [row(n, 1 + n % 3, n % 2) for n in range(60)]
    data.train_rows += [row(f"text {n}", 3, 1, image=None) for n in range(30)]  # the head does not see these
    data.clean_rows = [row(f"clean {n}", 0, clean) for n in range(500)]
    made = recipe(backbone, data, tmp_path, loss=Loss(class_weights="balanced"), train_tokens=False)
    made.build()
    made.weigh_classes()
    drawn = [data.rows[number] for number in data.epoch_order(0)]
    for name in ("level", "category"):
        weights, totals = made.class_weights[name], Counter()
        for found in drawn:
            if found.image is not None:
                totals[getattr(found, name)] += float(weights[getattr(found, name)])
        assert max(totals.values()) == pytest.approx(min(totals.values()), rel=1e-5)
        assert sum(totals.values()) == pytest.approx(
            sum(found.image is not None for found in drawn), rel=1e-5
        )


def test_the_language_loss_of_a_share_is_that_of_all_in_the_mean(backbone, tmp_path):
    data = SafetyDataModule(
        str(write_parquet(tmp_path / "t.parquet", rows(16))), batch_size=16, tune_fraction=0
    )
    data.read(TAXONOMY, Needs())
    batch = collate([(n, found, found.open()) for n, found in enumerate(data.train_rows)])
    batch["responses"][3] = ""  # trains the head alone
    made = recipe(backbone, data, tmp_path)
    made.build()
    with torch.no_grad():
        losses = lm_losses(
            made.guard.backbone, made.guard.safety, batch["images"], batch["prompts"], batch["responses"]
        )
        losses[3] = 0
        assert float(made._lm_loss(batch)) == pytest.approx(float(losses.sum()) / 16, rel=1e-4)
        made.lm_fraction = 0.25
        expected = []
        for made.epoch in range(40):
            drawn = [n for n, yes in enumerate(made.random_mask(batch, "lm", 0.25)) if yes]
            expected.append(float(losses[drawn].sum()) / (16 * 0.25))
            if made.epoch < 2:
                assert float(made._lm_loss(batch)) == pytest.approx(expected[-1], rel=1e-4)
    assert sum(expected) / len(expected) == pytest.approx(float(losses.sum()) / 16, rel=0.2)
