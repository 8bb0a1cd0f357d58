"""argv -> one call -> exit code. The typed signatures below are the flags; `--config file.yaml` sets any of them."""

from __future__ import annotations

import json as json_module
import logging
import os
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from docstring_parser import parse as docstring
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from safevlm.errors import SafeVLMError

if TYPE_CHECKING:
    from safevlm.policy import Policy

MINI = "safevlm-mini"


def info(*, json: bool = False) -> int:
    """Versions, device, and the embedded checkpoints with their hashes.

    Args:
        json: print JSON instead of a table.
    """
    from safevlm import terminal
    from safevlm.info import collect

    found = collect()
    print(json_module.dumps(found, indent=2)) if json else terminal.show_info(found)
    return 0


def assess(
    images: list[str],
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    policy: str | None = None,
    heatmap: str | None = None,
    json: bool = False,
    device: str = "cpu",
) -> int:
    """Score images: risk in [0, 1], level, category, verdict. Needs no LLM.

    Args:
        images: image files.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        prompt: text to assess together with each image.
        policy: YAML file with thresholds and actions.
        heatmap: PNG file to write where the head looked; for a single image.
        json: print one JSON object per line instead of a table.
        device: torch device, such as cpu or cuda:0.

    Exit code 1 where an image could not be scored.
    """
    from safevlm import terminal
    from safevlm.scorer import RiskScorer
    from safevlm.types import Verdict

    if heatmap is not None and len(images) != 1:
        raise ValueError(f"--heatmap is for a single image, {len(images)} were given; call it once per image")
    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device=device, policy=_read_policy(policy, model)
    )
    prompts = None if prompt is None else [prompt] * len(images)
    found = scorer.assess(images, prompts, heatmap=heatmap is not None)
    if heatmap is not None and found[0].heatmap is not None:
        from safevlm.data import read_image
        from safevlm.report import overlay

        overlay(read_image(images[0]), found[0].heatmap).save(heatmap, format="PNG")
    if json:
        for image, assessment in zip(images, found, strict=True):
            print(json_module.dumps({"image": image, **assessment.to_dict()}))
    else:
        terminal.show_assessments(images, found)
    return int(any(assessment.verdict is Verdict.UNDECIDED for assessment in found))


def chat(
    image: str,
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    guard: bool = True,
    policy: str | None = None,
    max_new_tokens: int = 256,
    device: str | None = None,
) -> int:
    """Talk about an image; answers are streamed and respect the guard.

    Args:
        image: image file.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        prompt: ask this once and end, instead of a dialogue.
        guard: whether the guard is on; --no-guard gives the plain backbone.
        policy: YAML file with thresholds and actions.
        max_new_tokens: longest answer, in tokens.
        device: torch device of the whole model; cpu by default.
    """
    from contextlib import nullcontext

    from safevlm import terminal
    from safevlm.data import read_image
    from safevlm.model import SafeVLM

    picture = read_image(image)
    model_ = SafeVLM.from_pretrained(
        model, backbone=backbone, policy=_read_policy(policy, model), device_map=device
    )
    with nullcontext() if guard else model_.disabled():
        if guard:
            terminal.show_assessments([image], model_.assess([picture]))
        terminal.converse(model_, picture, prompt, max_new_tokens=max_new_tokens)
    return 0


def scan(
    folder: str,
    *,
    out: str,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    limit: int | None = None,
    fresh: bool = False,
    device: str = "cpu",
) -> int:
    """Score every image below a folder: Parquet rows, a summary, and a table at the end.

    Args:
        folder: searched with all its subfolders.
        out: folder for rows/ and summary.json; must be new or empty.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        policy: YAML file with thresholds and actions.
        batch_size: images per pass of the vision tower.
        workers: threads that decode images.
        limit: scan only the first so many images.
        fresh: replace an earlier scan in `out`.
        device: torch device, such as cpu or cuda:0.

    Exit code 1 where no image could be scored.
    """
    from safevlm import terminal
    from safevlm.data import FolderSource
    from safevlm.scan import scan as run_scan
    from safevlm.scorer import RiskScorer

    source = FolderSource(folder)
    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device=device, policy=_read_policy(policy, model)
    )
    with terminal.scan_progress() as advance:
        summary = run_scan(
            source,
            scorer,
            Path(out),
            batch_size=batch_size,
            workers=workers,
            limit=limit,
            on_progress=advance,
            fresh=fresh,
        )
    terminal.show_summary(summary, Path(out))
    return int(summary.statuses.get("ok", 0) == 0)


