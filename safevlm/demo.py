"""The embedded model at work: the demonstration, and the table of its evaluation."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safevlm.backbone import load_backbone
from safevlm.checkpoint import resolve
from safevlm.data import FolderSource, decode_item
from safevlm.errors import DataError
from safevlm.evals import GuardResponder, OnProgress, Responder, Table, evaluate
from safevlm.guard.model import SafeVLM
from safevlm.policy import Policy
from safevlm.report import Comparison, Finding, render_page
from safevlm.scan import ScanCounts, ScanSummary, scan

MINI, STAGE1 = "safevlm-mini", "safevlm-mini-stage1"
PICTURE_SIZE = 256  # px, for people; the model's own processor shrinks them to its 64
KINDS = ("ordinary", "lookalike", "risky", "ordinary", "typographic_harmless", "risky", "typographic_risky")
OWN_PICTURE = re.compile(r"\d{3,}-[a-z-]+\.jpg")
PAIRS = ("risky", "ordinary", "typographic_risky", "lookalike")


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration found, and its page; `comparisons` by the name of what the picture shows."""

    folder: Path
    summary: ScanSummary
    comparisons: dict[str, Comparison]
    page: Path


def run_demo(
    folder: Path, *, images: int, seed: int, on_progress: Callable[[ScanCounts], None] | None = None
) -> DemoResult:
    """Render test scenes, scan them, answer some without and with the guard, write `folder`/index.html.

    Args:
        images: scenes to render, at least 1.
        seed: of the scenes and of the requests.

    Raises:
        ValueError: fewer than one image.
        DataError: `folder` holds files that no demo wrote.
    """
    if images < 1:
        raise ValueError(f"the demo needs at least one image, {images} were asked for")
    pictures = folder / "images"
    _render(pictures, images, seed)
    guard = SafeVLM.from_pretrained(MINI)
    source = FolderSource(pictures)
    summary = scan(source, guard.scorer, folder / "scan", on_progress=on_progress, fresh=True)
    items = [item for shard in source.shards() for item in source.read(shard)]
    decoded = [decode_item(item) for item in items]
    found = guard.assess(decoded, heatmap=True)
    comparisons = dict(_compare(guard, kind, seed) for kind in PAIRS)
    page = render_page(
        [Finding(item.id, image, a) for item, image, a in zip(items, decoded, found, strict=True)],
        folder / "index.html",
        title="What the guard sees",
        summary={
            "model": "safevlm-mini, a demonstration trained on drawn scenes: no guard for production",
            "images": summary.n,
            "images per second": round(summary.images_per_second),
            "policy": guard.policy.sha256[:16],
        },
        comparisons=list(comparisons.values()),
    )
    return DemoResult(folder, summary, comparisons, page)


def _render(folder: Path, images: int, seed: int) -> None:
    """Fill `folder` with scenes of every kind, named after what they show; pictures of an earlier demo go."""
    from safevlm.training.mini.scenes import render

    folder.mkdir(parents=True, exist_ok=True)
    old = list(folder.iterdir())
    if foreign := [path.name for path in old if not OWN_PICTURE.fullmatch(path.name)]:
        raise DataError(
            f"{folder} holds {foreign[0]!r}, which no demo wrote; choose another folder with --out"
        )
    for path in old:
        path.unlink()
    for number in range(images):
        scene = render(1000 * seed + number, "test", KINDS[number % len(KINDS)], PICTURE_SIZE)
        scene.image.save(folder / f"{number:03d}-{scene.name.replace(' ', '-')}.jpg", quality=90)


def _compare(guard: SafeVLM, kind: str, seed: int) -> tuple[str, Comparison]:
    """One scene of a kind, its request, and the answers without and with the guard."""
    from safevlm.training.mini.dialogues import image_request, shown_scene
    from safevlm.training.mini.scenes import render

    scene = render(1000 * seed + 500 + PAIRS.index(kind), "test", kind, PICTURE_SIZE)
    prompt = image_request(random.Random(f"demo:{seed}:{kind}"), "test", shown_scene(scene))
    with guard.disabled():
        plain = guard.generate([scene.image], [prompt], max_new_tokens=48, do_sample=False)[0]
    safe = guard.generate([scene.image], [prompt], max_new_tokens=48, do_sample=False)[0]
    assessment = guard.assess([scene.image], [prompt], heatmap=True)[0]
    comparison = Comparison(scene.image, prompt, plain.text, safe.text, safe.action, safe.hint, assessment)
    return f"{kind.replace('_', ' ')}: {scene.name}", comparison


def evaluate_mini(
    *,
    n: int,
    seed: int,
    photos: str | None = None,
    split: str = "test",
    on_progress: OnProgress | None = None,
) -> Table:
    """The table of the embedded model: five rows from the plain backbone to stage 2.

    Every risky level gets a hint, as in the paper; no fixed refusals, so that the answers are the LLM's.

    Args:
        n: items per cell.
        seed: of the rendered scenes and of the draw among photographs.
        photos: folder with the photographs; None leaves their columns empty.
        split: test, or tune while a recipe is being developed.
    """
    from safevlm.training.mini.examples import evaluation_sets

    sets = evaluation_sets(split, n, seed, None if photos is None else Path(photos))
    return evaluate(mini_rows(), sets, on_progress=on_progress)


def mini_rows(stage1: str | Path = STAGE1, stage2: str | Path = MINI) -> dict[str, Responder]:
    """The five rows of the table, from a stage-1 and a stage-2 checkpoint."""
    first = SafeVLM.from_pretrained(stage1, backbone=load_backbone(resolve("safevlm-mini-base")))
    second = SafeVLM.from_pretrained(stage2, backbone=load_backbone(resolve("safevlm-mini-base")))
    policy = Policy.hints_only(first.config.taxonomy)
    return {
        "plain": GuardResponder(first, policy, enabled=False),
        "tokens": GuardResponder(first, policy, guarded=False),
        "head_hint": GuardResponder(first, policy, use_tokens=False),
        "stage1": GuardResponder(first, policy),
        "stage2": GuardResponder(second, policy),
    }
