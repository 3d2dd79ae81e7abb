"""`roads why`: what would make a stage run, one sentence each, or that nothing would; of a file, what it makes run."""

import difflib
import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.changes import current, recorded, some
from flows.pipeline.digested import written
from flows.pipeline.graph import Graph
from flows.pipeline.reading import overlap
from flows.places import RUNS as WORKSPACES
from flows.places import project_of
from flows.plan import Plan, plan
from flows.provenance.because import Because, file_of
from flows.provenance.due import AFTER, MAY, MENDED, RESTORED, RUNS, STAYS, Answer, answers, makers
from flows.provenance.edits import listed
from flows.provenance.making import counted
from flows.workspace import files
from stages.records.errors import UserError
from stages.records.plain import CELLS, PARAMS, STUDIES

LOCK, PIPELINE, CODE = "requirements.lock", "dvc.yaml", "stages"
SHOWN = 12  # sentences of a stage; one that reads all settings may have thousands
HEADS = {
    RUNS: "{} would run:",
    AFTER: "{} would run, or be brought back if DVC's cache then has what exactly this makes:",
    RESTORED: "{} would not be computed but brought back from DVC's cache, which has what exactly this makes:",
    MENDED: "{} would not run:",
    STAYS: "Nothing would make {} run.",
}


class Found(NamedTuple):
    """What was asked about.

    ``path``: a source or an input, "" where it is a stage or an out; ``stages``: those asked about, or those that the
    path makes run; ``after``: those that read what these make; ``readers``: all that depend on the path; ``told``: the
    answers for all of ``stages`` and what makes them run.
    """

    path: str
    stages: list[str]
    after: list[str]
    readers: list[str]
    told: dict[str, Answer]

    def json(self) -> dict[str, Any]:
        """For programs: the answers, of a path only with its causes."""
        rows = {}
        for name, answer in self.told.items():
            because = [{**one.cause._asdict(), "said": one.said, "files": one.files} for one in answer.because]
            rows[name] = {"outcome": answer.outcome, "because": because, "roots": answer.roots}
        more = {"path": self.path, "after": self.after, "readers": self.readers} if self.path else {}
        return {**more, "stages": self.stages, "answers": rows}


def why(graph: Graph, asked: str) -> Found:
    """What would make a stage, a group of stages, or the stages that make an out run; or, of a source or an input, what
    would run because of it. Raises UserError with the nearest name for what is none of these."""
    todo = plan(graph, set(graph.stages))
    names = [name for name, stage in graph.stages.items() if asked in (name, stage.group)]
    path = "" if names else _path(graph, asked)
    names = names or list(makers(todo, path))
    if names:
        return Found("", names, [], [], answers(todo, names))
    readers = _readers(todo, path)
    if not readers and not (graph.root / path).exists():
        raise UserError(_unknown(graph, asked, path))
    told = {name: _only(todo, answer, path, readers) for name, answer in answers(todo, todo.due).items()}
    told = {name: answer for name, answer in told.items() if answer.because}
    after = [name for name, one in answers(todo, todo.maybe_due).items() if set(one.roots) & told.keys()]
    return Found(path, list(told), [name for name in after if name not in told], readers, told)


def words(found: Found) -> str:
    """For people."""
    if not found.path:
        return "\n".join(_of_stages(found))
    if not found.readers:
        return f"No stage depends on {found.path}, so that none would run because of it."
    part = f"{found.path} is read by {counted(len(found.readers), 'stage')} ({some(found.readers)})"
    if not found.stages:
        counts = ", as comments, docstrings and layout do not count" if found.path.endswith(".py") else ""
        return f"No stage would run because of {found.path}{counts}. {part}."
    lines = [f"Because of {found.path}:", *_of_stages(found)]
    if found.after:
        lines.append(f"{counted(len(found.after), 'stage')} after these ({some(found.after)}) may run then.")
    return "\n".join(lines)


def _of_stages(found: Found) -> list[str]:
    """Lines for the stages that were asked about, then for those that these wait for."""
    roots = {root: None for name in found.stages for root in found.told[name].roots if root not in found.stages}
    asked = _blocks(found.told[name] for name in found.stages)
    before = _blocks(found.told[root]._replace(roots=[]) for root in roots)
    rest = [f"And {counted(len(before) - SHOWN, 'reason')} more, which --json lists."] if len(before) > SHOWN else []
    return [*chain.from_iterable([*asked, *before[:SHOWN]]), *rest]


