"""Prints what the command line shows: tables, progress bars, a dialogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from safevlm.config import OperatingPoint
from safevlm.model_card import UNTRAINED
from safevlm.printable import printable
from safevlm.results.schema import ERROR, ROWS, SUMMARY, UNDECIDED
from safevlm.types import Action, RiskAssessment, Verdict

if TYPE_CHECKING:
    from PIL import Image

    from safevlm.bench import Result, Setup
    from safevlm.demo import DemoResult
    from safevlm.evals import SteeringEvaluation, Table
    from safevlm.evals.concepts import Measured
    from safevlm.evals.data import DataEvaluation
    from safevlm.evals.thresholds import Choice
    from safevlm.guard import SafeVLM
    from safevlm.scan import ScanSummary
    from safevlm.steering import Direction, Fitted

COLOURS = {Verdict.SAFE: "green", Verdict.UNSAFE: "red", Verdict.UNDECIDED: "yellow"}
ACTION_COLOURS = {Action.ALLOW: "green", Action.HINT: "yellow", Action.REFUSE: "red"}
BAR = 10
SHOWN_FAILURES = 5
UNTRAINED_MODEL = f"this model: {UNTRAINED}"

console = Console()


def shown(text: str, *, lines: bool = False) -> Text:
    """Text from elsewhere (names, reasons, answers) without markup and without what terminals obey; see `printable`."""
    return Text(printable(text, lines=lines))


def score_text(assessment: RiskAssessment) -> Text:
    """A bar and the score with two decimals, in the verdict's colour."""
    if assessment.score is None:
        return Text("undecided", style="bold yellow")
    filled = round(assessment.score * BAR)
    full, empty = "#." if console.options.ascii_only else "█░"
    bar = full * filled + empty * (BAR - filled)
    return Text(f"{bar} {assessment.score:.2f}", style=COLOURS[assessment.verdict])


def show_assessments(names: Sequence[str], found: Sequence[RiskAssessment], *, rule: str) -> None:
    """One row per image; below, what decided (`rule`), reasons of what is undecided or was not read, and what was read."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for heading in ("image", "score", "verdict", "level", "category"):
        table.add_column(heading, overflow="fold")
    for name, assessment in zip(names, found, strict=True):
        verdict = Text(assessment.verdict.value, style=f"bold {COLOURS[assessment.verdict]}")
        table.add_row(
            shown(name),
            score_text(assessment),
            verdict,
            shown(assessment.level or "-"),
            shown(assessment.category or "-"),
        )
    console.print(table)
    console.print(shown(f"unsafe: {rule}"), style="dim")
    if any(assessment.untrained for assessment in found):
        console.print(UNTRAINED_MODEL, style="bold red")
    for name, assessment in zip(names, found, strict=True):
        if assessment.reason:
            reason = assessment.reason  # of a file it begins with the name
            told = reason if reason.startswith(f"{name}: ") else f"{name}: {reason}"
            console.print(shown(told), style="yellow")
        if assessment.read_text:
            decided = ", which decided" if assessment.decided_by == "read_text" else ""
            console.print(shown(f"{name}: read in the image{decided}: {assessment.read_text}"))


def show_info(found: Mapping[str, Any]) -> None:
    """Versions, device and the embedded checkpoints."""
    table = RichTable(box=None, show_header=False, pad_edge=False)
    for name, value in found["versions"].items():
        table.add_row(name, value or Text("not installed", style="dim"))
    table.add_row("device", found["device"])
    console.print(table)
    for name, hashes in found["checkpoints"].items():
        console.print(f"\n[bold]{escape(name)}[/bold]")
        if name in found["operating_points"]:
            point = found["operating_points"][name]
            said = "none, the default threshold" if point is None else OperatingPoint(**point).text
            console.print(shown(f"  operating point: {said}"), highlight=False)
        for path, digest in hashes.items():
            console.print(Text(f"  {digest[:16]}  {path}"), highlight=False)


def converse(guard: SafeVLM, image: Image.Image, prompt: str | None, *, max_new_tokens: int) -> None:
    """One answer, or a dialogue until an empty line or the end of input."""
    history: list[dict[str, Any]] = []
    once = prompt is not None
    while True:
        text = prompt if prompt is not None else _ask()
        if not text:
            return
        image_part = [] if history else [{"type": "image"}]
        history.append({"role": "user", "content": [*image_part, {"type": "text", "text": text}]})
        reply = guard.stream(image, history, max_new_tokens=max_new_tokens, do_sample=False)
        for piece in reply:
            console.print(shown(piece, lines=True), end="")
        console.print()
        if once:
            return
        history.append({"role": "assistant", "content": [{"type": "text", "text": reply.text}]})


def _ask() -> str:
    try:
        return console.input("[bold]you:[/bold] ").strip()
    except EOFError:
        return ""


@contextmanager
def eval_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar over the cells of an evaluation; nothing if `quiet`, when the output is for machines."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task("evaluating", total=None)
        yield lambda name, done, total: progress.update(task, description=name, completed=done, total=total)


def show_summary(summary: ScanSummary, out: Path, report: Path | None = None) -> None:
    """Counts of a scan, what went wrong, and where its files are."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for heading in ("level", "images", "", "category", "images"):
        table.add_column(heading, justify="right" if heading == "images" else "left")
    levels, categories = list(summary.levels.items()), list(summary.categories.items())
    for row in range(max(len(levels), len(categories))):
        level, category = levels[row : row + 1], categories[row : row + 1]
        table.add_row(
            *((level and (shown(level[0][0]), str(level[0][1]))) or ("", "")),
            "   ",
            *((category and (shown(category[0][0]), str(category[0][1]))) or ("", "")),
        )
    console.print(table)
    unsafe = summary.verdicts.get("unsafe", 0)
    undecided, errors = summary.statuses.get(UNDECIDED, 0), summary.statuses.get(ERROR, 0)
    seen = summary.duplicates and f", {summary.duplicates} with the bytes of another"
    skipped = summary.skipped and f", {summary.skipped} left out by the sample"
    console.print(
        f"{summary.n} images, [red]{unsafe} unsafe[/], [yellow]{undecided} undecided[/], {errors} errors"
        f"{seen or ''}{skipped or ''}, {summary.images_per_second:.0f} images/s",
        highlight=False,
    )
    if summary.untrained:
        console.print(UNTRAINED_MODEL, style="bold red")
    if summary.passed_over:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.passed_over.items()))
        console.print(shown(f"passed over, without a row: {told}"), style="yellow")
    for name, reason in list(summary.failures.items())[:SHOWN_FAILURES]:
        console.print(shown(f"{name} broke off: {reason}"), style="yellow")
    if len(summary.failures) > SHOWN_FAILURES:
        console.print(f"{summary.shards['failed']} shards broke off, see the summary", style="yellow")
    if summary.stopped:
        console.print(shown(f"stopped: {summary.stopped}"), style="yellow")
    files = {"rows": out / ROWS, "summary": out / SUMMARY, "report": report}
    lines = [f"{name}: {path}" for name, path in files.items() if path is not None]
    console.print(shown("   ".join(lines)), style="dim", soft_wrap=True)


