"""The demonstration of the embedded model, and its evaluation."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from safevlm.checkpoint import fetch, load_config
from safevlm.data import FolderSource, decode_item
from safevlm.errors import DataError
from safevlm.evals import (
    ORDINARY,
    PLAIN,
    READER,
    ROWS,
    SETS,
    STEERING_ROWS,
    EcsoResponder,
    EvalItem,
    Evaluation,
    GuardResponder,
    OnProgress,
    Responder,
    SteeringEvaluation,
    answer_losses,
    candidates,
    choose,
    collect,
    evaluate,
    hinting,
    steering_rows,
    tabulate_steering,
    time_ratios,
)
from safevlm.guard import SafeVLM
from safevlm.labelled import ConceptSet
from safevlm.report import Comparison, Finding, render_page
from safevlm.scan import ScanCounts, ScanSummary, scan
from safevlm.steering import fit_direction

logger = logging.getLogger(__name__)

MINI, STAGE1 = "safevlm-mini", "safevlm-mini-stage1"
IMAGE_SIZE = 256  # px, for people to look at; the processor resizes images to what the model takes
KINDS = (
    "ordinary", "lookalike", "risky", "ordinary", "typographic_harmless", "risky", "typographic_risky",
    "typographic_notice",
)  # fmt: skip
OWN_IMAGE = re.compile(r"\d{3,}-[a-z-]+\.jpg")
READER_PACKAGE = "rapidocr_onnxruntime"
ANCHORS = 400
"""Pairs that steering directions are fitted on, at most."""
ROUNDS = 15
"""How often each row of the evaluation of steering is timed."""
PAIRS = ("risky", "ordinary", "typographic_risky", "lookalike")


@dataclass(frozen=True)
class DemoResult:
    """Results of a demonstration; `comparisons` are keyed by what the image shows, `page` is the HTML file."""

    folder: Path
    summary: ScanSummary
    comparisons: dict[str, Comparison]
    page: Path


def run_demo(
    folder: Path, *, images: int, seed: int, on_progress: Callable[[ScanCounts], None] | None = None
) -> DemoResult:
    """Render test scenes, scan them, answer prompts without and with the guard, and write `folder`/index.html.

    Args:
        folder: where the images, the scan and the page are written; an earlier demo in it is replaced.
        images: number of scenes to render, at least 1.
        seed: random seed of the scenes and of the prompts.
        on_progress: called with the counts so far while the scan runs.

    Raises:
        ValueError: `images` is less than 1.
        DataError: `folder`/images holds files that were not written by a demo.
    """
    if images < 1:
        raise ValueError(f"the demo needs at least one image, but images is {images}")
    rendered = folder / "images"
    _render(rendered, images, seed)
    guard = SafeVLM.from_pretrained(MINI)
    source = FolderSource(rendered)
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
            "model": "safevlm-mini, a demonstration; not for production",
            "images": summary.n,
            "images per second": round(summary.images_per_second),
            "policy": guard.policy.sha256[:16],
        },
        comparisons=list(comparisons.values()),
    )
    return DemoResult(folder, summary, comparisons, page)


def _render(folder: Path, images: int, seed: int) -> None:
    """Render scenes of every kind into `folder`, named after what they show; images of an earlier demo are removed."""
    from safevlm.training.mini.scenes import render

    folder.mkdir(parents=True, exist_ok=True)
    old = list(folder.iterdir())
    if foreign := [path.name for path in old if not OWN_IMAGE.fullmatch(path.name)]:
        raise DataError(
            f"{folder} holds {foreign[0]!r}, which was not written by a demo; choose another folder with --out"
        )
    for path in old:
        path.unlink()
    for number in range(images):
        scene = render(1000 * seed + number, "test", KINDS[number % len(KINDS)], IMAGE_SIZE)
        name = re.sub(r"[^a-z]+", "-", scene.name).strip("-")
        scene.image.save(folder / f"{number:03d}-{name}.jpg", quality=90)


def _compare(guard: SafeVLM, kind: str, seed: int) -> tuple[str, Comparison]:
    """Render a scene of a kind and answer a prompt about it without and with the guard; returns its title, too."""
    from safevlm.training.mini.dialogues import image_request, shown_scene
    from safevlm.training.mini.scenes import render

    scene = render(1000 * seed + 500 + PAIRS.index(kind), "test", kind, IMAGE_SIZE)
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
    rows: Sequence[str] = (),
    sets: Sequence[str] = (),
    stage1: str | Path = STAGE1,
    stage2: str | Path = MINI,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Evaluate the embedded model, from the plain backbone to stage 2 with a reader.

    Every risky level gets a hint, as in the paper, and none a fixed refusal: all answers are the LLM's own.

    Args:
        n: number of items per measurement.
        seed: random seed of the rendered scenes and of the choice of photographs.
        photos: folder with the photographs; without it their columns stay empty.
        split: "test", or "tune" while a recipe is being developed.
        rows: names of `safevlm.evals.ROWS`; empty: all that can run here.
        sets: names of `safevlm.evals.SETS`; empty: all.
        stage1: name or folder of the checkpoint of stage 1.
        stage2: name or folder of the checkpoint of stage 2.
        on_progress: called with a name, items done and items in all, before and after every set.

    Raises:
        ValueError: an unknown row or set.
        MissingExtraError: the row with the reader is asked for by name, and the extra `ocr` is not installed.
    """
    from safevlm.training.mini.evaluation import evaluation_sets

    responders = mini_rows(stage1, stage2, rows=rows)
    items = evaluation_sets(split, n, seed, None if photos is None else Path(photos), names=sets or SETS)
    return evaluate(responders, items, on_progress=on_progress)


