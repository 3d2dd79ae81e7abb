"""How results came to be: on which platform, at which commit, and when.

None of it is in an out of DVC's, so that outs can be equal elsewhere. What a run finds out about a result is kept in a
file of its own beside DVC's cache, which all studies share, so that a restored result has it too; and for the study
that is checked out in data/made.json, which git keeps beside dvc.lock. That holds nothing that differs between two
runs with equal results. A result without either (made by `dvc repro`, or written by hand) is of an unknown platform.
"""

import collections
import hashlib
import json
import os
import time
from pathlib import Path

from flows import kept
from flows.pipeline.changes import some
from flows.pipeline.graph import Graph
from flows.schedule import Outcome, Schedule
from stages.provenance.git import UNKNOWN
from stages.records import machine, numerics
from stages.records.artifacts import write_file

FILE = Path("data/made.json")
MAKING = {"platform": {str: str}, "commit": str, "clean": bool}  # a file beside the cache has a list of these
MADE = {
    "platforms": {str: {str: str}},
    "stages": {str: {"result": str, "platform": str, "commit": str, "clean": bool}},
}


def key(record: dict) -> str:
    """What makes two results the same: name, command, params, and hashes of deps and outs."""
    sides = {side: sorted((e["path"], e["md5"]) for e in record[side]) for side in ("deps", "outs")}
    text = json.dumps({**{k: record[k] for k in ("name", "cmd", "params")}, **sides}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def identity(platform: dict[str, str]) -> str:
    """A short name for a platform; ``platform`` as machine.facts gives it."""
    return hashlib.sha256(json.dumps(platform, sort_keys=True).encode()).hexdigest()[:12]


class Makings:
    """What is known of the results of a graph's stages. ``listen`` notes what a run makes, ``save`` keeps it."""

    def __init__(self, graph: Graph, source: tuple[str, bool] | None = None) -> None:
        """``source``: the commit and whether it is clean, as of the start of a run that makes something."""
        self.graph, self.source = graph, source
        self._folder = Path(graph.repo.cache.local_cache_dir) / "made"
        self._listed = kept.read(graph.root / FILE, MADE) or {}

    def of(self, name: str) -> list[dict]:
        """All makings of the stage's present result, the first one first: platform, commit, clean and, of those that
        this cache has seen, when and kernels. Empty if there are none on record."""
        record = self.graph.record(name)
        found, listed = self._read(key(record)), listing(self._listed, record)
        return found + ([listed] if listed and listed["platform"] not in [one["platform"] for one in found] else [])

    def listen(self, schedule: Schedule, name: str, outcome: Outcome | None) -> None:
        """A stage has started to run (None) or ended: what it made gets a making."""
        if outcome is None or outcome.state != "Completed":
            return
        last, need = _last_event(schedule.events(name)), schedule.needs[name]
        here = {
            "stage": name,
            "platform": machine.facts(need.gpu, numerics.environment(os.environ, need.numerics)),
            "commit": self.source[0],
            "clean": self.source[1],
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernels": last.get("kernels", {}) if last else {},
        }
        identical = key(self.graph.record(name))
        found = self._read(identical)
        if here["platform"] not in [one["platform"] for one in found]:
            write_file(self._folder / f"{identical}.json", json.dumps([*found, here], indent=1) + "\n")

    def save(self) -> None:
        """Write data/made.json: what made each stage of dvc.lock. Its word on a result that came out equal stays."""
        platforms, stages = {}, {}
        for name in (name for name, stage in self.graph.stages.items() if stage.command):
            record = self.graph.record(name)
            made = listing(self._listed, record) or next(iter(self.of(name)), None)
            if made:
                platform = identity(made["platform"])
                platforms[platform] = made["platform"]
                stages[name] = {"result": key(record)[:16], "platform": platform}
                stages[name] |= {"commit": made["commit"], "clean": made["clean"]}
        content = {"platforms": platforms, "stages": stages}
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        if content != self._listed and (stages or self._listed):
            write_file(self.graph.root / FILE, text)
        self._listed = content

    def told(self, names: list[str]) -> list[str]:
        """Lines about those of ``names`` (which are up to date) that were made on another platform, or on who knows
        which."""
        apart: dict[str, list[str]] = collections.defaultdict(list)
        for name in (name for name in names if self.graph.stages[name].command):
            made = self.of(name)
            pairs = [(machine.deciding(one["platform"]), machine.deciding(here(one["platform"]))) for one in made]
            if not any(then == now for then, now in pairs):
                apart[differing(*pairs[0]) if made else UNKNOWN].append(name)
        lines = []
        for how, stages in apart.items():
            which = f"{counted(len(stages), 'stage')} up to date ({some(stages)})"
            if how == UNKNOWN:
                lines.append(
                    f"{which}: not on record on which platform (made by `dvc repro`, or before this was kept)."
                )
            else:
                lines.append(f"{which}: made with {how}: --force makes them again, perhaps with other bytes.")
        return lines

    def _read(self, identical: str) -> list[dict]:
        return kept.read(self._folder / f"{identical}.json", [MAKING]) or []  # a damaged one is none on record


def listing(listed: dict, record: dict) -> dict | None:
    """The platform, commit and clean that a made.json (of the shape MADE, or empty) has for exactly this result."""
    entry = listed.get("stages", {}).get(record["name"])
    platform = entry and listed["platforms"].get(entry["platform"])
    if not platform or entry["result"] != key(record)[:16]:
        return None
    return {"platform": platform, "commit": entry["commit"], "clean": entry["clean"]}


def here(platform: dict[str, str]) -> dict[str, str]:
    """The facts of this machine, for a result that was made with the GPU and the numerics of a ``platform``."""
    kind = platform.get("numerics", numerics.NATIVE)
    return machine.facts("gpu" in platform, numerics.environment(os.environ, kind))


def differing(then: dict[str, str], now: dict[str, str]) -> str:
    """ATEN_CPU_CAPABILITY=avx2 (now none): in what one platform differs from another."""
    parts = []
    for name in sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name)):
        before, after = then.get(name, "none"), now.get(name, "none")
        if name == "instructions":  # of twenty, those that only one of them has
            sets = set(before.split()), set(after.split())
            before, after = (" ".join(sorted(one - other)) or "no more" for one, other in (sets, sets[::-1]))
        parts.append(f"{name}={before} (now {after})")
    return some(parts)


def counted(number: int, what: str) -> str:
    """1 stage, 2 stages"""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _last_event(path: Path) -> dict | None:
    """What the stage said at its end (stages/records/events.ended)."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "processor_seconds" in event.get("metrics", {}):
            return event
    return None