def show_finished(summary: ScanSummary, report: Path | None) -> None:
    """One line about a scan of which nothing was left to do."""
    unsafe = summary.verdicts.get("unsafe", 0)
    undecided, errors = summary.statuses.get(UNDECIDED, 0), summary.statuses.get(ERROR, 0)
    where = "" if report is None else f"   report: {report}"
    told = f"finished before: {summary.n} images, {unsafe} unsafe, {undecided} undecided, {errors} errors"
    console.print(shown(f"{told}; nothing was left to scan, --fresh scans again{where}"), soft_wrap=True)


def show_demo(result: DemoResult) -> None:
    """The scan's table, the answers side by side, and where the page is."""
    show_summary(result.summary, result.folder / "scan")
    for name, item in result.comparisons.items():
        assessment = item.assessment
        colour = ACTION_COLOURS[item.action]
        head = Text.assemble(
            ("score ", "dim"), score_text(assessment), ("  level ", "dim"), assessment.level or "-",
            ("  category ", "dim"), assessment.category or "-", ("  action ", "dim"), (item.action.value, f"bold {colour}"),
        )  # fmt: skip
        answers = RichTable(box=None, expand=True, pad_edge=False)
        answers.add_column("without the guard", ratio=1, header_style="dim")
        answers.add_column("with the guard", ratio=1, header_style="dim")
        answers.add_row(shown(item.unguarded, lines=True), shown(item.guarded, lines=True))
        group = RichTable.grid(padding=(0, 0))
        group.add_row(Text(f"“{item.prompt}”", style="italic"))
        group.add_row(head)
        group.add_row(answers)
        console.print(Panel(group, title=escape(name), title_align="left", border_style=colour))
    console.print(Text.assemble("open ", (result.page.resolve().as_uri(), "bold")), soft_wrap=True)


def show_table(table: Table) -> None:
    """An evaluation: measures down, models across, values with the 95 % interval; lines without data are left out."""
    from safevlm.evals import cell_text

    rows = list(table)
    grid = RichTable(header_style="bold")
    grid.add_column("")
    for row in rows:
        grid.add_column(row, justify="right")
    for column in next(iter(table.values())):
        cells = [table[row][column] for row in rows]
        if any(cell is not None for cell in cells):
            texts = ("-" if cell is None else f"{cell_text(column, cell)}\nn {cell.n}" for cell in cells)
            grid.add_row(column.replace("_", " "), *(Text(text.replace(" [", "\n[")) for text in texts))
    console.print(grid)


def show_data_evaluation(found: DataEvaluation, facts: Mapping[str, str], report: str | None) -> None:
    """An evaluation on labelled images: a row for all risky ones and for each category, and what holds for all."""
    from safevlm.evals.page import HEADINGS, KEY, summary_lines, table_rows

    for name, told in facts.items():
        console.print(Text.assemble((f"{name}: ", "dim"), shown(told)))
    grid = RichTable(box=None, padding=(0, 1, 1, 0), header_style="bold")
    grid.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        grid.add_column(heading, justify="right")
    for row in table_rows(found):
        grid.add_row(*(shown(f"{value}\n{interval}".strip(), lines=True) for value, interval in row))
    console.print(grid)
    for name, told in summary_lines(found).items():
        console.print(Text.assemble((f"{name}: ", "dim"), shown(told)))
    console.print(Text(KEY, style="dim"))
    if report is not None:
        console.print(shown(f"report: {report}"), style="dim", soft_wrap=True)


