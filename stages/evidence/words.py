"""How both pages write a number, an interval and a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports scipy and statsmodels, which takes seconds
    from stages.evidence.statistics import Estimate


def number(value: float, decimals: int, sign: bool = False) -> str:
    """A number as both pages write it."""
    return f"{value:{'+' if sign else ''}z.{decimals}f}".replace("-", "−")


def written(estimate: Estimate, decimals: int) -> tuple[str, str]:
    """A mean and its interval, as text; the interval is empty where there is none, or none to see."""
    mean, low, high = (number(value, decimals) for value in estimate[:3])
    return mean, "" if not estimate.resolved or mean == low == high else f"{low} to {high}"


def count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def upper(text: str) -> str:
    return text[0].upper() + text[1:]


def inline(value: object) -> str:
    """The value of a param on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {inline(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " + ".join(inline(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
