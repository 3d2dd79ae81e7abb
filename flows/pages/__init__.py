"""Pages that are no outs of DVC's: what flows knows of a project beside its science, each a template in this folder."""

from pathlib import Path
from typing import Any

STYLE = Path(__file__).parents[2] / "stages" / "evidence"  # palette.css, as in the report


def fill(name: str, **words: Any) -> str:
    """The text of ``name``.jinja in this folder; all but markdown is escaped for html."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, STYLE]),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=lambda template: bool(template) and not template.endswith(".md.jinja"),
    )
    return environment.get_template(f"{name}.jinja").render(words)