def show_thresholds(found: Choice, out: Path) -> None:
    """The thresholds, what the policy does with them on the images that they were chosen on, and where it is."""
    console.print(shown(found.text, lines=True))
    for name, n in found.left.items():
        told = f"{name}: {n} images, fewer than {found.target.fewest}; it has the threshold of all others"
        console.print(shown(told), style="yellow")
    console.print(shown(f"policy: {out}"), style="dim", soft_wrap=True)


def show_steering(found: SteeringEvaluation) -> None:
    """An evaluation of steering: a method a line, in three parts, and the settings that were chosen."""
    from safevlm.evals import STEERING_PARTS, steering_cell

    for title, columns in STEERING_PARTS.items():
        grid = RichTable(title=title, header_style="bold", title_justify="left")
        grid.add_column("")
        for words in columns.values():
            grid.add_column(words, justify="right")
        for row, cells in found.table.items():
            texts = (steering_cell(column, cells[column]).replace(" [", "\n[") for column in columns)
            grid.add_row(row.replace("_", " "), *map(Text, texts))
        console.print(grid)
    for row, chosen in found.chosen.items():
        console.print(Text(f"{row.replace('_', ' ')}: {chosen.settings}"))


def show_concepts(found: Sequence[Measured], folder: Path, *, concepts: bool = False) -> None:
    """A measurement of concepts: a table for each judge, measures down, what is not a concept across unless asked for."""
    from safevlm.evals.concepts import WORDS, columns_of, label, row_cell

    for measured in found:
        rows = [row for row in measured.rows if concepts or row.level != "concept"]
        title = shown(f"{measured.target} on {measured.concepts}; judge: {measured.judge}")
        grid = RichTable(title=title, header_style="bold", title_justify="left")
        grid.add_column("")
        columns = columns_of(measured)
        for column in columns:
            grid.add_column(WORDS[column], justify="right")
        for row in rows:
            texts = (row_cell(row, column).replace("; ", "\n") for column in columns)
            grid.add_row(shown(label(row)), *map(Text, texts))
        console.print(grid)
    console.print(
        "a cell: right, N/A dropped [95 % interval over concepts]; right, N/A counted wrong; share of N/A; answers. Columns from "
        "1 - Self-BLEU on rest on no judge",
        style="dim",
    )
    console.print(shown(f"answers, JSON and plot: {folder}"), style="dim", soft_wrap=True)


def show_direction(direction: Direction, *, with_image: Mapping[int, float] | None = None) -> None:
    """A steering direction, a row for each layer; `with_image`: layer -> separation behind a blank image."""
    told = {
        "model type": direction.model_type,
        "axis": direction.axis.replace("_", " "),
        "rank": str(direction.rank),
        "layers": ", ".join(map(str, direction.layers)),
        "pairs": direction.pairs_sha256[:16],
    }
    for name, value in told.items():
        console.print(Text.assemble((f"{name}: ", "dim"), shown(value)))
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "AUROC", *([] if with_image is None else ["with image"]), "singular values"):
        table.add_column(heading, justify="right")
    for layer in sorted(direction.rows):
        cells = [direction.separation.get(layer)] + ([] if with_image is None else [with_image[layer]])
        table.add_row(
            str(layer),
            *("-" if cell is None else f"{cell:.3f}" for cell in cells),
            " ".join(f"{value:.1f}" for value in direction.singular_values[layer].tolist()),
            style="bold green" if layer in direction.layers else None,
        )
    console.print(table)


def show_fit(fitted: Fitted, folder: Path, plot: Path) -> None:
    """What a direction rests on, and where it is."""
    console.print(
        f"fitted on {fitted.pairs} pairs, AUROC on {fitted.held_out} others as text alone and behind a blank image",
        highlight=False,
    )
    console.print(shown(f"direction: {folder}   plot: {plot}"), style="dim", soft_wrap=True)


def show_step(name: str) -> None:
    """What is being measured; a moving bar would take time from it."""
    console.print(Text(f"measuring {name} ...", style="dim"))


def show_bench(results: Sequence[Result], setup: Setup) -> None:
    """The benchmark: a line for each variant, the notes, and what it was measured on."""
    from safevlm.bench import HEADINGS, cells, describe, notes

    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right", overflow="fold")
    for result in results:
        colour = {True: "green", False: "red", None: None}[result.met]
        table.add_row(*(shown(cell) for cell in cells(result)), style=colour)
    console.print(table)
    for note, whose in notes(results).items():
        console.print(shown(f"{'; '.join(whose)}: {note}"), style="dim")
    for name, value in describe(setup).items():
        console.print(Text.assemble((f"{name}: ", "dim"), shown(value)))
