"""Commands for a person's own data and models: import."""

from typing import Annotated

import typer


def import_command(
    setting: Annotated[str, typer.Argument(help="The setting, of params.yaml or a study, that the data is for.")],
    source: Annotated[str, typer.Argument(help="A file, a folder, or the id of a data set or model on the hub.")],
) -> None:
    """Put data or a model below data/inputs/SETTING/, tracked by DVC."""
    from flows.importing import import_input

    typer.echo(import_input(setting, source))
