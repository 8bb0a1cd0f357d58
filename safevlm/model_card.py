"""The model card that goes with every checkpoint."""

from __future__ import annotations

from pathlib import Path

from safevlm.config import Calibration, SafetyConfig

UNTRAINED = (
    "its safety modules are UNTRAINED: random weights, whose scores and verdicts mean nothing; train them "
    "(safevlm train head), or load trained ones with from_pretrained"
)
"""What is said of modules that `attach` made, wherever they are used."""

TEMPLATE = """---
library_name: safevlm
base_model: {backbone}
tags: [safety, guardrail, vision-language]
license: apache-2.0
---

# Safety modules for {backbone}

{warning}A safety projector, safety tokens and a safety head for a frozen `{backbone_type}` backbone. Only the adapter
is here; the backbone is loaded from where it lives.

```python
{example}
```

| | |
|---|---|
| levels | {levels} |
| categories | {categories} |
| safety tokens | {num_tokens} per set |
| projector | {depth} + {depth} blocks, {hidden_dim} channels |
| vision features | hidden layer {vision_layer}, {vision_dim} wide |
| LoRA on the LLM | {lora} |
| calibration | {calibration} |
| operating point | {point} |
| reading (OCR) | {reading} |

Scores are P(unsafe) = 1 - P(level "{safe}"). A score says what the training data called risky; measure it
on your own images before you rely on it.
"""

ANSWERING = """from safevlm import SafeVLM

guard = SafeVLM.from_pretrained("path/to/this/folder")
reply = guard.generate(["photo.jpg"], ["What is shown here?"], max_new_tokens=64)[0]
print(reply.text, reply.assessment.score, reply.action)"""
SCORING = """from safevlm import RiskScorer

scorer = RiskScorer.from_pretrained("path/to/this/folder")
print(scorer.assess(["photo.jpg"])[0].score)"""


def model_card(config: SafetyConfig) -> str:
    """Markdown with the metadata block that the hub reads."""
    # a folder of this machine says nothing to others, and the hub refuses it
    backbone = Path(config.backbone).name if Path(config.backbone).is_absolute() else config.backbone
    return TEMPLATE.format(
        warning=f"**Do not use it: {UNTRAINED}.**\n\n" if config.untrained else "",
        example=ANSWERING if config.reads_prompts else SCORING,
        backbone=backbone or "unknown",
        backbone_type=config.backbone_type or "vision-language",
        levels=", ".join(config.taxonomy.levels),
        categories=", ".join(config.taxonomy.category_names),
        num_tokens=config.num_tokens,
        depth=config.depth,
        hidden_dim=config.hidden_dim,
        vision_layer=config.vision_layer,
        vision_dim=config.vision_dim,
        lora="yes" if config.has_lora else "no",
        calibration=_calibration(config.calibration),
        point="none; the default threshold is 0.5"
        if config.operating_point is None
        else config.operating_point.text,
        reading="none" if config.reading is None else config.reading.text,
        safe=config.taxonomy.safe_level,
    )


def _calibration(found: Calibration | None) -> str:
    if found is None:
        return "none"
    prior = "" if found.prior is None else f"; scores assume that {found.prior:.3g} of the images are risky"
    return f"temperature {found.temperature:.3g} on {found.samples} items of {found.data}{prior}"
