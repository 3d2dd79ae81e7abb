"""A named study ends in data/studies/NAME, which git keeps: what it has found, and of what artifacts.

Workspaces come and go; the stage `claims` of the project reads the json here, so that a clone decides the claims anew
without running the studies. The files are no outs of DVC's, as they come from the graphs of other workspaces. The
statements of the study's stages are beside them, so that a clone can verify the chain behind its claims.
"""

import hashlib
import json
from pathlib import Path

from flows.plan import Plan
from flows.provenance import origins, replicates, statements
from stages.records import plain
from stages.records.artifacts import PUBLISHED, write_file
from stages.records.errors import UserError

KINDS = ("base", "corpus", "evaluation", "judge", "policy", "preferences", "replicate", "reward", "verification")
FILES = {"evidence.json": "data/evidence.json", "report.md": "data/report/report.md"}
LISTING = "artifacts.json"
BESIDE = (LISTING, "params.json", origins.NAME, statements.PUBLISHED)  # what else its folder has
ARTIFACTS = tuple(f"data/{kind}/" for kind in KINDS)


def publish(study: str, plan: Plan, project: Path) -> str:
    """Write evidence.json, report.md, artifacts.json (DVC's hash of these two and of each artifact), params.json (the
    study's, complete), record.json (what they came from, flows/provenance/origins.py) and the stages' statements, if
    there are any; one line if one has changed.

    ``plan``: what has been carried out. Nothing is published of a study of which stages that were not selected are
    out of date. Raises UserError if the files are not those of dvc.lock.
    """
    graph = plan.graph
    if len(plan.names) < len(graph.stages) and graph.status():
        return ""
    for name in graph.stages:
        replicates.publish(graph, name, study, project)
    outs = {out["path"]: out["md5"] for name in graph.stages for out in graph.record(name)["outs"]}
    hashes = {path: f"md5 {md5}" for path, md5 in outs.items() if path.startswith(ARTIFACTS) or path in FILES.values()}
    for of in plain.fast(graph.root / plain.CELLS)["resolved"]["study"]["restored"]:
        restored = replicates.read(project / PUBLISHED / study / replicates.FOLDER, of)["artifacts"]
        hashes |= {path: md5 for path, md5 in restored.items() if path.startswith(ARTIFACTS)}
    if lacking := [path for path in FILES.values() if path not in outs]:
        raise UserError(f"dvc.yaml has no stage that makes {lacking[0]}, which a study publishes: bring it back there.")
    contents = {name: _as_recorded(graph.root / path, outs[path]) for name, path in FILES.items()}
    for name, found in ((LISTING, hashes), ("params.json", origins.chosen(graph.root))):
        contents[name] = (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
    record, folder = origins.of(study, graph, contents), project / PUBLISHED / study
    before = origins.read(folder)
    made_by = [name for name, stage in graph.stages.items() if stage.command]
    stated = replicates.stated(graph, made_by, project, statements.unpack(folder / statements.PUBLISHED))
    said = statements.pack(stated)
    contents |= {statements.PUBLISHED: said} if said else {}
    unchanged = all(_is(folder / name, content) for name, content in contents.items())
    unchanged &= bool(said) or not (folder / statements.PUBLISHED).exists()
    if unchanged and all(before.get(part) == record[part] for part in origins.DECISIVE):
        return ""
    contents[origins.NAME] = (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
    for name, content in contents.items():
        write_file(folder / name, content)
    if not said:
        (folder / statements.PUBLISHED).unlink(missing_ok=True)
    return " ".join(
        [
            f"Published: {PUBLISHED / study}. Commit it, and `roads run` decides the claims.",
            *origins.otherwise(before, record),
        ]
    )


def _as_recorded(path: Path, md5: str) -> bytes:
    """A file's bytes. Raises UserError if they are not those of DVC's hash: DVC itself goes by size and time alone."""
    content = path.read_bytes()
    if hashlib.md5(content).hexdigest() != md5:
        raise UserError(
            f"{path} is not what dvc.lock records (its MD5 is not {md5}), so nothing is published: restore it with "
            f"`roads run --force report`, or find out who wrote it."
        )
    return content


def _is(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content
