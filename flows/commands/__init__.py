"""The commands of `roads`, in one file for each question that a person has; flows/cli.py lists them.

What a command needs is imported inside it: `roads status` has no time for the rest.
"""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from flows import completion

StudyName = Annotated[
    str | None,
    typer.Option(
        "--study", help="A study of studies/; without it that of params.yaml.", autocompletion=completion.studies
    ),
]
StudyArgument = Annotated[
    str | None,
    typer.Argument(help="A study of studies/; without it that of params.yaml.", autocompletion=completion.studies),
]


def go_to(study: str | None) -> None:
    """Work in the workspace of a named study; without a name, in the project. Its cells follow its params, but while a
    run works there, which reads them."""
    if study:
        from flows.workspace import enter

        enter(study)
    from flows.alone import Busy, alone
    from stages.records import plain, resolver

    if f"vars: [{plain.CELLS}]" in Path("dvc.yaml").read_text(encoding="utf-8"):
        with contextlib.suppress(Busy), alone(Path()):
            resolver.write()
