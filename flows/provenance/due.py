"""What would make stages run, a sentence for each thing: DVC's status, down to the function that was edited."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.changes import current, digest_of, md5_of
from flows.pipeline.content import UNKNOWN, apart, content, differences, digest, listing
from flows.pipeline.parsing import params_parsed_once
from flows.pipeline.reading import overlap
from flows.plan import Plan
from flows.provenance.edits import edited, files_then, listed
from flows.provenance.making import Makings
from flows.reasons import Cause, causes, value
from stages.records.arms import NONE

RUNS, AFTER, RESTORED, MAY, MENDED, STAYS = "runs", "runs after others", "restored", "may run", "put right", "stays"
EMPTY = "d41d8cd98f00b204e9800998ecf8427e"  # the MD5 of a file that holds nothing
COMMIT = re.compile(r"[0-9a-f]{40}")
Causes = dict[str, list[Cause]]


class Because(NamedTuple):
    """A cause, the sentence that tells it, and of an input the files in it that differ, where that is known."""

    cause: Cause
    said: str
    files: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What a run would do about a stage, why, and the stages before it that would run first, for reasons of their own.

    ``outcome``: RUNS; RESTORED, where DVC's cache has what exactly this would make; AFTER, either of the two, once its
    ``roots`` are there; MAY, if these come out differently; MENDED, without running it; STAYS.
    """

    stage: str
    outcome: str
    because: list[Because]
    roots: list[str]


def answers(plan: Plan, names: Iterable[str]) -> dict[str, Answer]:
    """The answer for each of these stages of a plan, and for their roots; in the plan's order."""
    with params_parsed_once():
        found = {name: causes(plan, name) for name in plan.due if name not in plan.mended}
        own = {name: [one for one in of if not _comes_back(plan, found, name, one)] for name, of in found.items()}
        same = {name for name, of in own.items() if all(one.kind == "out" for one in of) and _is_kept(plan, name, of)}
        roots = {name: _roots(plan, own, same, name) for name in names}
        roots |= {one: _roots(plan, own, same, one) for of in list(roots.values()) for one in of}
        told = _sentences(plan, {name: own[name] for name in roots if name in own})
        return {name: _answer(plan, name, told.get(name, []), roots[name]) for name in plan.names if name in roots}


def _answer(plan: Plan, name: str, because: list[Because], roots: list[str]) -> Answer:
    if name in plan.mended:
        said = [Because(Cause("mended", name), _whole(plan.mended[name]))]
        return Answer(name, MAY if roots else MENDED, said, roots)
    if not because:
        return Answer(name, MAY if roots else STAYS, [], roots)
    if roots:
        return Answer(name, AFTER, because, roots)
    return Answer(name, RESTORED if _is_kept(plan, name, [one.cause for one in because]) else RUNS, because, [])


def _roots(plan: Plan, own: Causes, same: set[str], name: str) -> list[str]:
    """The stages before one that are due for reasons of their own, and through which it may become due.

    ``same``: those of which a run only brings the recorded outs back.
    """
    waiting, seen, pending = [name], {name}, {*plan.due, *plan.maybe_due}
    while waiting:
        for up in plan.graph.stages[waiting.pop()].upstream:
            known = plan.code is not None and plan.graph.stages[up].group == "check"  # what it is going to find
            if up in pending - seen and not known:
                seen.add(up)
                waiting.append(up)
    return [one for one in plan.names if one in seen - {name} - same and own.get(one)]


def _comes_back(plan: Plan, found: Causes, name: str, cause: Cause) -> bool:
    """Whether what a stage reads is only not what other stages have made, which a run brings back first, and the stage
    has read just that."""
    if cause.kind != "input":
        return False
    dependency = next(dep for dep in plan.graph.dvc_stage(name).deps if str(dep) == cause.name)
    made = makers(plan, cause.name)
    amiss = {one.name for up in made for one in found.get(up, []) if one.kind == "out"}
    outs = [out for of in made.values() for out in of]
    return any(str(out) in amiss for out in outs) and _combined(cause.name, outs) == dependency.hash_info.value


def makers(plan: Plan, path: str) -> dict[str, list[Any]]:
    """The stages with a command that make what lies at, in or around a path of the project, each with those outs."""
    place, found = plan.graph.root / path, {}
    for name in (name for name, stage in plan.graph.stages.items() if stage.command):
        if outs := [out for out in plan.graph.dvc_stage(name).outs if overlap(Path(out.fs_path), place)]:
            found[name] = outs
    return found


def _combined(path: str, outs: list[Any]) -> str | None:
    """DVC's hash of what lies at a path and holds these outs as recorded; None if it is not known."""
    if [str(out) for out in outs] == [path]:
        return outs[0].hash_info.value
    files: dict[str, str | None] = {}
    for out in outs:
        place, md5 = Path(str(out)), out.hash_info.value
        inner = listing(out) if md5 and md5.endswith(".dir") else {"": md5} if md5 else None
        if inner is None or not place.is_relative_to(path):
            return None
        files |= {(place.relative_to(path) / name).as_posix(): one for name, one in inner.items()}
    return digest(files)


def _is_kept(plan: Plan, name: str, due: list[Cause]) -> bool:
    """Whether DVC's cache has the outs of exactly what the stage would run now; what is before it is not due."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc_data.hashfile.hash_info import HashInfo

    stage, cache = plan.graph.dvc_stage(name), plan.graph.repo.stage_cache
    found = current(plan.graph) if plan.code is not None and "check" in plan.status else {}
    known = {dep: md5_of(found[stem]) for dep in stage.deps if (stem := digest_of(dep.def_path)) in found}
    if found:
        known |= {dep: EMPTY for dep in stage.deps if dep.def_path.startswith(NONE)}
    is_there = all(dep in known or dep.exists for dep in stage.deps)
    if name in plan.forced or not is_there or stage.always_changed or any(out.persist for out in stage.outs):
        return False
    before = [(dep, dep.hash_info, dep.meta, dep.obj) for dep in stage.deps]
    try:
        if all(cause.kind == "out" for cause in due):
            runs = [to_single_stage_lockfile(stage)]
        else:
            for dep in stage.deps:
                if dep in known:
                    dep.hash_info = HashInfo("md5", known[dep])
                else:
                    dep.save()
            key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
            runs = [cache._load_cache(key, path.name) for path in Path(cache._get_cache_dir(key)).glob("*")]
        return any(cache._create_stage(run, wdir=stage.wdir).outs_cached() for run in runs if run)
    finally:
        for dep, *kept in before:
            dep.hash_info, dep.meta, dep.obj = kept


def _sentences(plan: Plan, own: Causes) -> dict[str, list[Because]]:
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
    tracked = [_whole(plan.mended[f"{path}.dvc"])] if f"{path}.dvc" in plan.mended else []
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


def _whole(phrase: str) -> str:
    """A phrase as a sentence."""
    return f"{phrase[:1].upper()}{phrase[1:].removesuffix('.')}."
