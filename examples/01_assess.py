"""Score pictures: risk in [0, 1], level, category. Needs no LLM."""

from pathlib import Path

from safevlm.training.mini.scenes import render

from safevlm import RiskScorer

folder = Path("pictures")
folder.mkdir(exist_ok=True)
paths = []
for seed, kind in enumerate(["ordinary", "lookalike", "risky", "typographic_risky"]):
    scene = render(seed, "test", kind, 256)
    paths.append(folder / f"{kind}.png")
    scene.image.save(paths[-1])

scorer = RiskScorer.from_pretrained("safevlm-mini")
for path, assessment in zip(paths, scorer.assess(paths), strict=True):
    print(f"{path.stem:20s} {assessment.score:.2f} {assessment.verdict.value:8s} {assessment.category}")
