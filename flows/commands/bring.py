"""Commands for a person's own data and models: new, tune, import, export."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows import completion
from flows.commands import StudyName, go_to


def new(
    name: Annotated[str, typer.Argument(help="The name of the study, and of its setting.")],
    data: Annotated[str, typer.Option(help="A file, a folder, or the id of a data set on the hub.")],
    model: Annotated[str, typer.Option(help="A model folder, or the id of a model; without it, a small new one.")] = "",
    config: Annotated[str, typer.Option(help="Of a data set with several configurations, the one to take.")] = "",
    split: Annotated[str, typer.Option(help="Of its splits those to take, as train_prefs,test_prefs.")] = "",
    licence: Annotated[str, typer.Option(help="The data's licence, as CC-BY-4.0; model cards say it.")] = "",
    origin: Annotated[str, typer.Option("--source", help="Where the data come from, in words.")] = "",
) -> None:
    """Begin a study of your own data and model: look at both, choose sizes that fit, import them.

    Writes studies/NAME.yaml, with the reason for each size beside it, and says how long stages take and what comes
    next. Preferences are judged by a reward model on other prompts, demonstrations by their overlap with the reference.

    Example: roads new chat --data preferences.jsonl --model models/SmolLM2-135M-Instruct
    """
    from flows.starting import start

    for line in start(name, data, model, Path(), config, split, licence, origin):
        typer.echo(line)


def tune(
    name: Annotated[str, typer.Argument(help="A study of studies/.", autocompletion=completion.studies)],
) -> None:
    """Choose learning rate and beta of a study's two compared arms by trials on a seed that no result uses.

    The trials are a study of their own, studies/NAME_tuning.yaml; the best on validation prompts go into
    studies/NAME.yaml. Exit codes as of `roads run`.

    Example: roads tune ukp
    """
    from flows import tuning
    from flows.commands import run

    project = Path.cwd()
    trials = tuning.declare(name)
    run.run(study=trials, stages="evaluate")
    found = tuning.winners(name, Path.cwd(), project)
    tuning.write(name, found, project)
    for line in tuning.told(found, trials):
        typer.echo(line)
    typer.echo(f"studies/{name}.yaml has them now: commit it and studies/{trials}.yaml.")


def import_command(
    setting: Annotated[
        str,
        typer.Argument(
            help="The setting, of params.yaml or a study, that the data is for.", autocompletion=completion.any_settings
        ),
    ],
    source: Annotated[str, typer.Argument(help="A file, a folder, or the id of a data set or model on the hub.")],
    config: Annotated[str, typer.Option(help="Of a data set with several configurations, the one to take.")] = "",
    split: Annotated[str, typer.Option(help="Of its splits those to take, as train_prefs,test_prefs.")] = "",
    licence: Annotated[str, typer.Option(help="Its licence, as CC-BY-4.0; model cards say it.")] = "",
    origin: Annotated[str, typer.Option("--source", help="Where it comes from, in words; model cards say it.")] = "",
) -> None:
    """Put data or a model below data/inputs/SETTING/, tracked by DVC.

    Data may be jsonl, json or csv (also .gz), parquet, arrow, a folder in hub layout or of save_to_disk, or a hub id as
    owner/name or owner/name@revision.

    Example: roads import tldr posts.jsonl.gz --licence CC-BY-4.0 --source "Webis-TLDR-17"
    """
    from flows.importing import import_input

    typer.echo(import_input(setting, source, licence=licence, origin=origin, config=config, split=split))


def export(
    ctx: typer.Context,
    arm: Annotated[str, typer.Argument(help="An arm that is a policy.", autocompletion=completion.arms)],
    to: Annotated[Path, typer.Option("--to", help="A folder that is new or empty.")],
    setting: Annotated[
        str, typer.Option(help="Its setting, where there are several.", autocompletion=completion.settings)
    ] = "",
    seed: Annotated[
        int | None, typer.Option(help="Its seed; else the study's first.", autocompletion=completion.seeds)
    ] = None,
    study: StudyName = None,
    sign: Annotated[
        Path | None, typer.Option(help="A private key (P-256, P-384 or P-521) to sign the folder with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a policy as a model folder that transformers loads, with a model card.

    Example: roads export online --setting gap --to models/online
    """
    folder, key = ctx.obj / to, ctx.obj / sign if sign else None
    go_to(study)
    from flows import export as exporting
    from flows.pipeline.graph import Graph

    graph = Graph(publishing=bool(study))
    policy = exporting.find(graph, study or "", setting, seed, arm)
    files = exporting.export(graph, policy, folder, key)
    if as_json:
        found = {name: getattr(policy, name) for name in ("study", "setting", "seed", "arm", "stage")}
        typer.echo(json.dumps({**found, "folder": str(folder), "files": files}, indent=1))
        return
    said = (
        f"{folder} holds {arm} of {policy.setting}, seed {policy.seed}, in {len(files)} files; README.md is its card."
    )
    typer.echo("\n".join(filter(None, [policy.default, said])))