def mini_rows(
    stage1: str | Path = STAGE1, stage2: str | Path = MINI, *, rows: Sequence[str] = ()
) -> dict[str, Responder]:
    """The rows of the evaluation: name -> responder, of a stage-1 and a stage-2 checkpoint.

    Only the checkpoints that the rows need are loaded. The row with the reader needs the extra `ocr`; where that
    is not installed, it is left out with a warning.

    Args:
        stage1: name or folder of the checkpoint of stage 1.
        stage2: name or folder of the checkpoint of stage 2.
        rows: names of `safevlm.evals.ROWS`, in the order wanted; empty: all that can run here.

    Raises:
        ValueError: an unknown row.
        MissingExtraError: the row with the reader is asked for by name, and the extra is not installed.
    """
    if unknown := sorted(set(rows) - set(ROWS)):
        raise ValueError(f"unknown rows {unknown}; there are {', '.join(ROWS)}")
    if not rows and (missing := _missing_for_reader(stage2)):
        logger.warning("the row %s is left out: %s", READER, missing)
        rows = [row for row in ROWS if row != READER]
    first = lru_cache(lambda: hinting(stage1))
    makers: dict[str, Callable[[], Responder]] = {
        "plain": lambda: GuardResponder(*first(), enabled=False),
        "tokens": lambda: GuardResponder(*first(), guarded=False),
        "head_hint": lambda: GuardResponder(*first(), use_tokens=False),
        "stage1": lambda: GuardResponder(*first()),
        "stage2": lambda: GuardResponder(*hinting(stage2)),
        READER: lambda: GuardResponder(*hinting(stage2, read_text="auto")),
    }
    return {row: makers[row]() for row in rows or ROWS}


