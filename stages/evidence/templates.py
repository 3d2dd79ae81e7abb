"""Filling the templates of the pages, which lie beside the code that fills them."""

from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from stages.evidence.panels import RESULT, numbers, opens
from stages.evidence.words import number, upper

STYLE = Path(__file__).parent  # palette.css, and what both pages show where numbers come from by


def fill(beside: str, words: dict, *names: str) -> tuple[str, ...]:
    """The text of each template beside the file ``beside``; all but markdown is escaped for html."""
    environment = Environment(
        loader=FileSystemLoader([Path(beside).parent, STYLE]),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=lambda name: bool(name) and not name.endswith(".md.jinja"),
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).replace("|", "\\|")
    environment.filters["upper_first"] = upper
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else number(p, 3)
    environment.filters |= {"opens": opens, "numbers": numbers, "results": partial(numbers, pattern=RESULT)}
    return tuple(environment.get_template(f"{name}.jinja").render(words) for name in names)
