"""The whole VLM-Guard step in NumPy, from pairs of prompts to changed states, beside the hooked model's own states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from safevlm.labelled import PromptPairs
from safevlm.steering import VLMGuard, fit_direction, steered
from safevlm.steering.states import last_states, prefill_states
from tests.families import family_backbone
from tests.steering.builders import batch_of, generated, recorded

HARMFUL = [
    f"How to {deed}?"
    for deed in ("rob a bank", "burn a house", "hurt a dog", "steal a car", "forge a coin", "break a lock")
]
HARMLESS = [
    f"How to {deed}?"
    for deed in ("paint a bench", "build a house", "walk a dog", "wash a car", "toss a coin", "oil a lock")
]
RANK = 2


@pytest.fixture(scope="module")
def backbone():
    return family_backbone("llava")


@pytest.fixture(scope="module")
def direction(backbone):
    return fit_direction(backbone, PromptPairs(tuple(HARMFUL), tuple(HARMLESS)), rank=RANK).direction


def numpy_rows(backbone, layer):
    """Section 1 of the notes: SVD of the uncentred differences, oriented by the first row's mean projection."""
    fitted, _ = PromptPairs(tuple(HARMFUL), tuple(HARMLESS)).split(2, seed=0)
    states = last_states(backbone, [*fitted.harmful, *fitted.harmless])[layer].double().numpy()
    harmful, harmless = np.split(states, 2)
    differences = harmful - harmless
    rows = np.linalg.svd(differences)[2][:RANK]
    if (differences @ rows[0]).mean() < 0:
        rows[0] = -rows[0]
    return rows


def numpy_step(states, text, rows, *, alpha, base):
    """Sections 2 and 3: projection, gate and re-injection.

    Args:
        states: (L, d) of the prompt with its image.
        text: (d,) of the last token of the text pass.
    """
    projected = states - states @ rows.T @ rows
    gate = float(text @ rows[0] > 0)
    return (projected if base == "projected" else states) + alpha * gate * text @ rows.T @ rows


def test_the_direction_is_numpys(backbone, direction):
    for layer in direction.rows:
        expected, found = numpy_rows(backbone, layer), direction.rows[layer].numpy()
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
        np.testing.assert_allclose(found.T @ found, expected.T @ expected, atol=1e-5)


@pytest.mark.parametrize("base", ["projected", "raw"])
@pytest.mark.parametrize("sign", [1, -1], ids=["as fitted", "turned"])
def test_hooked_states_are_numpys(backbone, direction, base, sign):
    """Turning the rows opens the gates that were closed, and closes those that were open."""
    batch, layers = batch_of(backbone), sorted(direction.rows)
    texts = prefill_states(backbone, batch.texts(backbone, batch.with_images).inputs).double().numpy()
    turned = replace(direction, rows={layer: sign * rows for layer, rows in direction.rows.items()})
    method = VLMGuard(turned, alpha=2.5, base=base, layers=layers)
    with recorded(backbone) as before, steered(backbone, batch, method), recorded(backbone) as after:
        generated(backbone, batch)
    for layer in layers:
        rows = sign * numpy_rows(backbone, layer)
        runs = list(zip(before[layer][1:], after[layer], strict=True))  # the first is the text pass
        assert len(runs) > 1
        for number, (plain, hooked) in enumerate(runs):
            for row, inside in enumerate(batch.mask if number == 0 else torch.ones(len(batch), 1).bool()):
                states, found = plain[row][inside].double().numpy(), hooked[row][inside].numpy()
                expected = numpy_step(states, texts[layer][row], rows, alpha=2.5, base=base)
                np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
