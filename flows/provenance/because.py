"""A sentence for each thing that makes a stage run: what is so now, and was not when its result was recorded."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.content import UNKNOWN, apart, content, differences
from flows.plan import Plan
from flows.provenance.edits import edited, files_then, listed
from flows.provenance.making import Makings
from flows.reasons import Cause, value

COMMIT = re.compile(r"[0-9a-f]{40}")


class Because(NamedTuple):
    """A cause, the sentence that tells it, and of an input the files in it that differ, where that is known."""

    cause: Cause
    said: str
    files: tuple[str, ...] = ()


def sentences(plan: Plan, own: dict[str, list[Cause]]) -> dict[str, list[Because]]:
    """The causes of stages with their sentences; what was edited in code is looked up for all at once."""
    edits = {(one.name, one.was) for of in own.values() for one in of if one.kind == "code" and one.was and one.now}
    makings = Makings(plan.graph)
    coded = [name for name, of in own.items() if any(one.kind == "code" for one in of)]
    commits = [made["commit"] for name in coded for made in makings.of(name) if COMMIT.fullmatch(made["commit"])]
    known = edited(plan.graph.root, edits, dict.fromkeys(commits)) if edits else {}
    return {name: [_because(plan, name, one, known) for one in of] for name, of in own.items()}


def _because(plan: Plan, name: str, cause: Cause, edits: dict[tuple[str, str], str]) -> Because:
    if cause.kind not in ("input", "out"):
        return Because(cause, _sentence(plan, name, cause, edits))
    stage = plan.graph.dvc_stage(name)
    entry = next(one for one in [*stage.deps, *stage.outs] if str(one) == cause.name)
    apart = _apart(plan, entry) if cause.now == "modified" else {}
    return Because(cause, _of_files(plan, entry, cause, apart), tuple(apart))


def _apart(plan: Plan, entry: Any) -> dict[str, str]:
    """What is wrong with the files in an input or an out; none where it is one file, or that is not known."""
    path, now = str(entry), content(entry)
    found = differences(entry, now)
    if path in found and "" not in now and (then := _then(plan, entry)):
        found = {f"{path}/{name}": word for name, word in apart(then, now).items()}
    return {name: word for name, word in found.items() if name != path}


def _then(plan: Plan, folder: Any) -> dict[str, str | None] | None:
    root, is_ignored = plan.graph.root, folder.dvcignore.is_ignored_file
    return files_then(root, str(folder), folder.hash_info.value, lambda name: not is_ignored(str(root / name)))


def _sentence(plan: Plan, name: str, cause: Cause, edits: dict[tuple[str, str], str]) -> str:
    """What is so now and was not when the result was recorded, without the name of the stage."""
    what, was, now = cause.name, cause.was, cause.now
    if cause.kind == "param" and was == now:
        return f"Params below {what} changed."
    if cause.kind == "param":
        return f"The param {what} is {value(now)}, and was {value(was)} when the result was recorded."
    if cause.kind == "command":
        return f"Its command is `{now}`, and was `{was}` when the result was recorded."
    if cause.kind == "record":
        return _unrecorded(plan, name)
    if cause.kind == "force":
        return "It was asked for by --force."
    if cause.kind not in ("code", "package"):
        return f"DVC says: {cause.kind}."
    if not what:
        return "Its code or its packages changed; in what is not known, as DVC's cache has lost the digests of then."
    place = what if cause.kind == "package" else file_of(plan.graph.root, what)
    if was is None:
        return f"It uses {place} now, and did not when the result was recorded."
    if cause.kind == "package":
        return f"It computes with {what} {now or 'no more'}, and with {what} {was} when the result was recorded."
    if now is None:
        gone = "it is gone" if not (plan.graph.root / place).exists() else "it does not any more"
        return f"It used {place} when the result was recorded, and {gone}."
    return f"In {place}, {edits[what, was]}." if (what, was) in edits else f"{place} was edited."


def file_of(root: Path, module: str) -> str:
    """The file of a module; what has a path already keeps it."""
    if "/" in module:
        return module
    place = module.replace(".", "/")
    return f"{place}/__init__.py" if (root / place / "__init__.py").exists() else f"{place}.py"


def _of_files(plan: Plan, entry: Any, cause: Cause, apart: dict[str, str]) -> str:
    """A sentence on an input or an out, with the files in it that differ where that is known."""
    path, state = cause.name, cause.now
    inner = [f"{file} {'is new' if word == UNKNOWN else word}" for file, word in apart.items()]
    files = f" ({listed(inner[:3])}{f' and {len(inner) - 3} more' if inner[3:] else ''})" if inner else ""
    if cause.kind == "out" and state == "not in cache" and (lying := entry.workspace_status()):
        said = _of_files(plan, entry, cause._replace(now=lying[path]), {})
        return f"{said.removesuffix('.')}, and DVC's cache has lost what is recorded of it."
    if cause.kind == "out":
        of_state = {
            "modified": f"Its out {path} is not what it made{files}.",
            "deleted": f"Its out {path} is missing.",
            "not in cache": f"DVC's cache has lost its out {path}.",
        }
        return of_state.get(state, f"It makes {path} now, of which dvc.lock records nothing.")
    tracked = [whole(plan.mended[f"{path}.dvc"])] if f"{path}.dvc" in plan.mended else []
    of_state = {
        "modified": f"{path}, which it reads, is not what the result was made from{files}.",
        "deleted": f"{path}, which it reads, is missing.",
    }
    said = of_state.get(state, f"It reads {path} now, and did not when the result was recorded.")
    return " ".join([said, *tracked])


def _unrecorded(plan: Plan, name: str) -> str:
    """A sentence on a stage that dvc.lock has no record of; of one that was renamed in dvc.yaml, with its old name."""
    stage, lock = plan.graph.dvc_stage(name), plan.graph.dvc_stage(name).dvcfile.lockfile_contents.get("stages", {})
    outs = {out.def_path for out in stage.outs}
    for former in plan.graph.stale():
        if {out["path"] for out in lock.get(former, {}).get("outs", [])} & outs:
            return f"dvc.lock has no record of it; its outs are recorded of {former}, which dvc.yaml no longer has."
    return "dvc.lock has no record of it." if lock else "There is no dvc.lock, so it has no record."


def whole(phrase: str) -> str:
    """A phrase as a sentence."""
    return f"{phrase[:1].upper()}{phrase[1:].removesuffix('.')}."
