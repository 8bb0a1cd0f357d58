"""How many rows each class has to train and to tune with, told before a run starts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from safevlm.labelled import LabelledRow
from safevlm.taxonomy import Taxonomy

LOGGER = logging.getLogger(__name__)


def log_class_counts(train: Sequence[LabelledRow], tune: Sequence[LabelledRow], taxonomy: Taxonomy) -> None:
    """Log the rows of each level and category, and warn of classes that only one of the splits has.

    Args:
        train: every training row; rows without an image do not reach the head, and are not counted.
        tune: the held-out rows.
        taxonomy: of the labels.
    """
    if not tune:
        LOGGER.warning(
            "no tune rows: nothing is measured between the epochs; --data.tune_fraction holds some out"
        )
    for kind, names, trained, tuned in (
        ("level", taxonomy.levels, _counts(train, "level"), _counts(tune, "level")),
        ("category", taxonomy.category_names, _counts(train, "category"), _counts(tune, "category")),
    ):
        counts = (f"{name} {trained[number]} / {tuned[number]}" for number, name in enumerate(names))
        LOGGER.info("train / tune images by %s: %s", kind, ", ".join(counts))
        unmeasured = [name for n, name in enumerate(names) if trained[n] and not tuned[n]]
        if tune and unmeasured:
            LOGGER.warning(
                "%s without tune rows: %s; metrics, thresholds and the choice of the best epoch leave them out. Give "
                "some of their rows the split tune, or raise --data.tune_fraction",
                kind, ", ".join(unmeasured),
            )  # fmt: skip
        if untrained := [name for n, name in enumerate(names) if tuned[n] and not trained[n]]:
            LOGGER.warning(
                "%s with tune rows and no training rows: %s; the head cannot learn them",
                kind,
                ", ".join(untrained),
            )


def _counts(rows: Sequence[LabelledRow], label: str) -> Counter[int]:
    return Counter(getattr(row, label) for row in rows if row.image is not None)
