"""What stages and what they make are called in MLflow."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from stages.records.arms import NONE

# What runs are compared by: the names are plain, and the same in every run, whichever stage and setting it is of.
COMPARED = ("learning_rate", "beta", "loss", "method", "labels", "rounds", "steps")
MEASURED = {
    "true_reward": "test.true_reward",
    "kl": "test.kl",
    "win_rate": "test.win_rate",
    "length": "test.length",
    "held_out_log_loss": "pairs.log_loss",
    "held_out_accuracy": "pairs.accuracy",
}
WHOSE = ("setting", "seed", "verifier", "arm", "judged")
TABLE = 100  # params that a person reads in a list


def labels(meta: dict | None) -> dict[str, str]:
    """Whose a stage is, as its ``meta`` in dvc.yaml says: what there is of WHOSE."""
    return {name: str(meta[name]) for name in WHOSE if (meta or {}).get(name) is not None}


def key(stage: dict) -> str:
    """What makes two stage runs the same: name, command, leaves of the params, hashes of deps and outs."""
    leaves = sorted((name.rpartition(".")[2], json.dumps(v)) for name, v in flat(stage["params"]).items())
    hashes = [sorted((e["path"], e["md5"]) for e in stage[side]) for side in ("deps", "outs")]
    return hashlib.sha256(json.dumps([stage["name"], stage["cmd"], leaves, hashes]).encode()).hexdigest()


def params(stage: dict) -> dict[str, object]:
    """A stage's labels and params, under names that are the same for every setting, arm and reward model, so that runs
    compare.

    Those of other settings are left out: the report depends on all, which are thousands, and their stages have them. So
    are the paths of cells, which are inputs, and lists of claims and studies, which the study's params.yaml has.
    """
    labelled = labels(stage.get("meta"))
    above = f"resolved.settings.{labelled.get('setting')}."
    mine = [f"{above}{kind}s.{labelled[kind]}." for kind in ("arm", "verifier") if kind in labelled]
    named: dict[str, object] = {}
    own: dict[str, object] = {}
    for name, value in flat(stage["params"]).items():
        if of := [name.removeprefix(one) for one in mine if name.startswith(one)]:
            own[of[0]] = "+".join(map(str, value)) if isinstance(value, list) else value
        elif not name.removeprefix(above).startswith(("cells.", "resolved.")):
            named[name.removeprefix(above)] = value
    for key in COMPARED:
        of_section = [name for name in named if name.endswith(f".{key}")]
        if len(of_section) == 1:
            own.setdefault(key, named.pop(of_section[0]))
    return labelled | own | (named if len(named) <= TABLE else {})


def measured(metrics: dict[str, Any]) -> dict[str, float]:
    """What runs are compared by, of the flat metrics of a stage."""
    return {name: float(metrics[key]) for name, key in MEASURED.items() if key in metrics}


def about(stage: dict) -> tuple[str | None, str | None]:
    """The path of the policy, or of the reward model, that a stage's metrics are about, as dvc.yaml says.

    An arm without a policy and a start is the base policy, which every cell reads.
    """
    meta = stage.get("meta") or {}
    measures = meta.get("measures")
    if measures == f"{NONE}start":
        measures = next(dep["path"] for dep in stage["deps"] if dep["path"].startswith("data/base/"))
    return (None, measures) if meta.get("verifier") else (measures, None)


def is_worth(stage: dict) -> bool:
    """Whether a stage says what an arm is worth: it evaluates, or picks, and judges no reward model."""
    meta = stage.get("meta") or {}
    return meta.get("task") == "evaluate" and "arm" in labels(meta) and "verifier" not in labels(meta)


def study(name: str, when: float) -> str:
    """What a study's run is called: its name and when it began."""
    return f"{name} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(when))}"


def model(path: str, seed: str | None = None) -> str:
    """data/policy/gap/0/online -> gap-policy-online, data/base/gap -> gap-base; with a seed, that too."""
    kind, setting, *rest = Path(path).parts[1:]
    return "-".join([setting, kind, *(part for part in rest if not part.isdigit()), *(["seed", seed] if seed else [])])


def title(path: str, sha256: str) -> tuple[str, str]:
    """Name and digest of a data set, for which MLflow has 36 characters."""
    return path.removeprefix("data/"), sha256[:36]


def is_data(path: str) -> bool:
    """Whether a path is a data set or a model, not code."""
    return path.startswith("data/") and not path.startswith("data/digests")


def flat(nested: dict, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    leaves = {}
    for name, value in nested.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
