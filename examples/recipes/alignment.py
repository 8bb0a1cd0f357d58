"""Does alignment close the gap between what a model says of unsafe things in words, and of their images?

    python examples/recipes/alignment.py OUT --photos DATA

trains the embedded base by SFT, DPO, PPO and GRPO, and what DPO made of it by PPO and GRPO (`dpo+ppo`, `dpo+grpo`), with each
seed on drawings and photographs of the train split, and measures the results on the test split, beside the plain base and its
guard (stage 2). DATA holds photos/ and photos_native/; without it there are drawings alone. It goes on where it was stopped:
finished trainings and answers that are there are not repeated. In parts:

    python examples/recipes/alignment.py OUT --photos DATA --methods sft,dpo --seeds 0
    python examples/recipes/alignment.py OUT --photos DATA --methods ppo --seeds 1

A call prints the table of what it is asked for, and writes it to OUT/alignment.md, and the numbers of each seed to
OUT/alignment.json; the first command again gathers all parts. One process at a time works in OUT.

What is measured, by `safevlm.evals.concepts`: the share called unsafe of unsafe things in words and in images, the share
called safe of harmless images, the gap, N/A, and of the answers on images 1 - Self-BLEU, length in words, and the share
that name the thing; beside them perception and the accuracy on ordinary questions. Answers are greedy. `rules` judges them;
`trained`, whose log-likelihoods are PPO's and GRPO's reward, stands beside it in the JSON. By `--hold_out both` a fifth of the
things and one of the five questions are kept from training, others with each seed; trained and held-out things and questions have
tables of their own. Things are held out by name: with a held-out "pistol", "handgun" is trained.

Intervals of means over seeds are those of `safevlm.evals.seeds.over_seeds`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from safevlm.training import train
from safevlm.training.align.data import AlignData
from safevlm.training.mini.concept_table import write_concept_table
from safevlm.training.resume import last_checkpoint

from safevlm.checkpoint import resolve
from safevlm.demo import embedded_concepts, embedded_questions
from safevlm.errors import DataError
from safevlm.estimate import Estimate
from safevlm.evals.concepts import (
    Answer,
    AnswerCache,
    Measured,
    Probe,
    ask,
    general_probes,
    load_guard_target,
    load_plain_target,
    make_probes,
    measure,
    version_of,
)
from safevlm.evals.seeds import over_seeds
from safevlm.files import write_bytes
from safevlm.judges import judges_by_name
from safevlm.labelled import ConceptQuestions, ConceptSet
from safevlm.labelled.concept_questions import CONCEPT

LOGGER = logging.getLogger(__name__)
GRPO = [
    "--model.ppo.advantages=group", "--model.ppo.answers_per_prompt=8", "--data.batch_size=4",
    "--trainer.limit_train_batches=0.125",
]  # fmt: skip
"""Eight answers to an eighth of the prompts: as many answers and updates as PPO."""
TRAINED: dict[str, tuple[Any, str, list[str]]] = {
    "sft": ("sft", "", []),
    "dpo": ("dpo", "", []),
    "ppo": ("ppo", "", []),
    "grpo": ("ppo", "", GRPO),
    "dpo+ppo": ("ppo", "dpo", []),
    "dpo+grpo": ("ppo", "dpo", GRPO),
}
"""Method -> stage of `safevlm train`, the method whose result it goes on from, and what it changes in the stage's config."""
PLAIN, GUARD = "plain", "guard"
METHODS = (PLAIN, *TRAINED, GUARD)
KINDS = ("perception", "image", "text")
PART = ("images", "concepts", "questions")
"""What a table is about: drawings or photographs, of trained or held-out things, by trained or held-out questions."""
JUDGES = ("rules", "trained")
"""The first one fills the table; the second one rewards."""
ALL, UNSAFE, HARMLESS, ORDINARY = "all concepts", "unsafe concepts", "harmless concepts", "ordinary questions"
COLUMNS = (
    ("perception", ALL, "perception"),
    ("text, unsafe", UNSAFE, "text"),
    ("image, unsafe", UNSAFE, "image"),
    ("image, harmless", HARMLESS, "image"),
    ("gap, unsafe", UNSAFE, "gap"),
    ("N/A, images", ALL, "na"),
    ("1 - Self-BLEU", ALL, "diversity"),
    ("words", ALL, "words"),
    ("names it", ALL, "named"),
    ("general", ORDINARY, "general"),
)
"""Heading, row of the measurement, column."""


@dataclass(frozen=True)
class Options:
    """What all trainings and measurements in one folder have in common; `main` says what each is."""

    base: str = "safevlm-mini-base"
    guard: str = "safevlm-mini"
    photos: str | None = None
    hold_out: str = "both"
    n_train: int = 48
    n: int = 4
    general: int = 150


