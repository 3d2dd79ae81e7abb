"""What all figures share: a canvas measured in inches, colours that follow the page's theme, names beside lines.

Matplotlib draws with stand-in colours, which become CSS variables of the page (--ink, --offline, ...), so one drawing
serves both themes. Text stays text, in the page's font.
"""

import io
import itertools
import math
import re
from collections.abc import Iterable

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

FAMILIES = ("best_of", "base", "local", "offline", "online")
SHADES = 4  # colours a family of arms has on the page (report.html.jinja)
TONES = ["ink", "muted", "grid", "surface", "base", "best_of", "local"]
TONES += [f"{family}-{shade}" for family in ("offline", "online") for shade in range(SHADES)]
STANDINS = {tone: f"#{0x0A0B00 + i:06x}" for i, tone in enumerate(TONES)}
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


def axes_of(width: float, height: float, left: float, bottom: float, right: float, top: float) -> tuple:
    """A figure of inches with one pair of axes, its margins in inches too, so that panels align on the page."""
    figure = Figure(figsize=(width, height))
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def room(names: Iterable[str]) -> float:
    """Inches that the longest of some names takes beside a plot."""
    return 0.2 + 0.08 * max(map(len, names), default=0)


def ended(figure: Figure, axes, ends: list[tuple], x: str, unit: str) -> str:
    """The figure of lines that are named at their ends: (x or None, y, name, colour) of each."""
    axes.set_xlabel(x)
    axes.set_title(unit, loc="left", fontsize=9.5, color=STANDINS["muted"])
    axes.margins(x=0.02, y=0.08)
    label_ends(axes, ends)
    return svg(figure)


def label_points(axes, points: list[tuple[float, float, str]]) -> None:
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


def label_ends(axes, ends: list[tuple]) -> None:
    """Write each line's name in the right margin at its end's height, moved apart where names would overlap."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    gap = 13 / (axes.bbox.height / axes.figure.dpi * 72) * (high - low)
    ends, heights = sorted(ends, key=lambda end: end[1]), []
    for _, y, *_ in ends:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    for i in reversed(range(len(heights))):  # none above the axes, where the unit stands
        heights[i] = min(heights[i], high - (len(heights) - 1 - i) * gap)
    for (x, y, arm, colour), height in zip(ends, heights):
        if x is not None:  # a dotted way from the line's end to its name
            axes.plot([x, right], [y, y], color=colour, linewidth=1, alpha=0.6, linestyle=(0, (1, 2)))
        axes.plot(
            [1.0, 1.04], [y, height], color=colour, linewidth=0.8, clip_on=False, transform=axes.get_yaxis_transform()
        )
        axes.annotate(arm, (1.05, height), xycoords=("axes fraction", "data"), va="center", color=colour)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def svg(figure: Figure) -> str:
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
