"""What a road costs beside what all roads share: the processor time of the stages that it waits for, by their own
statements, which a published study keeps. Seconds belong to a machine and are in no out of DVC's."""

from collections.abc import Mapping

from flows.pipeline.graph import Graph
from flows.pipeline.stated import Stated
from flows.places import project_of
from flows.provenance import replicates
from stages.records import plain
from stages.records.artifacts import PUBLISHED

SHARED = ("check", "corpus", "base", "pool", "preferences")  # stages of all roads
MAKES = ("offline", "online", "pick")  # stages of which an arm has one, or none


def stated(graph: Graph) -> dict[str, Stated]:
    """The statement of each stage of a graph, and of the replicates of its study that were taken as published."""
    study = plain.fast(graph.root / plain.CELLS)["resolved"]["study"]
    project, found = project_of(graph.root), {}
    for of in study["restored"]:
        found |= replicates.pack(project / PUBLISHED / study["name"], of)
    made_by = [name for name, stage in graph.stages.items() if stage.command]
    return found | {one.stage: one for one in replicates.stated(graph, made_by, project, {})}


class Spent:
    """Processor time by the ``said`` statements, one of each stage."""

    def __init__(self, said: Mapping[str, Stated]) -> None:
        self._said = said
        self._makers = {path: name for name, one in said.items() for path in one.outs}

    def seconds(self, setting: str, seed: int, arm: str) -> float | None:
        """Seconds of an arm up to its policy, or of one that trains none up to its evaluation, without the stages that
        all roads share; None where a stage among them has no statement, or one that does not say."""
        of = f"@{setting}-{seed}-{arm}"
        waiting = [name for name in (f"{stage}{of}" for stage in MAKES) if name in self._said]
        total = 0.0
        try:
            waiting = waiting or self._before(f"evaluate{of}")
            for name in waiting:  # grows meanwhile
                waiting += [one for one in self._before(name) if one not in waiting]
                if (seconds := self._said[name].seconds) is None:
                    return None
                total += seconds
        except KeyError:  # a stage without a statement
            return None
        return total

    def _before(self, name: str) -> list[str]:
        """The stages that made what a stage read, without those that all roads share. Raises KeyError where one is not
        known."""
        paths = [path for path in self._said[name].inputs if path.startswith("data/")]
        made = {self._makers[path] for path in paths if not path.startswith("data/inputs/")}
        return sorted(one for one in made if one.partition("@")[0] not in SHARED)
