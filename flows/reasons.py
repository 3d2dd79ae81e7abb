"""Why a stage is out of date: DVC's status, down to the param and the module that changed, and that in short words."""

from typing import Any, NamedTuple

from flows.pipeline.changes import SHOWN, Piece, digest_of, edits, more, words
from flows.plan import Plan
from flows.provenance import origins
from flows.provenance.making import Makings
from flows.runners.slots import cores
from flows.timings import clock, left


class Cause(NamedTuple):
    """One thing that makes a stage out of date.

    ``kind``: record (there is none of the stage), force, command, param, code, package, input, out, or what DVC says;
    ``name``: of the param, module, package, file; "" for code that changed in what is not known. ``was`` and ``now``:
    values, versions and digests, None where there is none; of an input or an out ``now`` is DVC's word for its state.
    """

    kind: str
    name: str
    was: Any = None
    now: Any = None


def causes(plan: Plan, name: str) -> list[Cause]:
    """All that has changed for a stage that is due, and is not only mended."""
    stage, pieces = plan.graph.dvc_stage(name), (plan.code or {}).get(name)
    if stage.cmd and not any(out.hash_info for out in stage.outs):
        return [Cause("record", name)]
    found = [Cause("force", name)] if name in plan.forced else []
    for entry in plan.status.get(name, []):
        if not isinstance(entry, dict):
            found.append(_command(plan, name) if entry == "changed command" else Cause(str(entry), name))
            continue
        for path, state in entry.get("changed deps", {}).items():
            if isinstance(state, dict):
                params = next(dep for dep in stage.params if str(dep) == path)
                found += [cause for key in state for cause in _params(params, key)]
            elif digest_of(path) and state == "modified":
                pieces = edits(plan.graph, name)
            else:
                found.append(Cause("input", path, now=_state(stage.deps, path, state, "modified")))
        for path, state in entry.get("changed outs", {}).items():
            found.append(Cause("out", path, now=_state(stage.outs, path, state, "modified", "deleted")))
    if pieces is not None:
        found += [Cause(*piece) for piece in pieces] or [Cause("code", "")]
    return list({(cause.kind, cause.name): cause for cause in found}.values())


def reasons(plan: Plan, name: str) -> list[str]:
    """One phrase for each kind of thing that has changed for a stage that is due."""
    if name in plan.mended:
        return [plan.mended[name]]
    found = causes(plan, name)
    params = [cause for cause in found if cause.kind == "param"]
    code = [Piece(*cause) for cause in found if cause.kind in ("code", "package")]
    phrases = [_phrase(cause) for cause in found if cause.kind not in ("param", "code", "package")]
    if params:
        shown = [f"{cause.name}: {value(cause.was)} -> {value(cause.now)}" for cause in params[:SHOWN]]
        phrases.append(", ".join(shown) + more(params))
    return phrases + ([words([piece for piece in code if piece.name])] if code else [])


def value(found: Any) -> str:
    """A param, or a version, in words."""
    return "none" if found is None else str(found)


def _phrase(cause: Cause) -> str:
    if cause.kind in ("input", "out"):
        return f"{cause.name} is {'missing' if cause.now == 'deleted' else cause.now}"
    known = {"record": "never run here", "force": "--force", "command": "its command changed"}
    return known.get(cause.kind, cause.kind)


def _state(entries: list, path: str, state: str, *unrecorded: str) -> str:
    """DVC's word for the state of an input or an out, and "new" for its words for one that was never recorded."""
    entry = next(one for one in entries if str(one) == path)
    return "new" if state in unrecorded and not entry.hash_info else state


def _command(plan: Plan, name: str) -> Cause:
    stage = plan.graph.dvc_stage(name)
    then = stage.dvcfile.lockfile_contents["stages"][name]["cmd"]
    was = "\n".join(then) if isinstance(then, list) else then
    return Cause("command", name, was, plan.graph.stages[name].command)


def _params(dependency: Any, key: str) -> list[Cause]:
    """settings.gap.offline.learning_rate was 0.001 and is 0.002: what is not the same below a key that DVC compares."""
    both = (dependency.hash_info.value or {}, dependency.read_params())
    before, now = (flat(key, found[key]) if key in found else {} for found in both)
    changed = [one for one in {**before, **now} if before.get(one, ...) != now.get(one, ...)] or [key]
    return [Cause("param", one.removeprefix("resolved."), before.get(one), now.get(one)) for one in changed]


def flat(prefix: str, found: Any) -> dict[str, Any]:
    """The leaves of nested params by their whole keys; an empty mapping is a leaf."""
    if isinstance(found, dict) and found:
        return {k: v for key, inner in found.items() for k, v in flat(f"{prefix}.{key}", inner).items()}
    return {prefix: list(found) if isinstance(found, tuple) else found}


def remarks(plan: Plan) -> list[str]:
    """What is up to date, and yet not quite what this machine, code and params would make."""
    up_to_date = [name for name in plan.names if name not in plan.due]
    return [*Makings(plan.graph).told(up_to_date), *origins.told(plan.graph)]


def list_reasons(plan: Plan) -> str:
    """For people: the stages that are out of date, and why."""
    if not plan.due:
        return f"All {len(plan.names)} stages are up to date."
    lines = [f"{name}: {'; '.join(reasons(plan, name))}" for name in plan.due]
    mended = f", {len(plan.mended)} more are put right without running" if plan.mended else ""
    stale = f"{len(plan.due) - len(plan.mended)} of {len(plan.names)} stages are out of date{mended}."
    rest = f" {len(plan.maybe_due)} more depend on them." if plan.maybe_due else ""
    return "\n".join([*lines, f"{stale}{rest}"])


def describe(plan: Plan) -> str:
    """For people: what a run would do, why, and for how long by earlier runs."""
    to_run = [name for name in plan.due if name not in plan.mended]
    expected = {n: plan.timings.expected(plan.graph.stages[n]) for n in to_run + plan.maybe_due}
    lines = [f"{name}: {said}" for name, said in plan.mended.items()]
    lines += [f"{n}: would run ({clock(expected[n])}): {'; '.join(reasons(plan, n))}" for n in to_run]
    for name in plan.maybe_due:
        upstream = [up for up in plan.graph.stages[name].upstream if up in expected or up in plan.mended]
        lines.append(f"{name}: may run ({clock(expected[name])}), if what {' or '.join(upstream)} makes is different")
    return "\n".join([*lines, f"{len(to_run)} to run, {len(plan.maybe_due)} that may; at most {duration(plan)}."])


def duration(plan: Plan) -> str:
    """How long what is out of date takes by earlier runs, in words."""
    to_run = [name for name in [*plan.due, *plan.maybe_due] if name not in plan.mended]
    expected = [plan.timings.expected(plan.graph.stages[name]) for name in to_run]
    unknown = sum(seconds is None for seconds in expected)
    note = f" ({unknown} stages have never been timed)" if unknown else ""
    return f"about {clock(left(plan.timings.ways(plan.graph, set(to_run)), expected, cores()))}{note}"
