"""Fixtures of the measurement of concepts."""

from __future__ import annotations

import pytest

from safevlm.labelled import ConceptSet
from tests.evals.concept_builders import things


@pytest.fixture
def concepts() -> ConceptSet:
    return things()
