"""What a run is going to do: which stages, why, for how long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows.pipeline.changes import Piece, expected, without_digests
from flows.pipeline.graph import Graph
from flows.timings import Timings
from stages.records.errors import UserError

if TYPE_CHECKING:  # pydantic takes longer to import than `roads status` may take
    from stages.records.params import Study
    from stages.records.reading import Params


@dataclass
class Plan:
    """What a run has to do.

    ``names``: its stages, in DVC's order; ``status``: what DVC says of those that are out of date; ``code``: those
    whose code changed, which DVC sees only once the stage `check` has run, and what changed (None: not known);
    ``mended``: what is done about those that are out of date without running them, in words.
    """

    graph: Graph
    names: list[str]
    status: dict[str, list]
    code: dict[str, list[Piece]] | None
    forced: set[str]
    mended: dict[str, str]
    timings: Timings

    @property
    def due(self) -> list[str]:
        """The stages that are out of date: they run unless the run cache has their outs, or they can be mended."""
        certain = self.status.keys() | (self.code or {}).keys() | self.forced
        return [name for name in self.names if name in certain]

    @property
    def maybe_due(self) -> list[str]:
        """The stages that run if what they depend on comes out differently."""
        due = self.due
        reached = {name for name in due if self.code is None or self.graph.stages[name].group != "check"}
        reached -= {name for name in self.mended if self.graph.stages[name].command}  # their outs stay as they are
        for name in self.names:
            if reached.intersection(self.graph.stages[name].upstream):
                reached.add(name)
        return [name for name in self.names if name in reached and name not in due]

    def carried_out(self) -> Plan:
        """The same once all of it is done."""
        return replace(self, status={}, code={}, forced=set(), mended={})


def plan(graph: Graph, chosen: set[str], forced: Iterable[str] = (), bring: bool = False) -> Plan:
    """The plan for ``chosen`` and all they depend on. ``bring``: with tracked inputs made what is recorded first.

    Raises UserError for a stage to force that is not among them, and where an input cannot be brought.
    """
    wanted = set(chosen)
    for stage in reversed(graph.stages.values()):
        if stage.name in wanted:
            wanted.update(stage.upstream)
    names = [name for name in graph.stages if name in wanted]
    to_force = matching(graph, forced, "--force")
    if not to_force <= wanted:
        raise UserError(f"--force {min(to_force - wanted)} is not among the stages that were selected.")
    if bring:
        graph.bring_tracked(names)
    status = graph.status()
    status = {name: status[name] for name in names if name in status}
    code: dict[str, list[Piece]] | None = {}
    if "check" in status and (code := expected(graph)) is not None:
        status = without_digests(status, graph)
        code = {name: pieces for name, pieces in code.items() if name in names}
    mended = {name: said for name in status if name not in to_force and (said := graph.mending(name, status[name]))}
    return Plan(graph, names, status, code, to_force, mended, Timings(graph.root))


def matching(graph: Graph, names: Iterable[str], option: str) -> set[str]:
    """The stages of these names: online@gap-0-online for one, online for all of them. Raises UserError for others."""
    found: set[str] = set()
    for name in names:
        stages = {stage.name for stage in graph.stages.values() if name in (stage.name, stage.group)}
        if not stages:
            groups = ", ".join(dict.fromkeys(stage.group for stage in graph.stages.values() if stage.command))
            raise UserError(f"{option} {name}: dvc.yaml has no such stage in this study; it has {groups}.")
        found |= stages
    return found


def select(
    graph: Graph, settings: list[str], seeds: list[str], stages: list[str], study: Study, where: str
) -> set[str]:
    """The stages of a selection; everything if nothing is given. A stage that is of no setting or seed is left out.

    ``study``: its settings and seeds; ``where``: the file that says so. Raises UserError for a name
    outside the study, with the line to add.
    """
    for kind, known, chosen in (("settings", study.settings, settings), ("seeds", map(str, study.seeds), seeds)):
        known = list(known)
        for one in chosen:
            if one not in known:
                line = f"write `{kind}: [{', '.join([*known, one])}]` under study in {where}"
                raise UserError(f"--{kind} {one} is not in the study: {line}.")
    found = matching(graph, stages, "--stages") if stages else set(graph.stages)
    for label, chosen in (("setting", settings), ("seed", seeds)):
        if chosen:
            found = {name for name in found if graph.stages[name].labels.get(label) in chosen}
    if not found:
        raise UserError("No stage of the study is of all the --settings, --seeds and --stages given.")
    return found


def check_inputs(plan: Plan, params: Params) -> None:
    """Raise UserError if something that a stage reads, and none makes, is missing."""
    from flows.importing import INPUTS, missing_input

    graph = plan.graph
    read = {dep.def_path for name in plan.names for dep in graph.dvc_stage(name).deps}
    for name in (name for name in params.settings if f"{INPUTS}/{name}" in read):  # the others share what one has
        if hint := missing_input(name, params.settings[name], graph.root):
            raise UserError(hint)
    for name in plan.due + plan.maybe_due:
        for path in graph.missing_inputs(name):
            tracked = (graph.root / f"{path}.dvc").exists()
            hint = f"run `dvc pull {path}.dvc`" if tracked else "restore it"
            raise UserError(f"{path} is missing, and {name} reads it: {hint}.")
