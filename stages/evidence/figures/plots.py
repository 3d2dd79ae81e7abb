"""Figures as inline SVG: the same bytes for the same numbers, readable on light and dark pages."""

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from stages.evidence.figures.canvas import FAMILIES, SHADES, STANDINS, axes_of, drawing, ended, label_points, room, svg

MARKERS = "osD^"
RMS = ("best_of", "local", "base")  # colour names of reward models, in turn


def _beside(names: Iterable[str]) -> tuple:
    """A figure, and its axes with room for the names of lines at their ends."""
    right = max(1.2, room(names))
    return axes_of(3.0 + right, 2.8, left=0.5, bottom=0.5, right=right, top=0.25)


def family(arm: str) -> str:
    """The family of an arm: the longest of the family names that its name begins with ("online" if none does)."""
    return next((f for f in sorted(FAMILIES, key=len, reverse=True) if arm.startswith(f)), "online")


def tones(arms: list[str], bright: Collection[str] = ()) -> dict[str, str]:
    """One colour name per arm: its family's; within offline and online the arm named like the family comes first.

    bright: the arms that keep their colour, where the others are to be grey; empty for all.
    """
    named = {}
    for kind in FAMILIES:
        members = sorted((a for a in arms if family(a) == kind), key=lambda arm: arm != kind)
        for i, arm in enumerate(members):
            named[arm] = f"{kind}-{i % SHADES}" if kind in ("offline", "online") else kind
    return {arm: named[arm] if arm in (bright or arms) else "muted" for arm in arms}


@drawing
def curves(
    named: dict[str, str], lines: dict[str, list], levels: dict[str, float], x: str, unit: str, steps: bool = False
) -> str:
    """Lines against ``x``: bold the mean over seeds, thin each seed; dashed a level without an x of its own.

    named: arm -> colour name. lines: arm -> [(x values, y values) of each seed]. levels: arm -> y. steps: x counts
    steps from 0 on, which are drawn on a scale of powers, as they were measured.
    """
    figure, axes = _beside([*lines, *levels])
    ends = []
    for arm in sorted(lines, key=lambda arm: named[arm] != "muted"):  # grey ones below the others
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
    if steps:
        axes.set_xscale("symlog", linthresh=1)
        most = max((xs[-1] for of_arm in lines.values() for xs, _ in of_arm), default=1)
        powers = (10**power for power in range(math.floor(math.log10(max(most, 1))) + 1))
        ticks = sorted({0, *(power for power in powers if 2 * power <= most), most})  # no name on another
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    return ended(figure, axes, ends, x, unit)


@drawing
def dial(
    lines: dict[str, tuple],
    x: str,
    unit: str,
    level: float | None = 0.0,
    colours: dict[str, str] | None = None,
    doubling: bool = False,
    size: tuple[float, float] = (4.4, 2.8),
) -> str:
    """Points with 95% intervals, joined: lines: name -> (x values, means, half widths).

    level: dashed, None for none. colours: name -> colour name, if not those of online arms in turn. doubling: x values
    double from point to point, and every one of them is a tick. size: inches.
    """
    figure, axes = axes_of(*size, left=0.5, bottom=0.5, right=1.2, top=0.25)
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
        several = 1 + len(ticks) // 7  # where there are many, only some of their names find a place
        axes.set_xticks(ticks, ["" if (len(ticks) - 1 - i) % several else f"{t:g}" for i, t in enumerate(ticks)])
        axes.minorticks_off()
    return ended(figure, axes, ends, x, unit)


@drawing
def fitted(points: Sequence[tuple], line: tuple[np.ndarray, ...], x: str, unit: str, level: float = 0.0) -> str:
    """A line with its 95% interval through points with theirs, each named.

    points: (name, Estimate of x, Estimate of y, whether to draw it open). line: (x values, heights, lower ends, upper
    ends). level: where neither side is ahead.
    """
    figure, axes = axes_of(6.4, 4.2, left=0.5, bottom=0.5, right=0.15, top=0.25)
    colour = STANDINS["online-0"]
    xs, heights, low, high = line
    axes.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(xs, heights, color=colour, linewidth=2)
    axes.axhline(level, color=STANDINS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
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
    label_points(axes, [(across.mean, up.mean, name) for name, across, up, _ in points])
    return svg(figure)


@drawing
def verifiers(losses: dict[str, list[float]], accuracies: dict[str, list[float]]) -> str:
    """Held-out log-loss and accuracy of the reward models: a large dot the mean, small ones the seeds.

    losses, accuracies: reward model -> value of each seed.
    """
    figure = Figure(figsize=(4.4, 3.0))
    rows = [(losses, math.log(2), "log-loss (lower is better)"), (accuracies, 0.5, "accuracy (higher is better)")]
    for place, (numbers, chance, title) in enumerate(rows):
        axes = figure.add_axes((0.22, 0.63 - 0.5 * place, 0.6, 0.25))
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
        colours = [STANDINS[RMS[i % len(RMS)]] for i in range(len(numbers))]
        for y, (colour, values) in enumerate(zip(colours, numbers.values())):
            axes.plot([chance, float(np.mean(values))], [y, y], color=colour, linewidth=2.2, alpha=0.45)
            axes.plot(values, np.full(len(values), y + 0.3), "|", color=colour, markersize=5, markeredgewidth=1.1)
            axes.plot(np.mean(values), y, "o", color=colour, markersize=8, markeredgecolor=STANDINS["surface"])
            axes.annotate(f"{np.mean(values):.3f}", (1.03, y), xycoords=("axes fraction", "data"), va="center")
        axes.set_yticks(range(len(numbers)), [f"{name} RM" for name in numbers])
        for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
            label.set_color(colour)
        axes.set_ylim(len(numbers) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(title, labelpad=2)
        axes.tick_params(pad=2)
    return svg(figure)


@drawing
def best_of(
    named: dict[str, str], curves: dict[str, list[dict[int, float]]], levels: dict[str, float], unit: str
) -> str:
    """True reward of the completion that a reward model likes best among n, against n; dashed: levels of arms.

    named: arm -> colour name. curves: reward model -> of each seed, n -> true reward.
    """
    ends = []
    labels = {name: f"{name} RM" for name in curves}
    figure, axes = _beside([*labels.values(), *levels])
    ns = sorted(next(iter(curves.values()))[0])
    for i, (name, by_seed) in enumerate(curves.items()):
        colour = STANDINS[RMS[i % len(RMS)]]
        for curve in by_seed if len(by_seed) > 1 else []:
            axes.plot(ns, [curve[n] for n in ns], color=colour, linewidth=0.8, alpha=0.4)
        means = [float(np.mean([curve[n] for curve in by_seed])) for n in ns]
        axes.plot(ns, means, "o-", color=colour, linewidth=2, markersize=4)
        ends.append((ns[-1], means[-1], labels[name], colour))
    for arm, y in levels.items():
        axes.axhline(y, color=STANDINS[named[arm]], linewidth=1.2, linestyle=(0, (4, 3)))
        ends.append((None, y, arm, STANDINS[named[arm]]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.minorticks_off()
    return ended(figure, axes, ends, "n, completions to choose from", unit)
