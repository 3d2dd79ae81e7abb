"""Figures as inline SVG: the same bytes for the same numbers, readable on light and dark pages.

Matplotlib draws with stand-in colours, which become CSS variables of the page (--ink, --offline, ...), so one drawing
serves both themes. Text stays text, in the page's font.
"""

import io
import itertools
import math
import re

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from stages.evidence.words import number

FAMILIES = ("best_of", "base", "local", "offline", "online")
SHADES = 4  # colours a family of arms has on the page (report.html.jinja)
TONES = ["ink", "muted", "grid", "surface", "base", "best_of", "local"]
TONES += [f"{family}-{shade}" for family in ("offline", "online") for shade in range(SHADES)]
STANDINS = {tone: f"#{0x0A0B00 + i:06x}" for i, tone in enumerate(TONES)}
MARKERS = "osD^"
VERIFIERS = {"best_of": "global RM", "local": "local RM"}  # by the arm that carries their numbers
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "all-roads",
    "text.color": STANDINS["ink"],
    "axes.edgecolor": STANDINS["muted"],
    "axes.labelcolor": STANDINS["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": STANDINS["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": STANDINS["muted"],
    "ytick.color": STANDINS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
drawing = style.context(["default", STYLE])  # "default": whatever matplotlibrc this machine has


def family(arm: str) -> str:
    """The family of an arm: the longest of the family names that its name begins with ("online" if none does)."""
    return next((f for f in sorted(FAMILIES, key=len, reverse=True) if arm.startswith(f)), "online")


def tones(arms: list[str]) -> dict[str, str]:
    """One colour name an arm: its family's; within offline and online the arm named like the family comes first."""
    named = {}
    for kind in FAMILIES:
        members = sorted((a for a in arms if family(a) == kind), key=lambda arm: arm != kind)
        for i, arm in enumerate(members):
            named[arm] = f"{kind}-{i % SHADES}" if kind in ("offline", "online") else kind
    return named


@drawing
def forest(
    arms: list[str],
    rows: dict[str, tuple],
    unit: str,
    decimals: int,
    limits: tuple[float, float] | None,
    margin: float | None = None,
) -> str:
    """One line an arm: its mean, interval, and the seeds as ticks.

    rows: arm -> (Estimate, values of the seeds). limits: of the axis, where several plots share it. margin: for
    differences, the smallest that matters; a band of smaller ones, and a line at 0.
    """
    named = tones(arms)
    shown = [arm for arm in arms if arm in rows]
    figure, axes = _axes(3.7, 0.34 * len(shown) + 0.55, left=1.3 if margin else 1.05, bottom=0.45, right=0.45, top=0.05)
    if margin:
        axes.axvspan(-margin, margin, color=STANDINS["grid"], linewidth=0)
        axes.axvline(0, color=STANDINS["muted"], linewidth=1.2)
    for y, arm in enumerate(shown):
        estimate, seeds = rows[arm]
        colour = STANDINS[named[arm]]
        if estimate.resolved:
            axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot(seeds, np.full(len(seeds), y + 0.27), "|", color=colour, markersize=5, markeredgewidth=1.1)
        axes.plot(estimate.mean, y, "o", color=colour, markersize=7, markeredgecolor=STANDINS["surface"])
        axes.annotate(
            number(estimate.mean, decimals, sign=bool(margin)),
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            color=STANDINS["ink"],
        )
    axes.set_yticks(range(len(shown)), shown)
    for label, arm in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color(STANDINS[named[arm]])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(limits)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(unit)
    return _svg(figure)


@drawing
def curves(arms: list[str], lines: dict[str, list], levels: dict[str, float], x: str, unit: str) -> str:
    """Lines against ``x``: bold the mean over seeds, thin each seed; dashed a level without an x of its own.

    lines: arm -> [(x values, y values) of each seed]. levels: arm -> y.
    """
    named = tones(arms)
    figure, axes = _axes(5.4, 3.2, left=0.5, bottom=0.5, right=1.2, top=0.25)
    ends = []
    for arm in [a for a in arms if a in lines]:
        colour = STANDINS[named[arm]]
        marker = MARKERS[int(named[arm][-1])] if named[arm][-1].isdigit() else "o"
        for xs, ys in lines[arm]:
            if len(lines[arm]) > 1:
                axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.4)
        if len({len(xs) for xs, _ in lines[arm]}) == 1:  # seeds that were measured at different points have no mean
            xs, ys = (np.mean([line[i] for line in lines[arm]], axis=0) for i in (0, 1))
        else:
            xs, ys = lines[arm][0]
        axes.plot(xs, ys, marker, color=colour, linestyle="-", linewidth=2, markersize=4)
        ends.append((xs[-1], ys[-1], arm, colour))
    for arm, y in levels.items():
        axes.axhline(y, color=STANDINS[named[arm]], linewidth=1.2, linestyle=(0, (4, 3)))
        ends.append((None, y, arm, STANDINS[named[arm]]))
    return _ended(figure, axes, ends, x, unit)


@drawing
def dial(
    lines: dict[str, tuple],
    x: str,
    unit: str,
    level: float | None = 0.0,
    colours: dict[str, str] | None = None,
    doubling: bool = False,
    size: tuple[float, float] = (5.4, 3.2),
) -> str:
    """Points with 95% intervals, joined: lines: name -> (x values, means, half widths).

    level: dashed, None for none. colours: name -> colour name, if not those of online arms in turn. doubling: x values
    double from point to point, and every one of them is a tick. size: inches.
    """
    figure, axes = _axes(*size, left=0.5, bottom=0.5, right=1.2, top=0.25)
    if level is not None:
        axes.axhline(level, color=STANDINS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    ends = []
    for shade, (name, (xs, means, widths)) in enumerate(lines.items()):
        colour = STANDINS[colours[name] if colours else f"online-{shade % SHADES}"]
        axes.errorbar(xs, means, widths, color=colour, linewidth=2, marker="o", markersize=4, elinewidth=1.2)
        last = int(np.argmax(xs))
        ends.append((list(xs)[last], list(means)[last], name, colour))
    if doubling:
        axes.set_xscale("log", base=2)
        ticks = sorted({tick for xs, *_ in lines.values() for tick in xs})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    return _ended(figure, axes, ends, x, unit)


@drawing
def fitted(points: list[tuple], line: tuple[np.ndarray, np.ndarray, np.ndarray], x: str, unit: str) -> str:
    """A line with its 95% interval through points with theirs, each named.

    points: (name, Estimate of x, Estimate of y, whether to draw it open). line: (x values, heights, half widths).
    """
    figure, axes = _axes(6.4, 4.2, left=0.5, bottom=0.5, right=0.15, top=0.25)
    colour = STANDINS["online-0"]
    xs, heights, half = line
    axes.fill_between(xs, heights - half, heights + half, color=colour, alpha=0.12, linewidth=0)
    axes.plot(xs, heights, color=colour, linewidth=2)
    axes.axhline(0, color=STANDINS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    for _, across, up, is_open in points:
        axes.errorbar(
            across.mean,
            up.mean,
            xerr=across.high - across.mean if across.resolved else 0.0,
            yerr=up.high - up.mean if up.resolved else 0.0,
            color=STANDINS["ink"],
            elinewidth=0.9,
            marker="o",
            markersize=6,
            markerfacecolor=STANDINS["surface" if is_open else "ink"],
        )
    axes.set_xlabel(x)
    axes.set_title(unit, loc="left", fontsize=9.5, color=STANDINS["muted"])
    axes.margins(x=0.04, y=0.06)
    _label_points(axes, [(across.mean, up.mean, name) for name, across, up, _ in points])
    return _svg(figure)


@drawing
def verifiers(losses: dict[str, list[float]], accuracies: dict[str, list[float]]) -> str:
    """Held-out log-loss and accuracy of the global and the local RM: a large dot the mean, small ones the seeds.

    losses, accuracies: key of VERIFIERS -> value of each seed.
    """
    figure = Figure(figsize=(5.4, 3.2))
    rows = [(losses, math.log(2), "log-loss (lower is better)"), (accuracies, 0.5, "accuracy (higher is better)")]
    for place, (numbers, chance, title) in enumerate(rows):
        axes = figure.add_axes((0.19, 0.61 - 0.5 * place, 0.66, 0.27))
        axes.axvline(chance, color=STANDINS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"chance {chance:.3g}",
            (chance, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=STANDINS["muted"],
            fontsize=8.5,
        )
        for y, (arm, values) in enumerate(numbers.items()):
            colour = STANDINS[arm]
            axes.plot([chance, np.mean(values)], [y, y], color=colour, linewidth=2.2, alpha=0.45)
            axes.plot(values, np.full(len(values), y + 0.3), "|", color=colour, markersize=5, markeredgewidth=1.1)
            axes.plot(np.mean(values), y, "o", color=colour, markersize=8, markeredgecolor=STANDINS["surface"])
            axes.annotate(f"{np.mean(values):.3f}", (1.03, y), xycoords=("axes fraction", "data"), va="center")
        axes.set_yticks(range(len(numbers)), [VERIFIERS[arm] for arm in numbers])
        for label, arm in zip(axes.get_yticklabels(), numbers, strict=True):
            label.set_color(STANDINS[arm])
        axes.set_ylim(len(numbers) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(title, labelpad=2)
        axes.tick_params(pad=2)
    return _svg(figure)


@drawing
def best_of(arms: list[str], by_seed: list[dict[int, float]], levels: dict[str, float], unit: str) -> str:
    """True reward of the completion that the RM likes best among n, against n; dashed the arms it is measured by."""
    named = tones(arms)
    figure, axes = _axes(5.4, 3.2, left=0.5, bottom=0.5, right=1.2, top=0.25)
    ns = sorted(by_seed[0])
    for curve in by_seed if len(by_seed) > 1 else []:
        axes.plot(ns, [curve[n] for n in ns], color=STANDINS["best_of"], linewidth=0.8, alpha=0.4)
    means = [float(np.mean([curve[n] for curve in by_seed])) for n in ns]
    axes.plot(ns, means, "o-", color=STANDINS["best_of"], linewidth=2, markersize=4)
    ends = [(ns[-1], means[-1], "best_of", STANDINS["best_of"])]
    for arm, y in levels.items():
        axes.axhline(y, color=STANDINS[named[arm]], linewidth=1.2, linestyle=(0, (4, 3)))
        ends.append((None, y, arm, STANDINS[named[arm]]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.minorticks_off()
    return _ended(figure, axes, ends, "n, completions to choose from", unit)


def _axes(width: float, height: float, left: float, bottom: float, right: float, top: float) -> tuple:
    """A figure of inches with one pair of axes, its margins in inches too, so that panels align on the page."""
    figure = Figure(figsize=(width, height))
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def _ended(figure: Figure, axes, ends: list[tuple], x: str, unit: str) -> str:
    """The figure of lines that are named at their ends: (x or None, y, name, colour) of each."""
    axes.set_xlabel(x)
    axes.set_title(unit, loc="left", fontsize=9.5, color=STANDINS["muted"])
    axes.margins(x=0.02, y=0.08)
    _label_ends(axes, ends)
    return _svg(figure)


def _label_points(axes, points: list[tuple[float, float, str]]) -> None:
    """Write each point's name near it, at the first of places farther and farther out where it covers nothing."""
    axes.autoscale_view()  # before it, the data have no place
    point = axes.figure.dpi / 72  # pixels
    places = [(at, *axes.transData.transform(at)) for *at, _ in points]
    taken = [(x - 3 * point, y - 3 * point, x + 3 * point, y + 3 * point) for _, x, y in places]
    for (at, x, y), (*_, name) in zip(places, points):
        width, height = 5.5 * len(name) + 4, 11  # of a text of 8.5 points, roughly
        for far, angle in itertools.product((8, 18, 32, 48, 64, 80), np.deg2rad((45, -45, 135, -135, 90, -90, 0, 180))):
            right, up = far * math.cos(angle), far * math.sin(angle)
            left, bottom = right - width * (right < -1) - width / 2 * (abs(right) <= 1), up - height / 2
            corners = (left, bottom, left + width, bottom + height)
            box = tuple(start + point * corner for start, corner in zip((x, y, x, y), corners))
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            name,
            at,
            xytext=(left, bottom),
            textcoords="offset points",
            fontsize=8.5,
            color=STANDINS["ink"],
            zorder=5,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": STANDINS["surface"], "edgecolor": "none", "alpha": 0.75},
            arrowprops={"arrowstyle": "-", "color": STANDINS["muted"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        )


def _overlap(first: tuple, second: tuple) -> bool:
    """Whether two boxes (left, bottom, right, top) share any area."""
    return all(first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1))


def _label_ends(axes, ends: list[tuple]) -> None:
    """Write each line's name in the right margin at its end's height, moved apart where names would overlap."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    gap = 13 / (axes.bbox.height / axes.figure.dpi * 72) * (high - low)
    height = None
    for x, y, arm, colour in sorted(ends, key=lambda end: end[1]):
        height = y if height is None else max(y, height + gap)
        if x is not None:  # a dotted way from the line's end to its name
            axes.plot([x, right], [y, y], color=colour, linewidth=1, alpha=0.6, linestyle=(0, (1, 2)))
        axes.plot(
            [1.0, 1.04], [y, height], color=colour, linewidth=0.8, clip_on=False, transform=axes.get_yaxis_transform()
        )
        axes.annotate(arm, (1.05, height), xycoords=("axes fraction", "data"), va="center", color=colour)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without fixed size, ids that only clutter, or a fixed palette."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r' xmlns(?::xlink)?="[^"]*"| version="1.1"', "", text)
    for tone, standin in STANDINS.items():
        text = text.replace(standin, f"var(--{tone})")
    return text
