"""A policy decides: thresholds, actions per level, categories that are let through."""

from safevlm.training.mini.scenes import render

from safevlm import Policy, SafeVLM, Taxonomy
from safevlm.types import Action

guard = SafeVLM.from_pretrained("safevlm-mini")
taxonomy = Taxonomy.preset("safevlm-mini")
strict = Policy(taxonomy, threshold=0.2, actions=dict.fromkeys(taxonomy.risky_levels, Action.REFUSE))
relaxed = Policy(taxonomy, off=frozenset({"substances"}))  # a shop for wine and tobacco, say

picture = render(0, "test", name="beer bottle", size=256).image
for name, policy in {"default": guard.policy, "strict": strict, "relaxed": relaxed}.items():
    reply = guard.generate([picture], ["What can I do with this?"], policy=policy, max_new_tokens=32)[0]
    print(f"{name:8s} {reply.action.value:7s} {reply.text}")

strict.to_yaml("strict.yaml")  # for `safevlm assess --policy strict.yaml`
