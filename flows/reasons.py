"""Why a stage is out of date, in words: DVC's status, down to the param and the module that changed."""

from pathlib import Path
from typing import Any

from flows.pipeline.changes import SHOWN, more, since, words
from flows.pipeline.digested import DIGESTS
from flows.plan import Plan
from flows.provenance import origins
from flows.provenance.making import Makings
from flows.runners.slots import cores
from flows.timings import clock, left


def reasons(plan: Plan, name: str) -> list[str]:
    """One phrase for each thing that has changed for a stage that is due."""
    if name in plan.mended:
        return [plan.mended[name]]
    stage = plan.graph.dvc_stage(name)
    if stage.cmd and not any(out.hash_info for out in stage.outs):
        return ["never run here"]
    phrases = ["--force"] if name in plan.forced else []
    for entry in plan.status.get(name, []):
        if not isinstance(entry, dict):
            phrases.append("its command changed" if entry == "changed command" else str(entry))
            continue
        for path, state in entry.get("changed deps", {}).items():
            if isinstance(state, dict):
                params = next(dep for dep in stage.params if str(dep) == path)
                phrases += [_params(params, key, how) for key, how in state.items()]
            elif Path(path).parent == DIGESTS and (pieces := since(plan.graph, name)):
                phrases.append(words(pieces))
            else:
                phrases.append(_state(path, state))
        phrases += [_state(path, state) for path, state in entry.get("changed outs", {}).items()]
    if plan.code and name in plan.code:
        phrases.append(words(plan.code[name]))
    return list(dict.fromkeys(phrases))


def _state(path: str, state: str) -> str:
    return f"{path} is {'missing' if state == 'deleted' else state}"


def _params(dependency: Any, key: str, how: str) -> str:
    """settings.gap.offline.learning_rate: 0.001 -> 0.002, as params.yaml, which cells.yaml follows, has it."""
    name = key.removeprefix("resolved.")
    if how != "modified":
        return f"{name} is {how}"
    before, now = _flat(name, dependency.hash_info.value[key]), _flat(name, dependency.read_params()[key])
    changed = [k for k in {**before, **now} if before.get(k, "none") != now.get(k, "none")]
    shown = [f"{k}: {before.get(k, 'none')} -> {now.get(k, 'none')}" for k in changed[:SHOWN]]
    return (", ".join(shown) or f"{name} changed") + more(changed)


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(f"{prefix}.{key}", inner).items()}
    return {prefix: list(value) if isinstance(value, tuple) else value}


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
    ways = plan.timings.ways(plan.graph, set(expected))
    unknown = sum(seconds is None for seconds in expected.values())
    total = clock(left(ways, list(expected.values()), cores()))
    note = f" ({unknown} stages have never been timed)" if unknown else ""
    return "\n".join([*lines, f"{len(to_run)} to run, {len(plan.maybe_due)} that may; at most about {total}{note}."])
