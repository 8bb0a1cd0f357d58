"""Policies that let everything through, hint at everything or refuse everything."""

from __future__ import annotations

from safevlm import Policy, SafeVLM
from safevlm.types import Action

GREEDY = {"max_new_tokens": 6, "do_sample": False}


def allow_all(guard: SafeVLM) -> Policy:
    return Policy(guard.config.taxonomy, off=frozenset(guard.config.taxonomy.risky_categories))


def hint_all(guard: SafeVLM) -> Policy:
    taxonomy = guard.config.taxonomy
    return Policy(taxonomy, threshold=1e-9, actions=dict.fromkeys(taxonomy.risky_levels, Action.HINT))


def refuse_all(guard: SafeVLM) -> Policy:
    taxonomy = guard.config.taxonomy
    return Policy(taxonomy, threshold=1e-9, actions=dict.fromkeys(taxonomy.risky_levels, Action.REFUSE))
