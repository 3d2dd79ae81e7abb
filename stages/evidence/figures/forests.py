"""Figures of rows: a mean, its interval and the seeds in each, on one axis."""

from collections.abc import Sequence

import numpy as np

from stages.evidence.figures.canvas import STANDINS, axes_of, drawing, room, svg
from stages.evidence.statistics import Estimate
from stages.evidence.words import number


@drawing
def forest(
    rows: dict[str, tuple],
    named: dict[str, str],
    unit: str,
    decimals: int,
    limits: tuple[float, float] | None,
    margin: float = 0.0,
) -> str:
    """One line per arm: its mean, interval, and the seeds as ticks.

    rows: arm -> (Estimate, values of the seeds). named: arm -> colour name. limits: of the axis, where several plots
    share it. margin: for differences, the smallest that matters; a band of smaller ones, and a line at 0.
    """
    left = max(1.05, room(rows))
    figure, axes = axes_of(2.65 + left, 0.34 * len(rows) + 0.55, left=left, bottom=0.45, right=0.45, top=0.05)
    if margin:
        _zero(axes, margin)
    for y, (arm, (found, seeds)) in enumerate(rows.items()):
        _interval(axes, y, found, seeds, STANDINS[named[arm]], decimals, signed=bool(margin))
    axes.set_yticks(range(len(rows)), rows)
    for label, arm in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(STANDINS[named[arm]])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _across(axes, limits, unit)
    return svg(figure)


@drawing
def leads(
    groups: dict[str, dict[str, tuple]],
    unit: str,
    decimals: int,
    limits: tuple[float, float] | None = None,
    margin: float = 0.0,
) -> str:
    """Differences around 0 with intervals, and the seeds as ticks, below the title of each group.

    groups: title -> name, or "" -> (Estimate, values of the seeds, colour name). limits: of the axis, where several
    plots share it. margin: half of the band of differences that would not matter, 0 for none.
    """
    names = [name for rows in groups.values() for name in rows]
    lines = len(names) + 0.9 * len(groups)
    left = max(1.05, room(names)) if any(names) else 0.15
    figure, axes = axes_of(2.65 + left, 0.34 * lines + 0.55, left=left, bottom=0.45, right=0.45, top=0.05)
    _zero(axes, margin)
    y, places = -0.1, []
    for title, rows in groups.items():
        axes.annotate(
            title,
            (0, y + 0.4),
            xycoords=("axes fraction", "data"),
            xytext=(7 - 72 * left, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=STANDINS["ink"],
            bbox={"boxstyle": "square,pad=0.15", "facecolor": STANDINS["surface"], "edgecolor": "none"},
        )
        y += 0.9
        for found, seeds, colour in rows.values():
            _interval(axes, y + 0.4, found, seeds, STANDINS[colour], decimals, signed=True)
            places.append((y + 0.4, STANDINS[colour]))
            y += 1
    axes.set_yticks([place for place, _ in places], names)
    for label, (_, colour) in zip(axes.get_yticklabels(), places, strict=True):
        label.set_color(colour)
    axes.set_ylim(lines - 0.1, -0.3)
    _across(axes, limits, unit)
    return svg(figure)


def _zero(axes, margin: float) -> None:
    """A line at 0, and the band of differences that would not matter."""
    if margin:
        axes.axvspan(-margin, margin, color=STANDINS["grid"], linewidth=0)
    axes.axvline(0, color=STANDINS["muted"], linewidth=1.2)


def _interval(axes, y: float, found: Estimate, seeds: Sequence, colour: str, decimals: int, signed: bool) -> None:
    """A mean, its interval, the seeds as ticks, and the mean as text at the right."""
    if found.resolved:
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot(seeds, np.full(len(seeds), y + 0.27), "|", color=colour, markersize=5, markeredgewidth=1.1)
    axes.plot(found.mean, y, "o", color=colour, markersize=7, markeredgecolor=STANDINS["surface"])
    axes.annotate(
        number(found.mean, decimals, sign=signed),
        (1.02, y),
        xycoords=("axes fraction", "data"),
        va="center",
        color=STANDINS["ink"],
    )


def _across(axes, limits: tuple[float, float] | None, unit: str) -> None:
    """The horizontal axis of a plot whose rows have names."""
    axes.set_xlim(limits)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(unit)