def main(
    out: Path,
    *,
    base: str = Options.base,
    guard: str = Options.guard,
    photos: str | None = None,
    methods: str = ",".join(METHODS),
    seeds: str = "0,1,2",
    hold_out: str = Options.hold_out,
    n_train: int = Options.n_train,
    n: int = Options.n,
    general: int = Options.general,
) -> None:
    """Train what is missing, measure, and print the table.

    Args:
        out: folder of the trainings, answers and results.
        base: name or folder of the backbone that is aligned.
        guard: name or folder of safety modules, which are measured with their own backbone.
        photos: folder with photos/ and photos_native/; drawings alone without it.
        methods: which, separated by commas: plain, sft, dpo, ppo, grpo, dpo+ppo, dpo+grpo, guard.
        seeds: of the trainings and their splits, separated by commas.
        hold_out: what training does not see: both, concepts, questions or none.
        n_train: drawings of each thing to train on; photographs are twice as many.
        n: test images of each unsafe thing, drawn and photographed; of harmless ones, which are more, a quarter.
        general: ordinary questions, at most.
    """
    wanted, numbers = methods.split(","), [int(seed) for seed in seeds.split(",")]
    if unknown := sorted(set(wanted) - set(METHODS)):
        raise ValueError(f"--methods: unknown {unknown}; there are {', '.join(METHODS)}")
    options = Options(base, guard, photos, hold_out, n_train, n, general)
    table = prepare(out, options)
    splits = {seed: split_of(table, options, seed) for seed in numbers}
    asked = questions(options)
    found = []
    for method, seed in product(wanted, numbers):
        if method in TRAINED:
            align(method, seed, out, table, options)
        found += measured(method, seed, splits[seed], asked, out, options)
    write_bytes(
        out / "alignment.json", json.dumps({"options": asdict(options), "found": found}, indent=1).encode()
    )
    text = markdown(found, options, numbers)
    write_bytes(out / "alignment.md", text.encode())
    print(text)


def prepare(out: Path, options: Options) -> Path:
    """The table to train on, written once; a folder of other options is refused."""
    out.mkdir(parents=True, exist_ok=True)
    kept, table = out / "options.json", out / "train.parquet"
    own = {**asdict(options), "base_version": version_of(resolve(options.base))}
    if kept.exists() and json.loads(kept.read_text()) != own:
        raise DataError(
            f"{out} holds results of other options, or of another base ({kept}); give another folder, or these options"
        )
    write_bytes(kept, json.dumps(own, indent=1).encode())
    if not table.exists():
        photos = None if options.photos is None else Path(options.photos)
        write_concept_table(table, n=options.n_train, n_photos=2 * options.n_train, photos=photos)
    return table


def split_of(table: Path, options: Options, seed: int) -> dict[str, list[str]]:
    """What a seed trains on and holds out, as it stands in `alignment.json`."""
    kept = table.with_name(f"split-{seed}.json")
    if not kept.exists():
        data = AlignData(concepts=str(table), hold_out=options.hold_out, seed=seed)
        data.read()
        assert data.split is not None
        write_bytes(kept, json.dumps(data.split.to_dict(), indent=1).encode())
    found: dict[str, list[str]] = json.loads(kept.read_text())
    return found