def _blocks(told: Iterable[Answer]) -> list[list[str]]:
    """Lines for some answers, together for stages of which the same is to be said."""
    alike: dict[tuple, list[str]] = defaultdict(list)
    for one in told:
        alike[one.outcome, tuple(because.said for because in one.because), tuple(one.roots)].append(one.stage)
    blocks = []
    for (outcome, said, roots), names in alike.items():
        if outcome == MAY:
            which = f"what {roots[0]} makes" if len(roots) == 1 else "what one of these makes"
            these = f": {_named(list(roots), 'or')}" if roots[1:] else ""
            head = f"{_named(names)} may run, if {which} comes out differently{these}."
        else:
            head = HEADS[outcome].format(_named(names, "or" if outcome == STAYS else "and"))
        before = f"- Before {'them' if names[1:] else 'it'} comes {_named(list(roots))}."
        blocks.append([head, *_points(said), *([before] if roots and outcome == AFTER else [])])
    return blocks


def _points(said: tuple[str, ...]) -> list[str]:
    rest = [f"- and {counted(len(said) - SHOWN, 'thing')} more, which --json lists."] if len(said) > SHOWN else []
    return [*(f"- {one}" for one in said[:SHOWN]), *rest]


def _named(names: list[str], word: str = "and") -> str:
    return some(names) if len(names) > 3 else f" {word} ".join(names[-2:]) if len(names) < 3 else listed(names)


def _path(graph: Graph, asked: str) -> str:
    """A path as it is below the project. Raises UserError for one outside it, or in the workspace of another study."""
    place = Path(os.path.normpath(graph.root / asked))
    parts = place.relative_to(graph.root).parts if place.is_relative_to(graph.root) else None
    ours = graph.root.relative_to(project_of(graph.root)).parts  # runs/NAME, of a study's workspace
    if parts and ours and parts[:2] == ours:
        parts = parts[2:]
    if parts and parts[0] == WORKSPACES and len(parts) > 2:
        inside = "/".join(parts[2:])
        raise UserError(f"{asked} is of the study {parts[1]}: ask `roads why {inside} --study {parts[1]}`.")
    if parts is None:
        raise UserError(f"{asked} is not in {graph.root}: name a stage, or a file of the project.")
    return "/".join(parts) or "."


def _readers(todo: Plan, path: str) -> list[str]:
    """The stages that depend on a file or a folder that no stage makes."""
    graph, study = todo.graph, f"{STUDIES}/{todo.graph.root.name}.yaml"
    if path in (PARAMS, CELLS) or (graph.root != project_of(graph.root) and path == study):
        return [name for name in graph.stages if graph.dvc_stage(name).params]
    if path == PIPELINE:
        return [name for name, stage in graph.stages.items() if stage.command]
    if path in (LOCK, CODE) or path.startswith(f"{CODE}/"):
        return [name for name in graph.stages if any(_is_of(path, key, graph.root) for key in _pieces(todo, name))]
    place = graph.root / path
    return [name for name in graph.stages if any(overlap(d.fs_path, place) for d in graph.dvc_stage(name).deps)]


def _pieces(todo: Plan, name: str) -> list[tuple[str, str]]:
    """The kind and the name of each piece of a stage's code, as it is now."""
    dependency = recorded(todo.graph, name)
    if dependency is None:
        return []
    stem = Path(dependency.fs_path).stem
    now = current(todo.graph).get(stem) if "check" in todo.status else written(Path(dependency.fs_path))
    return [("package" if part == "packages" else part, one) for part, of in (now or {}).items() for one in of]


def _is_of(path: str, key: tuple[str, str], root: Path) -> bool:
    kind, name = key
    if kind == "package":
        return path == LOCK
    file = file_of(root, name)
    return kind == "code" and (file == path or file.startswith(f"{path}/"))


def _only(todo: Plan, answer: Answer, path: str, readers: list[str]) -> Answer:
    """An answer with what is because of a file alone."""
    root = todo.graph.root
    params = path in (PARAMS, CELLS) or (root != project_of(root) and path == f"{STUDIES}/{root.name}.yaml")

    def is_it(one: Because) -> bool:
        kind, name = one.cause.kind, one.cause.name
        if path == PIPELINE:
            return kind in ("command", "record") or one.cause.now == "new"
        if kind == "param":
            return params
        if kind in ("code", "package"):  # of code that changed in what is not known, any of it
            return _is_of(path, (kind, name), root) if name else answer.stage in readers
        return kind == "input" and any(overlap(root / file, root / path) for file in one.files or [name])

    if todo.code is not None and todo.graph.stages[answer.stage].group == "check":
        return answer._replace(because=[], roots=[])  # what it is going to find is known
    return answer._replace(because=[one for one in answer.because if is_it(one)], roots=[])


def _unknown(graph: Graph, asked: str, path: str) -> str:
    stages = [name for name, stage in graph.stages.items() if stage.command]
    paths = [entry.def_path for name in stages for entry in (*graph.dvc_stage(name).outs, *graph.dvc_stage(name).deps)]
    names = dict.fromkeys([*stages, *(graph.stages[name].group for name in stages), *paths, *files(graph.root)])
    near = difflib.get_close_matches(asked, names, 1, 0.0)
    return f"{asked} is no stage of this study, and no file that one makes or reads: did you mean {near[0]}?"
