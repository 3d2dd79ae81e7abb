"""The model card of an exported policy: README.md, with the front matter that the Hugging Face hub reads."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.pages import fill
from flows.pipeline.graph import Graph
from flows.provenance.making import Makings
from flows.provenance.statements import of
from stages.records import arms, plain
from stages.records.artifacts import sha256
from stages.records.errors import UserError

if TYPE_CHECKING:
    from flows.export import Policy

NOT_GIVEN = "not given"
OURS = "apache-2.0"  # where a world makes its own data, all that is in the weights comes of this project's code
HUB = (  # licences of data and models that the hub knows by name; it takes others as "other"
    "apache-2.0 mit bsd-3-clause cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-4.0 odc-by odbl openrail gpl-3.0 unlicense"
).split()


def text(graph: Graph, policy: "Policy", world: dict, new: Path, signed: bool) -> str:
    """The card. ``world``: the corpus's record; ``new``: the folder that is exported, but for the card."""
    stages = _before(graph, policy.stage)
    imported = inputs(policy, graph.root)
    figures, why = _figures(graph, policy)
    made = next(iter(Makings(graph).of(policy.stage)), None)
    record = graph.record(policy.stage)
    recipe = {key: value for key, value in record["params"].items() if not key.startswith("cells.")}
    commit = made["commit"] if made else ""
    to_study = f" --study {policy.study}" if policy.study else ""
    words = {
        "policy": policy,
        "title": world["facts"]["title"],
        "imported": imported,
        "recipe": plain.text(recipe),
        "figures": figures,
        "why": why,
        "seeds": plain.fast(plain.CELLS)["resolved"]["study"]["seeds"],
        "stages": [{**graph.record(name), "short": graph.stages[name].command.split("\n")[-1]} for name in stages],
        "commit": commit,
        "clean": bool(made and made["clean"]),
        "platform": made["platform"] if made else {},
        "statements": [(one.sha256, ", ".join(key for key, _ in one.signatures)) for one in of(graph, policy.stage)],
        "again": f"roads reproduce {commit}{to_study} --stages {policy.stage}" if commit else policy.again,
        "weights": {path.name: sha256(path) for path in sorted(new.glob("*.safetensors"))},
        "max_prompt": world.get("max_prompt"),
        "signed": signed,
        "not_given": NOT_GIVEN,
    }
    return f"---\n{_front(policy, imported, figures, world)}\n---\n\n" + fill("card.md", **words).rstrip() + "\n"


def inputs(policy: "Policy", root: Path) -> list[dict[str, str]]:
    """What was imported for the policy: name, source, sha256, and where they are on record revision, licence, from."""
    cells = plain.fast(root / plain.CELLS)["cells"]
    makers = [c for stage in ("corpus", "base") for c in cells[stage].values() if c["out"] in policy.cell.values()]
    found = []
    for folder in dict.fromkeys(cell["inputs"] for cell in makers if not cell["inputs"].startswith(arms.NONE)):
        sources = plain.fast(root / f"{folder}.dvc").get("meta", {}).get("sources", {})
        found += [{"name": f"{folder}/{name}", **_lines_joined(origin)} for name, origin in sources.items()]
    return found


def _front(policy: "Policy", imported: list[dict[str, str]], figures: list[dict], world: dict) -> str:
    """The front matter, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    fetched = {kind: [one["source"] for one in imported if one.get("type") == kind] for kind in ("model", "dataset")}
    measured = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"all-roads/{policy.setting}",
            dataset_name=f"{world['facts']['title']}, test prompts",
            metric_type="true_reward",
            metric_name="true reward",
            metric_value=figure["value"],
        )
        for figure in figures[:1]
    ]
    kind = arms.kind(plain.fast(plain.CELLS)["resolved"]["settings"][policy.setting]["arms"][policy.arm])
    data = ModelCardData(
        model_name=f"{policy.arm}, {policy.setting}, seed {policy.seed}",
        base_model=fetched["model"] or None,
        datasets=fetched["dataset"] or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["all-roads", *([f"{kind}-preference-optimization"] if kind in arms.TRAINED else []), policy.setting],
        eval_results=measured or None,
        **licence([one.get("licence", "") for one in imported]),
    )
    return data.to_yaml().strip()


def licence(given: list[str]) -> dict[str, str]:
    """The licence in the front matter: of all that was imported, or ours where nothing was; none if one is not known.

    Whether a model may be used under its data's licence is for a person to say: the card lists both.
    """
    if not given:
        return {"license": OURS}
    if not all(given):
        return {}
    names = sorted({name.lower().replace(" ", "-") for name in given})
    if len(names) == 1 and names[0] in HUB:
        return {"license": names[0]}
    return {"license": "other", "license_name": "-and-".join(re.sub(r"[^a-z0-9.]+", "-", name) for name in names)}


def _figures(graph: Graph, policy: "Policy") -> tuple[list[dict], str]:
    """What the report says of the arm in its setting, to the digit: heading, this seed's value, mean and interval over
    the study's seeds; and the truth's sentence, or why there are no figures."""
    from flows.plan import plan
    from stages.evidence import statistics, words
    from stages.evidence.study import cells
    from stages.evidence.study.measured import columns_of
    from stages.evidence.study.truth import truth

    study = cells.read_study()
    kept = {
        f"replicate@{policy.setting}-{seed}" for seed in study.seeds
    }  # of some perhaps as published, without a stage
    if due := plan(graph, kept & graph.stages.keys()).due:
        return [], f"Not given: {due[0]} is not up to date where this was exported."
    try:
        world = cells.read_world(study, policy.setting)
        judge = cells.read_judge(study, policy.setting) if world.facts.truth is None else None
        found = {seed: cells.read_cell(study, policy.setting, seed, policy.arm) for seed in study.seeds}
    except UserError as error:
        return [], f"Not given: {error}"
    figures = []
    for split, metric, heading, digits, low, high in columns_of(world):
        values = cells.matrix([*found.values()], split, metric, apart=study.redraw == "world")
        own = cells.value(found[policy.seed], split, metric)
        if values is not None and own is not None:
            bounds = (-float("inf") if low is None else low, float("inf") if high is None else high)
            mean, interval = words.written(statistics.mean(values).within(*bounds), digits)
            shown = words.number(own, digits)
            figures.append(
                {"heading": heading, "value": round(own, digits), "own": shown, "mean": mean, "interval": interval}
            )
    said = truth(policy.setting, world, judge)
    return figures, " ".join(filter(None, [said.sentence, said.doubt]))


def _before(graph: Graph, stage: str) -> list[str]:
    """The stages that a stage rests on and itself, in DVC's order, but for tracked inputs and what checks params."""
    wanted = {stage}
    for one in reversed(graph.stages.values()):
        if one.name in wanted:
            wanted.update(one.upstream)
    return [one.name for one in graph.stages.values() if one.name in wanted and one.command and one.group != "check"]


def _lines_joined(origin: dict[str, Any]) -> dict[str, str]:
    """What people wrote, in one line each, so that no text of theirs begins a heading or a table."""
    return {key: " ".join(str(value).split()).replace("|", "/") for key, value in origin.items()}
