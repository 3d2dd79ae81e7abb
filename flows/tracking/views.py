"""The tables that MLflow's page opens with: saved views, which MLflow keeps as tags of the experiment.

A view has its content's digest in its id: one that a person has changed in the page stays, until we change ours.
"""

import hashlib
import json
import time
from typing import Any

from flows.tracking import names

PREFIX = "mlflow.sharedViewState."
OURS = "all-roads-"
ARMS, MODELS = "Arms: params and true reward", "Reward models: held-out loss"
WIDTHS = {"params.`arm`": 160, "params.`seed`": 60, "params.`rounds`": 76, "params.`steps`": 76}  # pixels
LABELS = ("setting", "arm", "seed")
VIEWS = {  # name: filter, params, metrics, and pairs of what the charts above MLflow's own draw against each other
    ARMS: (
        "tags.kind = 'arm'",
        (*LABELS, *names.COMPARED),
        tuple(name for name in names.MEASURED if name != "length"),
        (("learning_rate", "true_reward"), ("beta", "true_reward"), ("kl", "true_reward")),
    ),
    MODELS: (
        "metrics.held_out_accuracy >= 0 AND tags.stage != 'judge'",
        ("setting", "verifier", "seed", *names.COMPARED),
        tuple(name for name in names.MEASURED if name.startswith("held_out")),
        (),
    ),
}


def install(client: Any, experiment: str) -> str:
    """Make MLflow's page offer our views, and no older ones of ours; the key of the first, for its address."""
    there = client.get_experiment(experiment).tags
    ours = {PREFIX + _key(name): name for name in VIEWS}
    for tag in there:
        if tag.startswith(PREFIX + OURS) and tag not in ours:
            client.delete_experiment_tag(experiment, tag)
    for tag, name in ours.items():
        if tag not in there:
            now = int(time.time() * 1000)
            view = {"name": name, "state": _state(*VIEWS[name]), "createdAt": now, "updatedAt": now}
            client.set_experiment_tag(experiment, tag, json.dumps(view))
    return _key(ARMS)


def _key(name: str) -> str:
    return OURS + hashlib.sha256(json.dumps([name, _state(*VIEWS[name])]).encode()).hexdigest()[:16]


def _state(search: str, params: tuple, metrics: tuple, charts: tuple) -> str:
    """What MLflow's page stores of itself: which runs, in which order, with which columns, from left to right."""
    sections = [_own("against", name="One against the other", display=True, isReordered=True)]
    columns = [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in metrics)]
    return json.dumps(
        {
            "searchFilter": search,
            "orderByKey": columns[0],  # by time the page would hide the runs of a study below one folded row
            "orderByAsc": True,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": columns,
            "columnOrder": columns,
            "runsHiddenMode": "SHOW_ALL",
            "isAccordionReordered": True,  # our section first
            "compareRunSections": sections if charts else None,
            "compareRunCharts": [_chart(x, y) for x, y in charts] or None,
            "columnWidths": {column: WIDTHS.get(column, 140 if "held_out" in column else 92) for column in columns},
        }
    )


def _chart(x: str, y: str) -> dict[str, object]:
    """A point for each run."""
    axes = {side: {"key": key, "type": _type(key)} for side, key in (("xaxis", x), ("yaxis", y))}
    return _own(f"{x}-{y}", type="SCATTER", metricSectionId="against", runsCountToCompare=1000, **axes)


def _type(name: str) -> str:
    return "METRIC" if name in names.MEASURED else "PARAM"


def _own(identity: str, **content: object) -> dict[str, object]:
    return {"uuid": identity, "deleted": False, "isGenerated": False, **content}
