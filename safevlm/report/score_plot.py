"""Plots of scores against labels, as PNGs: the reliability diagram, and how many images have which score."""

from __future__ import annotations

from collections.abc import Sequence

from safevlm.report.canvas import GRID, INK, Canvas

SIZE = (560, 520)
"""Pixels of either plot."""
LEFT, TOP, RIGHT, BOTTOM = 76, 70, 24, 60
"""Margins in pixels."""
SAFE, RISKY = "#0072b2", "#d55e00"
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""

Bin = tuple[float, float, float, float]


def reliability_plot(bins: Sequence[Bin], *, title: str = "") -> bytes:
    """Draw the share of risky images over their mean score, beside the diagonal on which scores are probabilities.

    Args:
        bins: (mean score, share, low, high) of the images of a bin, all in [0, 1]; low and high are the share's interval.
        title: above the plot.

    Returns:
        The bytes of a PNG.

    Raises:
        ValueError: no bin.
    """
    if not bins:
        raise ValueError("no bins; a reliability diagram needs one with images")
    canvas = _unit_square(title, "mean score", "share of risky images")
    canvas.line([(_x(0), _y(0)), (_x(1), _y(1))], GRID, width=2)
    for score, share, low, high in bins:
        canvas.interval(_x(score), _y(low), _y(high))
        canvas.dot(_x(score), _y(share), SAFE)
    return canvas.png()


def histogram_plot(
    histogram: Sequence[tuple[int, int]], *, title: str = "", threshold: float | None = None
) -> bytes:
    """Draw how many safe and risky images have which score, each as a share of its kind.

    Args:
        histogram: (safe, risky) images of each bin; the bins have equal widths in [0, 1].
        title: above the plot.
        threshold: a score in [0, 1] that gets a line.

    Returns:
        The bytes of a PNG.

    Raises:
        ValueError: no image.
    """
    totals = [sum(counts[kind] for counts in histogram) for kind in (0, 1)]
    if not any(totals):
        raise ValueError("no images; a histogram needs at least one")
    canvas = _unit_square(title, "score", "share of the images")
    step = 1 / len(histogram)
    for number, counts in enumerate(histogram):
        for kind, colour in enumerate((SAFE, RISKY)):
            share = counts[kind] / max(1, totals[kind])
            left = _x(step * (number + 0.06 + 0.44 * kind))
            if share:
                canvas.box(left, _y(share), left + _x(step * 0.42) - _x(0), _y(0), colour)
    names = [f"{count} {kind}" for count, kind in zip(totals, ("safe", "risky"), strict=True)]
    if threshold is not None:
        canvas.line([(_x(threshold), _y(0)), (_x(threshold), _y(1))], INK, width=2)
        names.append(f"threshold {threshold:.3g}")
    canvas.legend(names, (SAFE, RISKY, INK), left=LEFT)
    return canvas.png()


def _unit_square(title: str, x: str, y: str) -> Canvas:
    """Axes from 0 to 1."""
    canvas = Canvas(SIZE)
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        canvas.line([(_x(0), _y(tick)), (_x(1), _y(tick))], GRID)
        canvas.text(LEFT - 8, _y(tick), f"{tick:g}", anchor="rm")
        canvas.text(_x(tick), SIZE[1] - BOTTOM + 8, f"{tick:g}", anchor="mt")
    canvas.text(_x(0.5), SIZE[1] - 12, x, anchor="ms")
    canvas.text(12, 14, y, anchor="lt")
    canvas.text(SIZE[0] - RIGHT, 14, title, anchor="rt")
    return canvas


def _x(value: float) -> float:
    return LEFT + value * (SIZE[0] - LEFT - RIGHT)


def _y(value: float) -> float:
    return SIZE[1] - BOTTOM - value * (SIZE[1] - TOP - BOTTOM)
