"""A study that claims are about ends in data/studies/NAME, which git keeps: what it has found, and of what artifacts.

Workspaces come and go; the stage `claims` of the project reads the json here, so that a clone decides the claims anew
without running the studies. The files are no outs of DVC's, as they come from the graphs of other workspaces.
"""

import json
from pathlib import Path

from flows.plan import Plan
from stages.records.artifacts import PUBLISHED, write_file
from stages.records.params import Params

KINDS = ("base", "corpus", "evaluation", "policy", "preferences", "reward")
ARTIFACTS = tuple(f"data/{kind}/" for kind in KINDS)


def publish(study: str, plan: Plan, params: Params, project: Path) -> str:
    """Write evidence.json, report.md and artifacts.json (DVC's hash of each artifact); one line if one has changed.

    ``plan``: what has been carried out. Nothing is published of a study that no claim names, or of which stages that
    were not selected are out of date.
    """
    graph = plan.graph
    selected = len(plan.names) < len(graph.stages)
    if study not in {claim.study for claim in params.claims.values()} or (selected and graph.status()):
        return ""
    outs = [out for name in graph.stages for out in graph.record(name)["outs"]]
    hashes = {out["path"]: f"md5 {out['md5']}" for out in outs if out["path"].startswith(ARTIFACTS)}
    contents = {
        "evidence.json": (graph.root / "data" / "evidence.json").read_bytes(),
        "report.md": (graph.root / "data" / "report" / "report.md").read_bytes(),
        "artifacts.json": (json.dumps(hashes, indent=1, sort_keys=True) + "\n").encode(),
    }
    written = [_write(project / PUBLISHED / study / name, content) for name, content in contents.items()]
    return f"Published: {PUBLISHED / study}. Commit it, and `roads run` decides the claims." if any(written) else ""


def _write(path: Path, content: bytes) -> bool:
    """Replace a file as a whole, unless it is as it should be; whether it was not."""
    if path.exists() and path.read_bytes() == content:
        return False
    write_file(path, content)
    return True
