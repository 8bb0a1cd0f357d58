"""argv -> one call -> exit code. The typed signatures of `safevlm.commands` are the flags; `--config file.yaml` sets any of them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NoReturn

from docstring_parser import parse as docstring
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from safevlm import streams
from safevlm.commands import assess, bench, chat, demo, eval_mini, eval_scan, export, info, merge, scan, train
from safevlm.commands.options import check_device
from safevlm.errors import SafeVLMError
from safevlm.printable import indented

logger = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

_FLAG = re.compile(r"--[A-Za-z][\w-]*")
RENAMED = {"--sample": "--sample_fraction", "--max_error_share": "--max_error_rate"}
"""Earlier names of flags, which are still taken."""


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
    """`--batch-size=8` as `--batch_size=8`: both spellings of a flag are taken, and its earlier name; values and what follows `--` stay."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    underscored = []
    for argument in arguments[:end]:
        name, sep, value = argument.partition("=")
        if _FLAG.fullmatch(name):
            name = f"--{name[2:].replace('-', '_')}"
            name = RENAMED.get(name, name)
        underscored.append(name + sep + value)
    return [*underscored, *arguments[end:]]


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
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        if arguments[:1] == ["train"]:
            return train(arguments[1:])
        return _run(build_parser().parse_args(_underscored(arguments)))
    except (SafeVLMError, ValueError, OSError) as error:
        print(f"error: {indented(str(error))}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:  # of torch: no memory left, a device that failed
        logger.debug("the command failed", exc_info=True)
        print(f"error: {type(error).__name__}: {indented(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


class _Lines(logging.Formatter):
    """Messages hold names from elsewhere: no line of theirs may look like a message of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return indented(super().format(record))


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
    streams.prepare()
    logging.captureWarnings(True)
    code = streams.finish(main())
    # Ray's threads can crash the interpreter while that ends, long after the work is done, and so can one
    # that reads a file as long as nothing but Ctrl-C ends it
    if "ray" in sys.modules or code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