def eval_mini(
    *,
    n: int = 500,
    seed: int = 0,
    photos: str | None = None,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Measure the embedded model without and with its guard, on held-out data it renders itself.

    Args:
        n: items per cell.
        seed: of the rendered test scenes and of the draw among photographs.
        photos: folder with photos64/ and prompts/; the columns that need photographs are empty without it.
        json: print {row: {column: {value, low, high, n}}}.
        markdown: print the README's table.
    """
    from safevlm import terminal
    from safevlm.demo import evaluate_mini
    from safevlm.evals import to_json, to_markdown

    with terminal.eval_progress(quiet=json or markdown) as advance:
        table = evaluate_mini(n=n, seed=seed, photos=photos, on_progress=advance)
    if json:
        print(json_module.dumps(to_json(table), indent=2))
    elif markdown:
        print(to_markdown(table))
    else:
        terminal.show_table(table)
    return 0


def demo(*, out: str = "demo", images: int = 48, seed: int = 0) -> int:
    """Render images, scan them, answer with and without the guard, and write a page to open.

    Args:
        out: folder for the images, the scan and index.html; an earlier demo there is replaced.
        images: how many to render.
        seed: of the pictures.
    """
    from safevlm import terminal
    from safevlm.demo import run_demo

    with terminal.scan_progress() as advance:
        result = run_demo(Path(out), images=images, seed=seed, on_progress=advance)
    terminal.show_demo(result)
    return 0


def bench(
    *,
    rows: str = "score,pipeline,generate,head,guard",
    shape: str | None = None,
    device: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    seconds: float = 5.0,
    out: str | None = None,
    json: bool = False,
) -> int:
    """Measure speed against the bare tower and the bare backbone, side by side, with random weights.

    Args:
        rows: which to measure, of score, pipeline, generate, head, guard, with commas between.
        shape: vit-l-14-336 (a GPU's default), vit-b-32 (a CPU's), or tiny, which shows that it runs.
        device: cpu or cuda:0 for example; the GPU where there is one.
        dtype: of the backbones; auto is bfloat16 on a GPU, float32 on a CPU.
        seconds: for the rounds of a cell of the table; three rounds are run at least.
        out: Markdown file to write the table to, with machine, versions and date.
        json: print a list of {row, device, value, unit, ratio, against, ...}.

    Exit code 1 where nothing could be measured.
    """
    from safevlm import terminal
    from safevlm.bench import Setup, parse_rows, run, to_json

    names, setup = parse_rows(rows), Setup.choose(shape, device=device, dtype=dtype, seconds=seconds)
    found = run(setup, names, out=out, on_row=None if json else terminal.show_step)
    print(json_module.dumps(to_json(found), indent=2)) if json else terminal.show_bench(found, setup)
    return int(all(result.value is None for result in found))


def _check_device(name: str | None) -> None:
    """Raise ValueError for a device that torch does not know or this machine does not have."""
    import torch

    try:
        device = torch.device(name or "cpu")
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no CUDA device; leave the flag out to run on the CPU")


def _read_policy(path: str | None, model: str) -> Policy | None:
    """The policy file, with the model's own taxonomy where it names none."""
    if path is None:
        return None
    from safevlm import checkpoint
    from safevlm.policy import Policy

    return Policy.from_yaml(path, checkpoint.load_config(checkpoint.fetch(model)).taxonomy)


def _train(arguments: Sequence[str]) -> int:
    """Hand the rest of the line to LightningCLI."""
    if not arguments or arguments[0] not in ("head", "joint"):
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(
            "usage: safevlm train {head,joint} [--config FILE] [--help] ...\n\n"
            "  head   stage 1: safety projector, tokens and head on the frozen backbone\n"
            "  joint  stage 2: the modules together with LoRA on the LLM",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    from safevlm.training import train

    train(arguments[0], list(arguments[1:]))
    return 0


def _command(
    function: Callable[..., int], *, positional: tuple[str, str, str] | None = None
) -> ArgumentParser:
    """A parser whose flags are the function's typed signature; switches need no value."""
    parser = ArgumentParser(description=(function.__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", action="config", help="YAML file with any of these flags")
    skip = set()
    if positional:
        name, nargs, text = positional
        options: dict[str, Any] = {"nargs": nargs} if nargs else {}
        parser.add_argument(name, type=str, help=text, **options)
        skip.add(name)
    texts = {entry.arg_name: entry.description for entry in docstring(function.__doc__ or "").params}
    for parameter in signature(function).parameters.values():
        if isinstance(parameter.default, bool):
            skip.add(parameter.name)
            action = ActionYesNo if parameter.default else "store_true"
            parser.add_argument(
                f"--{parameter.name}", action=action, default=parameter.default, help=texts[parameter.name]
            )
    parser.add_function_arguments(function, skip=skip, as_positional=False, as_group=False)
    return parser


def _underscored(arguments: Sequence[str]) -> list[str]:
    """`--batch-size=8` as `--batch_size=8`: both spellings of a flag are taken."""
    flags = [argument.partition("=") for argument in arguments]
    return [
        name.replace("-", "_").replace("__", "--", 1) + sep + value
        if name.startswith("--")
        else name + sep + value
        for name, sep, value in flags
    ]


COMMANDS: dict[str, tuple[Callable[..., int], tuple[str, str, str] | None]] = {
    "info": (info, None),
    "assess": (assess, ("images", "+", "image files")),
    "chat": (chat, ("image", "", "image file")),
    "scan": (scan, ("folder", "", "folder of images, searched with all its subfolders")),
    "demo": (demo, None),
    "bench": (bench, None),
}


def build_parser() -> ArgumentParser:
    """The whole command line but `train`, which LightningCLI parses."""
    parser = ArgumentParser(prog="safevlm", description="Safety modules for open vision-language models.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (function, positional) in COMMANDS.items():
        commands.add_subcommand(
            name, _command(function, positional=positional), help=(function.__doc__ or "").splitlines()[0]
        )
    tasks = ArgumentParser(description="Measure a model; `mini` is the embedded one.")
    commands.add_subcommand("eval", tasks, help="Measure a model on held-out data.")
    task = tasks.add_subcommands(dest="task", metavar="TASK")
    task.add_subcommand("mini", _command(eval_mini), help=(eval_mini.__doc__ or "").splitlines()[0])
    train = ArgumentParser(description="Train the safety modules.")
    commands.add_subcommand("train", train, help="Train the safety modules: stage 1 (head), stage 2 (joint).")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors become one line on stderr.

    Returns:
        0 done, 1 failed or undecided, 2 wrong usage, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        return _run(build_parser().parse_args(_underscored(arguments)))
    except (SafeVLMError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _run(parsed: Namespace) -> int:
    if parsed.command == "eval":
        function, values = eval_mini, parsed.eval.mini
    else:
        function, values = COMMANDS[parsed.command][0], parsed[parsed.command]
    if parsed.command != "info":
        from safevlm.backbone import quiet

        quiet()
    if "device" in values:
        _check_device(values.device)
    options = {name: value for name, value in values.as_dict().items() if name != "config"}
    return function(**options)


if __name__ == "__main__":
    sys.exit(main())
