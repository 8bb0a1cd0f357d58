"""argv -> one call -> exit code. The typed signatures of `safevlm.commands` are the flags; `--config file.yaml` sets any of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NoReturn

from docstring_parser import parse as docstring
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from safevlm.commands import assess, bench, chat, demo, eval_mini, eval_scan, export, info, merge, scan, train
from safevlm.commands.options import check_device
from safevlm.errors import SafeVLMError


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
        if nargs == "?":
            options["default"] = signature(function).parameters[name].default
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
    "scan": (scan, ("source", "", "folder, file or URI")),
    "merge": (merge, ("scans", "+", "folders of scans")),
    "export": (export, ("folder", "", "folder of a scan")),
    "demo": (demo, None),
    "bench": (
        bench,
        (
            "rows",
            "?",
            "score, pipeline, generate, head, guard, scan; several with commas between; all without it",
        ),
    ),
}


TASKS: dict[str, tuple[Callable[..., int], tuple[str, str, str] | None]] = {
    "mini": (eval_mini, None),
    "scan": (eval_scan, ("scans", "+", "folders of finished scans")),
}


def build_parser() -> ArgumentParser:
    """The whole command line but `train`, which LightningCLI parses."""
    parser = ArgumentParser(prog="safevlm", description="Safety modules for open vision-language models.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, (function, positional) in COMMANDS.items():
        commands.add_subcommand(
            name, _command(function, positional=positional), help=(function.__doc__ or "").splitlines()[0]
        )
    tasks = ArgumentParser(description="Measure the embedded model, or what scans found.")
    commands.add_subcommand(
        "eval", tasks, help="Measure the embedded model, or what scans found, on labelled data."
    )
    task = tasks.add_subcommands(dest="task", metavar="TASK")
    for name, (function, positional) in TASKS.items():
        task.add_subcommand(
            name, _command(function, positional=positional), help=(function.__doc__ or "").splitlines()[0]
        )
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
            return train(arguments[1:])
        return _run(build_parser().parse_args(_underscored(arguments)))
    except (SafeVLMError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _run(parsed: Namespace) -> int:
    if parsed.command == "eval":
        function, values = TASKS[parsed.eval.task][0], parsed.eval[parsed.eval.task]
    else:
        function, values = COMMANDS[parsed.command][0], parsed[parsed.command]
    if parsed.command not in ("info", "scan", "merge", "export"):  # a finished scan needs no model
        from safevlm.backbone import quiet

        quiet()
    if "device" in values:
        check_device(values.device)
    options = {name: value for name, value in values.as_dict().items() if name != "config"}
    return function(**options)


def run() -> NoReturn:
    """The process: one command, then its exit code."""
    code = main()
    if (
        "ray" in sys.modules
    ):  # its threads can crash the interpreter while that ends, long after the work is done
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
