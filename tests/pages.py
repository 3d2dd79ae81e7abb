"""Reading the pages as a person does who opens none of the panels behind their numbers."""

import re


def shown(html: str) -> str:
    """A page without its panels, and without the buttons around numbers and before panels."""
    before, *panels = re.split(r"(?=<div popover )", html)
    rest = panels[-1].partition("</div>\n")[2] if panels else ""
    before = re.sub(r"<span>(<button[^>]*>[^<]*</button>[^<]*)</span>", r"\1", before)
    return re.sub(r" ?<button[^>]*>Where it comes from</button>|<button[^>]*>|</button>", "", before) + rest
