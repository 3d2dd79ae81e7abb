"""At the end of a run: which results differ from those that its commit recorded, why, and by how much.

A commit has dvc.lock, and data/made.json with the platforms. Where a stage had the same command, params and deps and
made other outs, it is the platform that made the difference, or the stage is not deterministic.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from flows import kept
from flows.pipeline.content import md5
from flows.pipeline.graph import Graph
from flows.pipeline.reading import overlap
from flows.provenance.making import FILE, MADE, Makings, counted, differing, listing
from stages.provenance.git import git
from stages.records.artifacts import MANIFEST

LISTED = 5  # stages that are told one by one


def told(graph: Graph, makings: Makings, names: list[str]) -> list[str]:
    """A line for each of the stages ``names`` (the first five) that came out otherwise than HEAD's dvc.lock records,
    and how many stages followed from them. Empty where HEAD has no dvc.lock, as for the workspaces of studies."""
    text = git(graph.root, "show", "HEAD:./dvc.lock")
    if text is None or text == (graph.root / "dvc.lock").read_bytes():
        return []
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        locked = YAML(typ="safe").load(text.decode())["stages"]
    except (YAMLError, ValueError, KeyError, TypeError):
        return []  # no record to compare with
    roots, followers, changed = [], [], []
    for name in names:  # each after those whose outs it reads
        if name not in locked:
            continue
        then, now = entry(name, locked[name]), graph.record(name)
        outs = [
            path for path, md5 in _hashes(then, "outs").items() if _hashes(now, "outs").get(path) not in (None, md5)
        ]
        if not outs or any(_plain(then[part]) != _plain(now[part]) for part in ("cmd", "params")):
            continue
        before, after = _hashes(then, "deps"), _hashes(now, "deps")
        read = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        if not read:
            roots.append((name, then, outs))
        elif all(any(overlap(Path(path), Path(out)) for out in changed) for path in read):
            followers.append(name)
        else:
            continue
        changed += outs
    if not roots:
        return []
    platforms = kept.parsed(git(graph.root, "show", f"HEAD:./{FILE}") or b"", MADE) or {}
    lines = [_line(graph, makings, platforms, *root) for root in roots[:LISTED]]
    if more := roots[LISTED:]:
        lines.append(
            f"{counted(len(more), 'more stage')} came out differently: {', '.join(name for name, *_ in more)}."
        )
    if followers:
        lines.append(f"{counted(len(followers), 'stage')} that read these came out differently for it.")
    return lines


def entry(name: str, locked: dict) -> dict:
    """A stage of a dvc.lock in the form of Graph.record."""
    params = {key: value for file in locked.get("params", {}).values() for key, value in file.items()}
    command = locked["cmd"] if isinstance(locked["cmd"], str) else "\n".join(locked["cmd"])
    sides = {
        side: [{"path": e["path"], "md5": e.get("md5")} for e in locked.get(side, [])] for side in ("deps", "outs")
    }
    return {"name": name, "cmd": command, "params": params, **sides}


def _line(graph: Graph, makings: Makings, platforms: dict, name: str, then: dict, outs: list[str]) -> str:
    before, now = listing(platforms, then), next(iter(makings.of(name)), None)
    recorded = {path: md5 for path, md5 in _hashes(then, "outs").items() if path in outs}
    if before is None or now is None:
        cause = "on which platform that was made is not on record"
    elif before["platform"] != now["platform"]:
        cause = f"that was made with {differing(before['platform'], now['platform'])}"
    else:
        cause = "on the same platform: the stage is not deterministic, or something was edited by hand"
    return f"{name}: {outs[0]} is not what the commit recorded ({amount(graph, recorded)}); {cause}."


def amount(graph: Graph, recorded: dict[str, str], root: Path | None = None, published: dict | None = None) -> str:
    """By how much outs differ from the hashes ``recorded`` of them, by path: "at most 1e-11 (dial.parquet)", or in
    which files, or not known.

    ``root``: the folder they lie in, if not the graph's; ``published``: see ``versions``.
    """
    from flows.provenance.differences import largest

    gaps, others = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for out, value in recorded.items():
            files = versions(graph, out, value, Path(folder), published)
            if files is None:
                return "by how much is not known, as the recorded bytes are not here"
            for name, old in files.items():
                new = (root or graph.root) / out / name if name else (root or graph.root) / out
                shown = name or out
                if not new.is_file():
                    others.append(shown)
                elif new.read_bytes() != old.read_bytes():
                    gap = largest(old, new, shown)
                    others += [shown] if gap is None else []
                    gaps |= {} if gap is None else {shown: gap}
    others = [name for name in others if not name.endswith(MANIFEST)]  # it has the hashes of the others
    parts = []
    if gaps:
        worst = max(gaps, key=lambda name: gaps[name])
        parts.append(f"numbers by at most {gaps[worst]:.2g}, in {worst}")
    return "; ".join([*parts, *([f"more than numbers in {others[0]}"] if others else [])]) or "a file more or less"


def versions(
    graph: Graph, out: str, recorded: str, folder: Path, published: dict[str, str] | None = None
) -> dict[str, Path] | None:
    """The files of an out as it was recorded, by their path in it ("" for the out itself), from DVC's cache or git,
    hashed; None if some are in neither. ``folder``: for copies from git; ``published``: where git has an out, if not
    at its path in HEAD."""
    cache = graph.repo.cache.local
    kept = Path(cache.oid_to_path(recorded))
    if _is(kept, recorded.removesuffix(".dir")):
        if not recorded.endswith(".dir"):
            return {"": kept}
        listed = {one["relpath"]: one["md5"] for one in json.loads(kept.read_text())}
        files = {name: Path(cache.oid_to_path(value)) for name, value in listed.items()}
        return files if all(_is(path, listed[name]) for name, path in files.items()) else None
    content = git(graph.root, "show", (published or {}).get(out, f"HEAD:./{out}"))
    if content is None or hashlib.md5(content).hexdigest() != recorded:
        return None
    copy = folder / out.replace("/", "_")
    copy.write_bytes(content)
    return {"": copy}


def _is(path: Path, value: str) -> bool:
    return path.is_file() and md5(path) == value


def _hashes(record: dict, side: str) -> dict[str, str]:
    return {e["path"]: e["md5"] for e in record[side]}


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
