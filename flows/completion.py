"""What the shell offers when a person presses Tab: names of studies, settings, seeds, arms and stages.

Only params.yaml, studies/ and dvc.yaml are read. Where they cannot be, nothing is offered, and nothing is said: who is
still typing has asked no question.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

VARIABLE = "_ROADS_COMPLETE"  # typer's: the shell sets it, and `roads` then prints what fits
Offer = Callable[[str, str], Iterable[str]]


def answer(app: Callable[[], None]) -> None:
    """Run the command ``app``, which prints what fits, for the shell that asks.

    Bash breaks words at @ and =, which typer does not know: here the word is whole again, and what is printed is what
    bash puts in place of the last @ and what follows it.
    """
    if os.environ[VARIABLE] != "complete_bash":
        return app()
    words, at = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    begin = at
    while begin > 1 and {"@", "="} & {*words[begin - 1 : begin + 1]}:
        begin -= 1
    whole = "".join(words[begin : at + 1])
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join([*words[:begin], whole]), str(begin)
    before = whole.rpartition("=")[2].rpartition("@")[0] if begin < at else ""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        app()
    print("\n".join(line.removeprefix(before) for line in said.getvalue().splitlines()))


def _quiet(offer: Offer) -> Callable[[typer.Context, str], list[str]]:
    """What typer asks: those of the names offered that begin as the last name of a,b,... does.

    ``offer(study, typed)``: names, where ``study`` is the one that the command line has so far ("": params.yaml's).
    """

    def offered(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, typed = incomplete.rpartition(",")
        try:
            names = [name for name in offer(ctx.params.get("study") or "", typed) if name not in before.split(",")]
        except Exception:  # whatever is wrong with the files, the next command says it
            names = []
        return [before + comma + name for name in names]

    return offered


@_quiet
def studies(study: str, typed: str) -> Iterable[str]:
    from stages.records.plain import STUDIES

    return sorted(path.stem for path in Path(STUDIES).glob("*.yaml"))


@_quiet
def settings(study: str, typed: str) -> Iterable[str]:
    return _resolved(study)["resolved"]["study"]["settings"]


@_quiet
def any_settings(study: str, typed: str) -> Iterable[str]:
    """Of params.yaml and of all studies."""
    from stages.records import plain

    files = [Path(plain.PARAMS), *sorted(Path(plain.STUDIES).glob("*.yaml"))]
    return dict.fromkeys(name for path in files for name in plain.fast(path).get("settings", {}))


@_quiet
def seeds(study: str, typed: str) -> Iterable[str]:
    return map(str, _resolved(study)["resolved"]["study"]["seeds"])


@_quiet
def arms(study: str, typed: str) -> Iterable[str]:
    found = _resolved(study)["resolved"]
    return found["settings"][found["study"]["settings"][0]]["arms"]


@_quiet
def stages(study: str, typed: str) -> Iterable[str]:
    """Those of dvc.yaml, and once one is typed its cells: online, then online@gap-0-online."""
    from stages.records import plain

    stage, at, _ = typed.partition("@")
    return [f"{stage}@{cell}" for cell in _resolved(study)["cells"][stage]] if at else plain.fast("dvc.yaml")["stages"]


def _resolved(study: str) -> dict:
    from stages.records import plain, resolver

    params = plain.fast(plain.PARAMS)
    if study:
        params = resolver.prepared(params, plain.fast(f"{plain.STUDIES}/{study}.yaml"), study)
    return resolver.resolve(params)
