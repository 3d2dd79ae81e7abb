"""Where the numbers of a page come from: a panel for each source, and numbers that open it.

A number is a button and a panel an element with the attribute popover, both HTML's own: no script, no server, and the
keyboard works. What commits and machines have to do with it is no matter of an out: stage names lead to lineage.html,
which `roads run` writes beside the page (flows/pages/lineage.py).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

NUMBER = re.compile(r"(?<![\w.,-])[+−]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w%-]|\.\d)")  # not in best-of-16, gap_2 or 95%
RESULT = re.compile(r"(?<![\w.,-])(?:[+−]\d+(?:\.\d+)?|\d+\.\d+)(?![\w%-]|\.\d)")  # with a sign or decimals


class Artifact(NamedTuple):
    """One thing that a number rests on."""

    path: str
    hash: str  # with what it is of: "manifest.json sha256 0a1b...", or DVC's "md5 ..."
    stage: str = ""  # that makes it, as in dvc.yaml; empty where that is not known
    study: str = ""  # whose stage it is, if not of the page's own


class Panel(NamedTuple):
    """A source of numbers, as the template wants it."""

    key: str  # its id in the page
    title: str
    params: list[tuple[str, str]]  # section of the params -> its values
    artifacts: list[Artifact]
    others: Sequence[tuple[str, str]] = ()  # the panels that it goes back to: (key, words)
    command: str = ""  # that makes all of it again


def key(kind: str, *of: str) -> str:
    """The id of the panel of such a source."""
    return "-".join(["from", kind, *of])


def opens(shown: object, key: str, more: str = "") -> Markup:
    """What is shown, and ``more`` in small print below it, as buttons that open the panel; as it is without digits."""
    small = Markup("<small>{}</small>").format(opens(more, key)) if more else ""
    if not any(character.isdigit() for character in str(shown)):
        return escape(shown) + small
    return Markup('<button popovertarget="{}">{}</button>').format(key, shown) + small


def numbers(sentence: str, key: str, pattern: re.Pattern[str] = NUMBER) -> Markup:
    """A sentence in which each number opens the panel."""
    pieces, place = [], 0
    for found in pattern.finditer(sentence):
        pieces.append(escape(sentence[place : found.start()]))
        place = found.end()
        if mark := re.match(r"[,.;:)]+", sentence[place:]):  # which would begin the next line after a button
            pieces.append(Markup("<span>{}{}</span>").format(opens(found[0], key), mark[0]))
            place += mark.end()
        else:
            pieces.append(opens(found[0], key))
    return Markup("").join([*pieces, escape(sentence[place:])])
