"""What a report knows of a world: its corpus artifact says it, so that no report asks which world it is."""

from dataclasses import dataclass

Column = tuple[str, str, int, float | None, float | None]


@dataclass(frozen=True)
class Facts:
    """In world.json under "facts"; a bound of None is no bound."""

    title: str  # what world it is, as a sentence without its full stop
    truth: str | None  # what the true reward is, after "The true reward is"; None where it is the score of a judge
    unit: str = "true reward"  # of an axis
    low: float | None = None  # what a true reward cannot be less than
    high: float | None = None
    decimals: int = 3  # of a true reward
    columns: tuple[Column, ...] = ()  # what else is measured of a completion: name, heading, decimals, low, high
    marks: tuple[tuple[str, float, str], ...] = ()  # (column, least, words): the first that holds says what one is
