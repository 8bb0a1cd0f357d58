"""The command line: parses the arguments, calls one function of `safevlm.commands`, returns its exit code.

Flags and their help come from the functions' signatures and docstrings; `--config file.yaml` sets any flag.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from inspect import Parameter, signature
from typing import Any, NoReturn, get_origin, get_type_hints

from docstring_parser import parse as docstring
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from safevlm import streams
from safevlm.commands import COMMANDS, GROUPS, train
from safevlm.commands.options import chosen_device
from safevlm.errors import MissingExtraError, SafeVLMError
from safevlm.printable import indented

logger = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

_FLAG = re.compile(r"--[A-Za-z][\w-]*")
RENAMED = {"--sample": "--sample_fraction", "--max_error_share": "--max_error_rate"}
"""Earlier names of flags, which are still taken."""


def _command(function: Callable[..., int]) -> ArgumentParser:
    """A parser made of a function: parameters before its `*` are positional, the others flags; switches take no value."""
    described = docstring(function.__doc__ or "")
    texts = {entry.arg_name: entry.description for entry in described.params}
    parser = ArgumentParser(description=described.short_description)
    parser.add_argument("--config", action="config", help="YAML file with any of these flags")
    types, added = get_type_hints(function), set()
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(name, type=str, help=texts[name], **_occurrence(parameter, types[name]))
        elif isinstance(parameter.default, bool):
            action = ActionYesNo if parameter.default else "store_true"
            parser.add_argument(f"--{name}", action=action, default=parameter.default, help=texts[name])
        else:
            continue
        added.add(name)
    parser.add_function_arguments(function, skip=added, as_positional=False, as_group=False)
    return parser


def _occurrence(parameter: Parameter, annotation: Any) -> dict[str, Any]:
    """How often a positional is given: a list once or more, one with a default at most once, others once."""
    if get_origin(annotation) is list:
        return {"nargs": "+"}
    if parameter.default is not parameter.empty:
        return {"nargs": "?", "default": parameter.default}
    return {}


def _underscored(arguments: Sequence[str]) -> list[str]:
    """Replace hyphens in the names of flags by underscores, and earlier names by today's; values and everything after `--` stay."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    underscored = []
    for argument in arguments[:end]:
        name, sep, value = argument.partition("=")
        if _FLAG.fullmatch(name):
            name = f"--{name[2:].replace('-', '_')}"
            name = RENAMED.get(name, name)
        underscored.append(name + sep + value)
    return [*underscored, *arguments[end:]]


def build_parser() -> ArgumentParser:
    """The parser of the whole command line; of `train` it has the help alone, as LightningCLI parses its flags."""
    parser = ArgumentParser(prog="safevlm", description="Safety modules for open vision-language models.")
    parser.add_argument("--version", action="version", version=f"safevlm {metadata.version('safevlm')}")
    subcommands = {"": parser.add_subcommands(dest="command", metavar="COMMAND")}
    for words, function in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        if group not in subcommands:
            tasks = ArgumentParser(description=GROUPS[group])
            subcommands[""].add_subcommand(group, tasks, help=GROUPS[group])
            subcommands[group] = tasks.add_subcommands(dest="task", metavar="TASK")
        subcommands[group].add_subcommand(name, _command(function), help=_summary(function))
    subcommands[""].add_subcommand("train", ArgumentParser(description=_summary(train)), help=_summary(train))
    return parser


def _summary(function: Callable[..., int]) -> str:
    return docstring(function.__doc__ or "").short_description or ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. An error is printed to stderr as one message without a traceback.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code: 0 on success, 1 on an error or where an image could not be scored, 2 for `train`
        without a stage, 130 after an interrupt.

    Raises:
        SystemExit: with code 2 for wrong usage, with code 0 after `--help` and `--version`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        # transformers reads both when it is imported, which commands do that need a model
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        if arguments[:1] == ["train"]:
            return train(arguments[1:])
        return _run(build_parser().parse_args(_underscored(arguments)))
    except (SafeVLMError, ValueError, OSError) as error:
        print(f"error: {indented(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:  # no package of an extra is missing: the installation is broken
            raise
        print(f"error: {MissingExtraError(str(error.name), extra)}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:  # from torch: out of memory, or a failing device
        logger.debug("the command failed", exc_info=True)
        print(f"error: {type(error).__name__}: {indented(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _extra_of(module: str) -> str | None:
    """The first of this package's extras that installs a module; None where none does."""
    name = module.partition(".")[0].replace("_", "-").lower()
    for line in metadata.requires("safevlm") or ():
        package, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        if extra and re.split(r"[^\w.-]", package.strip())[0].replace("_", "-").lower() == name:
            return extra[1]
    return None


class _Lines(logging.Formatter):
    """Indents the later lines of a message, so that text from data cannot pass for a message of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return indented(super().format(record))


def _run(parsed: Namespace) -> int:
    words, values = parsed.command, parsed[parsed.command]
    if words in GROUPS:
        words, values = f"{words} {values.task}", values[values.task]
    options = {name: value for name, value in values.as_dict().items() if name != "config"}
    if "device" in options:
        options["device"] = chosen_device(options["device"])
    return COMMANDS[words](**options)


def run() -> NoReturn:
    """Entry point of the `safevlm` program: run one command and exit with its code."""
    streams.prepare()
    logging.captureWarnings(True)
    code = streams.finish(main())
    # threads of Ray, and threads that still read a file after an interrupt, can crash or block the
    # interpreter's shutdown
    if "ray" in sys.modules or code == INTERRUPTED:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