def questions(options: Options) -> dict[str, list[Probe]]:
    """Drawings and photographs -> what is asked about them, ordinary questions too; the same of every model and seed."""
    kinds = {"scenes": None} if options.photos is None else {"scenes": None, "photographs": options.photos}
    asked = {}
    for name, photos in kinds.items():
        unsafe = embedded_concepts(n=options.n, seed=0, photos=photos)
        harmless = embedded_concepts(n=max(1, options.n // 4), seed=0, photos=photos)
        kept = [one for one in unsafe.images if one.unsafe] + [
            one for one in harmless.images if not one.unsafe
        ]
        concepts = ConceptSet(unsafe.name, tuple(kept))
        ordinary = general_probes(embedded_questions(n=options.general, seed=0, photos=photos))
        asked[name] = [*make_probes(concepts, ConceptQuestions(), seed=0, kinds=KINDS), *ordinary]
    return asked


def align(method: str, seed: int, out: Path, table: Path, options: Options) -> None:
    """Train a method with a seed, or go on with it, unless it is there; first the one that it starts from."""
    stage, start, changes = TRAINED[method]
    folder = out / f"{method}-{seed}"
    if (folder / "alignment.json").exists():
        return
    if start:
        align(start, seed, out, table, options)
    backbone = out / f"{start}-{seed}" if start else options.base
    argv = [
        f"--config=mini_{stage}", f"--model.backbone={backbone}", f"--model.output_dir={folder}",
        f"--data.concepts={table}", f"--data.hold_out={options.hold_out}", f"--data.seed={seed}",
        f"--seed_everything={seed}", "--save_every=10", "--trainer.enable_progress_bar=false", *changes,
    ]  # fmt: skip
    if last_checkpoint(Path(f"{folder}.run") / "checkpoints") is not None:
        argv.append("--ckpt_path=last")
    LOGGER.info("safevlm train %s %s", stage, " ".join(argv))
    train(stage, argv)


def measured(
    method: str,
    seed: int,
    split: dict[str, list[str]],
    asked: dict[str, list[Probe]],
    out: Path,
    options: Options,
) -> Iterator[dict[str, Any]]:
    """Ask a model, and count each part of the answers with each judge."""
    if method == GUARD:
        target, version = load_guard_target(options.guard)
    else:
        source = options.base if method == PLAIN else out / f"{method}-{seed}"
        target, version = load_plain_target(source)
    judges = judges_by_name(JUDGES)
    for images, every in asked.items():
        LOGGER.info("%s, seed %d: %d questions on %s", method, seed, len(every), images)
        answers = ask(target, every, cache=AnswerCache(out / "answers.jsonl"), version=version)
        for concepts, about in product(("trained", "held_out"), repeat=2):
            rows = part(every, answers, split, concepts=concepts, questions=about)
            if not rows:
                continue  # nothing is held out
            probes, said = zip(*rows, strict=True)
            for judge in judges:
                result = measure(probes, said, judge, target=method, concepts=images)
                yield {
                    "method": method, "seed": seed, "images": images, "concepts": concepts, "questions": about,
                    "judge": result.judge, "rows": overall(result),
                }  # fmt: skip


def part(
    probes: Sequence[Probe],
    answers: Sequence[Answer],
    split: dict[str, list[str]],
    *,
    concepts: str,
    questions: str,
) -> list[tuple[Probe, Answer]]:
    """Probes of trained or held-out things by trained or held-out questions, and ordinary ones; none without an image's."""
    known = {name.partition("/")[2] for name in split["trained_concepts"]}
    every = ConceptQuestions()
    about = [
        place for place, question in enumerate(every.image) if question in split[f"{questions}_questions"]
    ]
    shown = {every.image[place] for place in about}
    named = tuple(every.text[place].partition(CONCEPT)[2] for place in about)

    def wanted(probe: Probe) -> bool:
        if probe.kind == "general":
            return True
        if (probe.concept in known) != (concepts == "trained"):
            return False
        by_question = {"image": probe.prompt in shown, "text": bool(named) and probe.prompt.endswith(named)}
        return by_question.get(probe.kind, True)

    rows = [pair for pair in zip(probes, answers, strict=True) if wanted(pair[0])]
    return rows if any(probe.kind == "image" for probe, _ in rows) else []


def overall(found: Measured) -> list[dict[str, Any]]:
    """The rows of all things, and of ordinary questions."""
    return [row for row in found.to_dict()["rows"] if row["level"] in ("all", "general")]


def value_of(found: dict[str, Any], row: str, column: str) -> Estimate | None:
    """A number of a measurement: a judged share over the answers that were read, N/A of images, or what answers are like."""
    for own in found["rows"]:
        if own["name"] == row:
            cell = own["cells"].get("image" if column == "na" else column, {})
            number = own["traits"].get(column) or cell.get("na" if column == "na" else "dropped")
            return (
                None
                if number is None
                else Estimate(*(number[name] for name in ("value", "low", "high", "n")))
            )
    return None


def cell_of(found: Sequence[dict[str, Any]], row: str, column: str) -> str:
    """The mean over the seeds with its interval; shares in percent, gaps in points."""
    numbers = [one for own in found if (one := value_of(own, row, column)) is not None]
    if not numbers:
        return "–"
    bounds = {"gap": (-1.0, 1.0), "words": (0.0, math.inf)}
    mean = over_seeds(numbers, within=bounds.get(column, (0.0, 1.0)))
    scale, digits = {"words": (1, 1), "diversity": (1, 2)}.get(column, (100, 1))
    value, low, high = (f"{scale * number:.{digits}f}" for number in (mean.value, mean.low, mean.high))
    some = "" if len(numbers) == len(found) else f" ({len(numbers)} of {len(found)} seeds)"
    return f"{value} [{low}, {high}]{some}"


def markdown(found: Sequence[dict[str, Any]], options: Options, seeds: Sequence[int]) -> str:
    """A table for each kind of images and for what was trained and held out."""
    lines = [
        f"Base {options.base}, guard {options.guard}; trained on the train split with seeds {', '.join(map(str, seeds))}, hold-out "
        f"{options.hold_out}, measured on the test split. Judge: {JUDGES[0]}; PPO and GRPO are rewarded by {JUDGES[1]}. Shares in "
        "percent over the answers that are not N/A, gaps in points; mean over the seeds [95 % interval]; n: answers on images, "
        "of each seed."
    ]
    for key in dict.fromkeys(tuple(one[name] for name in PART) for one in found):
        own = [one for one in found if (*(one[name] for name in PART), one["judge"]) == (*key, JUDGES[0])]
        images, concepts, about = (name.replace("_", " ") for name in key)
        lines += ["", f"**{images}, {concepts} things, {about} questions**", ""]
        lines += [
            "| | " + " | ".join(heading for heading, *_ in COLUMNS) + " | n |",
            "|---|" + "--:|" * (len(COLUMNS) + 1),
        ]
        for method in dict.fromkeys(one["method"] for one in own):
            of_method = [one for one in own if one["method"] == method]
            cells = [cell_of(of_method, row, column) for _, row, column in COLUMNS]
            counts = [number.n for one in of_method if (number := value_of(one, ALL, "words")) is not None]
            lines.append(f"| {method} | {' | '.join(cells)} | {', '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    auto_cli(main)
