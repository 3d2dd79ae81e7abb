"""What a road costs beside what all roads share: the processor time of the stages that it waits for, by their own
statements, which a published study keeps. Seconds belong to a machine and are in no out of DVC's."""

from collections.abc import Mapping

from flows.pipeline.graph import Graph
from flows.pipeline.stated import Stated
from flows.places import project_of
from flows.provenance import replicates, statements
from stages.records import plain
from stages.records.artifacts import PUBLISHED

SHARED = ("check", "corpus", "base", "pool", "preferences")  # stages of all roads
MAKES = ("offline", "online", "pick")  # stages of which an arm has one, or none


def stated(graph: Graph) -> dict[str, Stated]:
    """The statement of each stage of a graph, and of the replicates of its study that were taken as published."""
    study = plain.fast(graph.root / plain.CELLS)["resolved"]["study"]
    folder, found = project_of(graph.root) / PUBLISHED / study["name"], {}
    for of in study["restored"]:
        found |= replicates.pack(folder, of)
    statements.collect(graph.root, statements.cache(graph))  # those of the run that asks
    for name, stage in graph.stages.items():
        if stage.command and (there := statements.of(graph, name)):
            found[name] = there[-1]
    return found


class Spent:
    """Processor time by the ``said`` statements, one of each stage."""

    def __init__(self, said: Mapping[str, Stated]) -> None:
        self._said = said
        self._makers = {path: name for name, one in said.items() for path in one.outs}

    def seconds(self, setting: str, seed: int, arm: str) -> float | None:
        """Seconds of an arm up to its policy, or of one that trains none up to its evaluation, without the stages that
        all roads share; None where a stage among them has no statement, or one that does not say."""
        of = f"@{setting}-{seed}-{arm}"
        own = [name for name in (f"{stage}{of}" for stage in MAKES) if name in self._said]
        waiting = own or self._before(f"evaluate{of}")
        for name in waiting or ():  # grows meanwhile
            before = self._before(name)
            if waiting is None or before is None:
                return None
            waiting += [one for one in before if one not in waiting]
        if waiting is None:
            return None
        known = [self._said[name].seconds for name in waiting]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    def _before(self, name: str) -> list[str] | None:
        """The stages that made what a stage read, without those that all roads share; None where one is not known."""
        if name not in self._said:
            return None
        paths = [path for path in self._said[name].inputs if path.startswith("data/")]
        made = {self._makers.get(path, "") for path in paths if not path.startswith("data/inputs/")}
        return None if "" in made else sorted(one for one in made if one.partition("@")[0] not in SHARED)
