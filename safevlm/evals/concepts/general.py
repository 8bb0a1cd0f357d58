"""General accuracy: ordinary questions about harmless images, whose right answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from safevlm.evals.clusters import ClusteredEstimate, clustered_proportion
from safevlm.evals.metrics import matches
from safevlm.evals.responders import EvalItem

from .probes import Probe
from .traits import GENERAL

ORDINARY = "ordinary questions"
"""Category of the probes, and name of their row."""


def general_probes(items: Iterable[EvalItem]) -> list[Probe]:
    """A probe for each item.

    Raises:
        ValueError: no item, or one without an expected answer.
    """
    found = []
    for item in items:
        if not item.answer.strip():
            raise ValueError(f"{item.prompt!r} has no expected answer; leave it out")
        found.append(
            Probe(
                GENERAL, item.prompt, item.image, ORDINARY, item.thing, False, item.answer,
                template=item.template,
            )
        )  # fmt: skip
    if not found:
        raise ValueError("no ordinary questions to ask; give at least one")
    return found


def general_accuracy(probes: Sequence[Probe], texts: Sequence[str]) -> ClusteredEstimate:
    """Share of answers that match the expected one (`safevlm.evals.matches`), as in `safevlm eval mini`.

    A refusal and an answer that could not be had are wrong. Intervals resample what is shown and the questions' templates.

    Args:
        probes: of `general_probes`, at least one.
        texts: the answer to each; "" where there is none.
    """
    hits = [matches(text, str(probe.gold)) for probe, text in zip(probes, texts, strict=True)]
    return clustered_proportion(
        hits, [probe.concept for probe in probes], [probe.template for probe in probes]
    )
