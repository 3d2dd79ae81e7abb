"""What stages and what they make are called in MLflow."""

import hashlib
import json
import re
from pathlib import Path

# An evaluation's metrics belong to the policy of its arm; of an arm without one, to the model that does its choosing.
ROLES = {
    "best_of": "reward-global",
    "best_of_soft": "reward-global",
    "best_of_local": "reward-local",
    "local": "reward-local",
}


def labels(command: str) -> dict[str, str]:
    """setting, seed, arm, start: whatever the command names."""
    return dict(re.findall(r"--(\w+) (\S+)", command))


def key(stage: dict) -> str:
    """What makes two stage runs the same: name, command, leaves of the params, hashes of deps and outs."""
    leaves = sorted((name.rpartition(".")[2], json.dumps(v)) for name, v in flat(stage["params"]).items())
    hashes = [sorted((e["path"], e["md5"]) for e in stage[side]) for side in ("deps", "outs")]
    return hashlib.sha256(json.dumps([stage["name"], stage["cmd"], leaves, hashes]).encode()).hexdigest()


def params(stage: dict) -> dict[str, object]:
    """A stage's labels and params, under names that are the same for every setting and arm, so that runs compare.

    Those of other settings are left out: the report depends on all, which are thousands, and their stages have them.
    """
    labelled = labels(stage["cmd"])
    named = dict(labelled)
    for name, value in flat(stage["params"]).items():
        name = name.removeprefix(f"settings.{labelled.get('setting')}.")
        if not name.startswith("settings."):
            named[re.sub(rf"^arms\.{labelled.get('arm')}\.", "arm.", name)] = value
    return named


def model(path: str) -> str:
    """data/policy/gap/0/online -> gap-online, data/base/gap -> gap-base, data/reward/gap/0/local -> gap-reward-local"""
    kind, setting, *rest = Path(path).parts[1:]
    rest = [part for part in rest if not part.isdigit()]
    return "-".join([setting, *([] if rest and kind in ("policy", "base") else [kind]), *rest])


def evaluated(labelled: dict[str, str]) -> str:
    """The name of the model that an evaluation is about."""
    return f"{labelled['setting']}-{ROLES.get(labelled['arm'], labelled['arm'])}"


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