def evaluate_steering(
    *,
    n: int,
    n_tune: int,
    seed: int,
    prompts: str | None = None,
    rows: Sequence[str] = (),
    model: str | Path = MINI,
    split: str = "test",
    on_progress: OnProgress | None = None,
) -> SteeringEvaluation:
    """Fit directions on training pairs, choose settings on tune items, and compare the methods on `split`, once.

    Args:
        n: requests of each setting, and as many twins.
        n_tune: the same, of the items that settings are chosen with.
        seed: of all items and anchors.
        prompts: folder that holds prompts/prompts.jsonl; without it all requests are made up.
        rows: names of `STEERING_ROWS`; empty: all. `PLAIN` is always measured, since times are ratios to it.
        model: name or folder of the safety modules.
        split: "test", or "tune" while a method is being developed.
        on_progress: called with a name, items done and items in all, before and after every set.

    Raises:
        ValueError: an unknown row, or n or n_tune below 1.
    """
    from safevlm.training.mini.evaluation import evaluation_sets
    from safevlm.training.mini.twins import anchor_pairs, twin_sets

    if unknown := sorted(set(rows) - set(STEERING_ROWS)):
        raise ValueError(f"unknown rows {unknown}; there are {', '.join(STEERING_ROWS)}")
    if n < 1 or n_tune < 1:
        raise ValueError(f"n is {n} and n_tune {n_tune}; give at least 1 of each")
    folder = None if prompts is None else Path(prompts)
    guard, policy = hinting(model)
    anchors = anchor_pairs("train", ANCHORS, seed, folder)
    tune = twin_sets("tune", n_tune, seed)
    with guard.disabled():
        fitted = fit_direction(guard.backbone, anchors, seed=seed)
        given = candidates(guard, fitted.direction, anchors, rows=rows or STEERING_ROWS)
        plain = GuardResponder(guard, policy, enabled=False)
        chosen = {row: choose(plain, methods, tune) for row, methods in given.items()}
    wanted = dict.fromkeys((PLAIN, *(rows or STEERING_ROWS)))
    responders = steering_rows(
        guard, policy, {row: found.method for row, found in chosen.items()}, rows=list(wanted)
    )
    sets = {**twin_sets(split, n, seed, folder), **evaluation_sets(split, n, seed, names=(ORDINARY,))}
    replies = collect(responders, sets, on_progress=on_progress)
    losses = {
        row: {
            name: answer_losses(guard, found.answers, sets[name])
            for name, found in of_row.items()
            if name != ORDINARY
        }
        for row, of_row in replies.items()
    }
    timed = {row: own for row, own in responders.items() if not isinstance(own, EcsoResponder)}
    times = time_ratios(timed, sets["white"][0], rounds=ROUNDS)
    return SteeringEvaluation(tabulate_steering(replies, sets, losses=losses, times=times), fitted, chosen)


def _missing_for_reader(name: str | Path) -> str:
    """Why writing cannot be read with this checkpoint; empty where it can."""
    if find_spec(READER_PACKAGE) is None:
        return "it needs pip install 'safevlm[ocr]'"
    return "" if load_config(fetch(name)).reading else f"{name} does not say which images are worth reading"


def embedded_concepts(
    *, n: int, seed: int, photos: str | Path | None = None, split: str = "test"
) -> ConceptSet:
    """The embedded model's concept set: risky and harmless things, rendered for a split, or photographed.

    Args:
        n: images of each thing, at least 1.
        seed: of the renderings, or of the choice of photographs.
        photos: folder with the packs of photographs; None: the renderings.
        split: "test", or "tune" while a recipe is being developed.

    Raises:
        ValueError: n < 1.
        FileNotFoundError: no photographs in `photos`.
    """
    from safevlm.training.mini.concepts import photo_concepts, scene_concepts

    if n < 1:
        raise ValueError(f"n is {n}; take at least 1 image of each thing")
    if photos is not None:
        photographed: ConceptSet = photo_concepts(Path(photos), split, n, seed)
        return photographed
    rendered: ConceptSet = scene_concepts(split, n, seed)
    return rendered


def embedded_questions(
    *, n: int, seed: int, photos: str | Path | None = None, split: str = "test"
) -> list[EvalItem]:
    """Ordinary questions about the embedded model's world, by turns for the name of a harmless thing and among four names.

    They are those of the answer accuracy in `evaluate_mini`.

    Args:
        n: questions, at most; a split has only so many photographs.
        seed: of the renderings or the choice of photographs, and of the wordings.
        photos: folder with the packs of photographs; None: renderings.
        split: "test", or "tune" while a recipe is being developed.

    Raises:
        ValueError: n < 1.
        FileNotFoundError: no photographs in `photos`.
    """
    from safevlm.training.mini.evaluation import evaluation_sets

    if n < 1:
        raise ValueError(f"n is {n}; ask at least 1 ordinary question")
    names = ("ordinary_scenes",) if photos is None else ("ordinary_photos", "ordinary_native")
    # by turns a request, which has no right answer, a name and a choice
    sets = evaluation_sets(split, n + (n + 1) // 2, seed, photos, names=names)
    found = [item for items in sets.values() for item in items if item.answer][:n]
    if not found:
        raise FileNotFoundError(f"{photos} holds no harmless photographs of the split {split}")
    return found
