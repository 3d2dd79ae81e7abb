"""What would make stages run, a sentence for each thing: DVC's status, down to the function that was edited."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flows.pipeline.changes import current, digest_of, md5_of
from flows.pipeline.content import digest, listing
from flows.pipeline.reading import overlap
from flows.plan import Plan
from flows.provenance.because import Because, sentences, whole
from flows.reasons import Cause, causes
from stages.records.arms import NONE

RUNS, AFTER, RESTORED, MAY, MENDED, STAYS = "runs", "runs after others", "restored", "may run", "put right", "stays"
EMPTY = "d41d8cd98f00b204e9800998ecf8427e"  # the MD5 of a file that holds nothing
Causes = dict[str, list[Cause]]


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
    found = {name: causes(plan, name) for name in plan.due if name not in plan.mended}
    own = {name: _own(plan, found, name) for name in found}
    same = {name for name, of in own.items() if all(one.kind == "out" for one in of) and _is_kept(plan, name, of)}
    roots = {name: _roots(plan, own, same, name) for name in names}
    roots |= {one: _roots(plan, own, same, one) for of in list(roots.values()) for one in of}
    told = sentences(plan, {name: own[name] for name in roots if name in own})
    return {name: _answer(plan, name, told.get(name, []), roots[name]) for name in plan.names if name in roots}


def _answer(plan: Plan, name: str, because: list[Because], roots: list[str]) -> Answer:
    if name in plan.mended:
        said = [Because(Cause("mended", name), whole(plan.mended[name]))]
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


def _own(plan: Plan, found: Causes, name: str) -> list[Cause]:
    """What makes a stage due beside what a run puts right, as recorded, before it comes to the stage; none where only
    DVC's cache has lost outs that are there."""
    outs = {str(out): out for out in plan.graph.dvc_stage(name).outs}
    left = [one for one in found[name] if not _comes_back(plan, found, name, one)]
    lost = [one for one in left if (one.kind, one.now) == ("out", "not in cache")]
    return [] if len(lost) == len(left) and not any(outs[one.name].workspace_status() for one in lost) else left


def _comes_back(plan: Plan, found: Causes, name: str, cause: Cause) -> bool:
    """Whether what a stage reads is only not what other stages have made, which a run brings back first, and the stage
    has read just that."""
    if cause.kind != "input":
        return False
    dependency = next(dep for dep in plan.graph.dvc_stage(name).deps if str(dep) == cause.name)
    if plan.code is not None and "check" in plan.status and cause.name.startswith(NONE):
        return dependency.hash_info.value == EMPTY
    made = makers(plan, cause.name)
    amiss = {one.name for up in made for one in found.get(up, []) if one.kind == "out"}
    outs = [out for of in made.values() for out in of]
    return any(str(out) in amiss for out in outs) and _combined(cause.name, outs) == dependency.hash_info.value


def makers(plan: Plan, path: str) -> dict[str, list[Any]]:
    """The stages with a command that make what lies at, in or around a path of the project, each with those outs."""
    place, found = plan.graph.root / path, {}
    for name in (name for name, stage in plan.graph.stages.items() if stage.command):
        if outs := [out for out in plan.graph.dvc_stage(name).outs if overlap(out.fs_path, place)]:
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
    from dvc_data.hashfile.meta import Meta

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
        if all(cause.kind == "out" for cause in due) and all(out.hash_info for out in stage.outs):
            runs = [to_single_stage_lockfile(stage)]
        else:
            for dep in stage.deps:
                if dep in known:
                    dep.hash_info, dep.meta = HashInfo("md5", known[dep]), Meta()  # the old one has the old hash too
                else:
                    dep.save()
            key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
            runs = [cache._load_cache(key, path.name) for path in Path(cache._get_cache_dir(key)).glob("*")]
        return any(cache._create_stage(run, wdir=stage.wdir).outs_cached() for run in runs if run)
    finally:
        for dep, *kept in before:
            dep.hash_info, dep.meta, dep.obj = kept
