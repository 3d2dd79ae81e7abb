"""`roads reproduce`: a commit's results, made or restored again by that commit's own code, beside what it recorded.

The code runs in a git worktree, with MLflow's and Prefect's databases in there too. Its dvc.lock is not there while it
runs: what is restored is what a run made from the same inputs, and not whatever has the recorded name. All bytes are
hashed at the end, by today's code.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows import kept
from flows.alone import alone
from flows.pipeline.content import content, digest
from flows.pipeline.digested import COMMAND
from flows.pipeline.graph import Graph
from flows.pipeline.restoring import remove
from flows.plan import matching
from flows.provenance import environments, origins, promised
from flows.provenance.checkouts import Commit, add, carry_out, named, share, surroundings
from flows.provenance.checkouts import remove as remove_worktree
from flows.provenance.making import FILE, MADE, differing, here, listing
from flows.provenance.recorded import amount
from flows.schedule import last_error
from stages.records import machine
from stages.records.errors import UserError

FOLDER = Path(".roads/reproduce")
EQUAL, DIFFERENT, MISSING, UNRECORDED = "equal", "different", "missing", "not recorded by this commit's code"
MISTAKE = 2  # exit code of a run that could not begin


def reproduce(project: Path, name: str, study: str | None, stages: list[str], cold: bool, own: bool) -> dict[str, Any]:
    """What came of it, as `roads reproduce --json` prints it; ``own``: with an environment of the commit's lock.

    "outs" has for each out its stage, path, state, recorded and found hash, and "how" it was had or "why" it is not
    equal. Raises UserError where it cannot be tried, KeyboardInterrupt where a signal ended it.
    """
    commit, record = promised.record(project, named(project, name), study)
    folder = project / FOLDER / "-".join(filter(None, [commit.short, study, "cold" if cold else ""]))
    with alone(folder):
        root = add(project, commit, folder / "checkout")
        try:
            others = environments.unlike(root)
            if others and not own:
                raise UserError(
                    f"requirements.lock of {commit.short} has other packages than {sys.prefix}: {', '.join(others)}; "
                    "--environment makes an environment of that lock, and uses it."
                )
            python = environments.python(project, root) if own else Path(sys.executable)
            found = Attempt(project, commit, study, record, folder, root, python).carry_out(stages, cold)
        except UserError:
            remove_worktree(project, folder / "checkout")
            raise
        if found["reproduced"]:
            remove_worktree(project, folder / "checkout")
            shutil.rmtree(folder, ignore_errors=True)
        found["kept"] = None if found["reproduced"] else str((folder / "checkout").relative_to(project))
    return found


class Attempt:
    """One attempt, in the worktree ``root`` of ``commit`` in ``folder``."""

    def __init__(
        self,
        project: Path,
        commit: Commit,
        study: str | None,
        record: promised.Record,
        folder: Path,
        root: Path,
        python: Path,
    ) -> None:
        self.project, self.commit, self.study, self.record = project, commit, study, record
        self.folder, self.root, self.python = folder, root, python
        self.log = folder / "log"
        self.environment = surroundings() | {"ALL_ROADS_SCRATCH": str(folder / "checkpoints")}  # a second try goes on
        # `roads` ends all that has its mark, and so would our watchdog the watchdog of the `roads` that it runs
        self.roads = ["env", "-u", "ALL_ROADS_RUN", str(python), "-m", "flows"]

    def carry_out(self, stages: list[str], cold: bool) -> dict[str, Any]:
        """What came of it; see ``reproduce``."""
        share(self.project, self.root)
        (self.root / "dvc.lock").unlink(missing_ok=True)
        if self.study:
            self._do([*self.roads, "study", self.study], self.root)
        where = self.root / "runs" / self.study if self.study else self.root
        with contextlib.chdir(where):  # DVC names stages as seen from the current folder
            return self._in(where, stages, cold)

    def _in(self, where: Path, stages: list[str], cold: bool) -> dict[str, Any]:
        graph = self._graph(where)
        if any(stage.command == COMMAND for stage in graph.stages.values()):
            self._do([str(self.python), *COMMAND.split()[1:]], where)
        record = self.record
        why = promised.by_record(graph, record.study) if self.study else promised.by_lock(graph, record.stages)
        names = _wanted(graph, stages)
        able = [name for name in names if not why[name] and graph.stages[name].command]
        tracked = [name for name in names if not graph.stages[name].command]
        self._clear(graph, names)
        self._fetch(graph, tracked if cold else [*able, *tracked])
        graph.bring_tracked(tracked)
        code = self._run(able, cold) if able else 0
        share(self.project, where)
        graph = self._graph(where)
        outs = self._compared(graph, names, why, record.stages.keys() - graph.stages.keys() if not stages else ())
        if code == MISTAKE and all(out["state"] in (MISSING, UNRECORDED) for out in outs):
            raise UserError(f"{self.commit.short} cannot be reproduced here: {last_error(self.log)}")
        if code == 0:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return {
            "commit": self.commit.hash,
            "short": self.commit.short,
            "said": self.commit.said,
            "study": self.study,
            "cold": cold,
            "reproduced": bool(outs) and all(out["state"] == EQUAL for out in outs),
            "clean": record.study.get("clean"),
            "platforms": self._platforms(able),
            "outs": outs,
        }

    def _run(self, names: list[str], cold: bool) -> int:
        """The exit code of the commit's own `roads run`."""
        if cold:
            share(self.project, self.root, self.folder / "cache")
        chosen = ["--stages", ",".join(names), *(["--study", self.study] if self.study else [])]
        return carry_out([*self.roads, "run", *chosen], self.root, self.environment, self.log)

    def _graph(self, where: Path) -> Graph:
        graph = Graph(where, publishing=bool(self.study))
        graph.tell = lambda sentence: print(sentence, file=sys.stderr)
        return graph

    def _do(self, argv: list[str], where: Path) -> None:
        if carry_out(argv, where, self.environment, self.log):
            raise UserError(f"{self.commit.short} cannot be reproduced here: {last_error(self.log)}")

    def _clear(self, graph: Graph, names: list[str]) -> None:
        """Remove what git has of the stages' outs: it would count as made."""
        for name in (name for name in names if graph.stages[name].command not in (None, COMMAND)):
            for out in graph.dvc_stage(name).outs:
                place = Path(out.fs_path)
                if not place.parent.resolve().is_relative_to(graph.root):
                    raise UserError(f"dvc.yaml of {self.commit.short}: {name} makes {place}, outside of the project.")
                remove(place)

    def _fetch(self, graph: Graph, names: list[str]) -> None:
        """Get from the project's default remote, if it has one, what its cache lacks; the rest is computed."""
        from dvc.repo import Repo
        from dvc_data.hashfile.hash_info import HashInfo

        outs = [out for name in names for out in graph.dvc_stage(name).outs]
        inputs = {out.hash_info.value for out in outs if out.hash_info}
        results = {self.record.hashes.get(out.def_path) for out in outs if out.use_cache}
        with Repo(str(self.project)) as repo:
            if not repo.config["core"].get("remote"):
                return
            try:
                repo.stage_cache.pull(None)
                repo.cloud.pull([HashInfo("md5", value) for value in inputs | results if value])
            except Exception as error:  # no network, for example
                print(f"warning: The remote gave not all ({error}); the rest is computed.", file=sys.stderr)

    def _compared(self, graph: Graph, names: list[str], why: dict[str, str], gone: Iterable[str]) -> list[dict]:
        """One entry for each recorded out."""
        outs = [
            self._one(graph, name, out, why[name])
            for name in names
            if graph.stages[name].command
            for out in graph.dvc_stage(name).outs
            if not self.study or out.def_path in self.record.hashes
        ]
        for name in sorted(gone):
            for out in self.record.stages[name]["outs"]:
                outs.append(_row(name, out["path"], UNRECORDED, out["md5"], None, why="dvc.yaml has no such stage"))
        if self.study:
            made = {out.def_path for name in graph.stages for out in graph.dvc_stage(name).outs}
            for path, value in sorted(self.record.hashes.items()):
                if path not in made:
                    outs.append(_row("", path, UNRECORDED, value, None, why="no stage makes it"))
        return outs

    def _one(self, graph: Graph, name: str, out: Any, why: str) -> dict[str, Any]:
        recorded = self.record.hashes.get(out.def_path)
        found = digest(content(out)) if out.exists else None
        if found and found == recorded:
            made = list(graph.root.glob(f".roads/logs/*/{name.replace('/', '_')}.log"))
            how = "computed" if made or graph.stages[name].command == COMMAND else "restored"
            return _row(name, out.def_path, EQUAL, recorded, found, how=how)
        if why:
            return _row(name, out.def_path, UNRECORDED, recorded, found, why=why)
        if not found:
            return _row(name, out.def_path, MISSING, recorded, None, why="it was not made")
        size = amount(graph, {out.def_path: recorded}, published=self.record.places)
        return _row(name, out.def_path, DIFFERENT, recorded, found, why=size)

    def _platforms(self, names: list[str]) -> dict[str, list[str]]:
        """How the platform of the record differs from this one -> the stages it is so of; "unknown" where none is on
        record."""
        made = kept.parsed(self.commit.read(self.project, str(FILE)) or b"", MADE) or {}
        ours = environments.facts(self.python, self.project) if self.python != Path(sys.executable) else {}
        apart: dict[str, list[str]] = {}
        for name in names:
            if self.study:
                then = list(self.record.study["made"]["platforms"].values())
            else:
                entry = listing(made, self.record.stages[name])
                then = [entry["platform"]] if entry else []
            pairs = [(machine.deciding(one), machine.deciding(here(one) | _of_python(ours))) for one in then]
            if not any(before == now for before, now in pairs):
                apart.setdefault(differing(*pairs[0]) if pairs else origins.UNKNOWN, []).append(name)
        return apart


def _of_python(facts: dict[str, str]) -> dict[str, str]:
    return {name: facts[name] for name in ("python", "torch") if name in facts}


def _row(stage: str, path: str, state: str, recorded: str | None, found: str | None, **more: str) -> dict[str, Any]:
    return {"stage": stage, "path": path, "state": state, "recorded": recorded, "found": found, **more}


def _wanted(graph: Graph, stages: list[str]) -> list[str]:
    """The stages of these names and all that they need, in the graph's order; without names all."""
    wanted = matching(graph, stages, "--stages") if stages else set(graph.stages)
    for stage in reversed(graph.stages.values()):
        if stage.name in wanted:
            wanted.update(stage.upstream)
    return [name for name in graph.stages if name in wanted]
