"""What a run chooses on its tune rows at the end, held against the scorer that loads its folder."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from safevlm.training.cli import command
from safevlm.training.options import Operating

from safevlm import Policy, RiskScorer
from tests.training.builders import rows, write_parquet


def test_the_points_hold_for_the_scorer_that_loads_the_folder(quick, tmp_path):
    """220 tune rows, half of them safe; one safe image in ten is another's risky one."""
    made = rows(236, tune=220)
    for safe, risky in zip(made[16::20], made[17::20], strict=True):
        safe["image"], risky["image"] = risky["image"], safe["image"]
    options = {
        "data.table": write_parquet(tmp_path / "t.parquet", made),
        "data.batch_size": 8,
        "trainer.max_epochs": 1,
        "model.cache.folder": tmp_path / "c",
        "model.cache.precision": "float32",
        "model.operating.false_positive_rate": 0.06,
        "model.operating.prior": 0.1,
        "model.operating.reading_category": "illegal",
    }
    command("head", quick(tmp_path / "out", **options)).fit()
    scorer = RiskScorer.from_pretrained(tmp_path / "out")
    config = scorer.config
    point, reading = config.operating_point, config.reading
    assert (config.calibration.share, config.calibration.prior) == (0.5, 0.1)
    assert (point.false_positive_rate, point.samples, point.data) == (0.06, 110, "t.parquet, tune split")
    assert (reading.category, reading.samples) == ("illegal", 110)
    assert scorer.policy == Policy(config.taxonomy, threshold=point.threshold)

    tune = [row for row in made if row["split"] == "tune"]
    found = scorer.assess([Image.open(io.BytesIO(row["image"]["bytes"])) for row in tune])
    safe = sorted(a.score for a, row in zip(found, tune, strict=True) if row["risk_level"] == "safe")
    assert sum(score >= point.threshold for score in safe) <= 0.06 * 110
    assert sum(score >= safe[-7] for score in safe) > 0.06 * 110  # the next lower threshold flags too many
    assert safe[-7] < point.threshold <= min(a.score for a in found if a.score > safe[-7])
    own = [
        a.category_probabilities["illegal"]
        for a, row in zip(found, tune, strict=True)
        if row["risk_level"] != "safe"
    ]
    assert sum(p >= reading.threshold for p in own) >= 0.95 * 110


def test_a_category_that_is_not_there_is_refused_before_training(quick, tmp_path):
    with pytest.raises(ValueError, match="reading_category is 'weather'"):
        command("head", quick(tmp_path / "out", **{"model.operating.reading_category": "weather"})).fit()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["false_positive_rate", "prior", "reading_recall"])
@pytest.mark.parametrize("value", [0, 1, float("nan")])
def test_shares_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"operating.{name} is"):
        Operating(**{name: value})
