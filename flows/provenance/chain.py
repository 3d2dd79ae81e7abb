"""The chain from a result back to raw data, link by link: what proves each stage, and where that breaks off.

A link is a stage with its statement. It holds if a key that the verifier trusts has signed the statement, if that is
about what is recorded (name, command, params, files read and made), if every file that it read is what another link
made or a declared source, and if the code was that of a commit. Files are compared by SHA-256; MD5 only finds the
statement that belongs to an entry of dvc.lock. Each link is judged by itself, so that a fault shows where it is.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flows import kept
from flows.pipeline.graph import Graph
from flows.pipeline.reading import overlap
from flows.pipeline.stated import File, Stated
from flows.pipeline.verify import Found
from flows.provenance import keys, replicates, statements
from flows.provenance.publishing import BESIDE, FILES, LISTING
from flows.provenance.sources import Sources
from stages.records.artifacts import PUBLISHED, sha256
from stages.records.errors import UserError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PROVEN, BYTES, NONE, OTHER, DAMAGED = "proven", "bytes differ", "no statement", "other statement", "damaged statement"
UNSIGNED, STRANGE, COMMIT, DIRTY = "unsigned", "signed by an unknown key", "commit unknown", "tree not clean"
NOWHERE, UNMADE, STALE = "input from nowhere", "not made", "out of date"
KINDS = (BYTES, DAMAGED, OTHER, UNMADE, NONE, UNSIGNED, STRANGE, COMMIT, DIRTY, NOWHERE, STALE, PROVEN)
SIGNATURES = {keys.UNSIGNED: UNSIGNED, keys.STRANGE: STRANGE, keys.FORGED: DAMAGED}


@dataclass(frozen=True)
class Link:
    """What became of one stage. ``why``: what is wrong, in words; ``key``: the id of the key that signed."""

    stage: str
    kind: str  # of KINDS
    why: str = ""
    stated: Stated | None = None
    key: str = ""


def of_graph(
    graph: Graph, names: Collection[str], found: Found, trusted: Mapping[str, "SSlibKey"], sources: Sources
) -> list[Link]:
    """A link for each of the stages ``names``, with which all that they come from is among them; ``found``: what
    hashing their outs has come to."""
    names = [name for name in names if graph.stages[name].command]
    records = {name: graph.record(name) for name in names}
    chosen, faults = {}, {}
    for name in names:
        there, wrong = statements.read(graph, name)
        unlike = [(one, statements.unlike(one, records[name])) for one in there]
        if fitting := [one for one, how in unlike if not how]:
            chosen[name] = keys.best(fitting, trusted)
        elif not all(out["md5"] for out in records[name]["outs"]):
            faults[name] = Link(name, UNMADE)
        elif there:
            faults[name] = Link(name, OTHER, f"the last is about {unlike[-1][1]}")
        else:
            faults[name] = Link(name, DAMAGED if wrong else NONE)
    silent = {out["path"] for name in faults for out in records[name]["outs"]}
    judge = Judge(chosen, silent, trusted, sources)
    links = [faults[name] if name in faults else judge(chosen[name]) for name in names]
    differing = [out.def_path for name in found.differing for out in graph.dvc_stage(name).outs]
    stale = {name for name, said in graph.status().items() if not all(_about_bytes(one, differing) for one in said)}
    return [_as_it_lies(link, found, judge.made, stale) for link in links]


def of_published(folder: Path, trusted: Mapping[str, "SSlibKey"], sources: Sources) -> list[Link]:
    """A link for each stage of a published study that a statement tells of, and for each file and artifact that is not
    what its statement tells of, or of which none does.

    The statements are in the study's folder, those of what one replicate goes back to beside the replicate; the report,
    the evidence and the replicates are the only bytes that are here. Of a study that still runs, there are replicates
    alone. Raises UserError for files that cannot be read.
    """
    stated, study = statements.unpack(folder / statements.PUBLISHED), str(PUBLISHED / folder.name)
    packs = {of: replicates.pack(folder, of) for of in replicates.names(folder)}
    whole = (folder / "evidence.json").exists()
    if not any([stated, *packs.values()]) or (whole and not stated):
        return [Link(study, NONE, "it was published without")]
    made: dict[str, File] = {}
    for one in (one for pack in (*packs.values(), stated) for one in pack.values()):
        made |= one.outs
    unlike = [at for of, pack in packs.items() for at in replicates.unlike(folder, of, pack)]
    links = [Link(f"{study}/{place}", BYTES, why) for place, why in unlike]
    links += _of_whole(folder, made) if whole else []
    told = {replicates.FOLDER, *(FILES if whole else ()), *(BESIDE if whole else ())}
    strays = sorted(path.name for path in folder.iterdir() if path.name not in told)
    links += [Link(f"{study}/{name}", NONE, "a published study has no such file") for name in strays]
    silent = {link.stage for link in links if link.kind == NONE}
    copies, judged = replicates.copies(folder).items(), {}
    read = {f"{study}/{copy}": made[out] for out, copy in copies if out in made}
    for pack in (*packs.values(), stated):
        judge = Judge(pack, silent, trusted, sources, read)
        judged |= {one.sha256: judge(one) for one in pack.values()}
    return [*links, *judged.values()]


def _of_whole(folder: Path, made: Mapping[str, File]) -> Iterator[Link]:
    """A link for each file, and each artifact listed, of a study that was published as a whole that is not what its
    statement tells of, or of which none does. ``made``: what statements tell of."""
    study = PUBLISHED / folder.name
    for name, path in FILES.items():
        if path not in made:
            yield Link(f"{study}/{name}", NONE)
        elif not (folder / name).is_file() or sha256(folder / name) != made[path].sha256:
            yield Link(f"{study}/{name}", BYTES, "it is not what its statement tells of")
    artifacts = kept.read(folder / LISTING, {str: str})
    if artifacts is None:
        raise UserError(f"{study}/{LISTING} cannot be read: `git checkout -- {study}` brings it back.")
    for path, recorded in sorted(artifacts.items()):
        within = {name: file for name, file in made.items() if name == path or name.startswith(f"{path}/")}
        if not within:
            yield Link(path, NONE)
        elif statements.other(within, [{"path": path, "md5": recorded.removeprefix("md5 ")}]):
            yield Link(path, BYTES, f"{study}/{LISTING} has another hash of it than its statement")


class Judge:
    """Says of a statement what link it makes, beside the others of its chain (``stated``, by their stages)."""

    def __init__(
        self,
        stated: Mapping[str, Stated],
        silent: Collection[str],
        trusted: Mapping[str, "SSlibKey"],
        sources: Sources,
        copies: Mapping[str, File] = MappingProxyType({}),
    ) -> None:
        """``silent``: the outs of which no statement tells; that they lack one is a link of its own. ``copies``: what
        lies in a published study of what other statements tell of."""
        self.made = {name: ("the stage of a replicate", file.sha256) for name, file in copies.items()}
        self.made |= {name: (stage, file.sha256) for stage, one in stated.items() for name, file in one.outs.items()}
        self.silent, self.trusted, self.sources = silent, trusted, sources

    def __call__(self, one: Stated) -> Link:
        """The link, its kind the first of KINDS that is so."""
        how, key = keys.signature(one, self.trusted)
        commit = one.commit[:7]
        if how != keys.SIGNED:
            why = {keys.FORGED: f"that of {one.sha256} is none of the key {key[:16]}", keys.STRANGE: f"key {key[:16]}"}
            return Link(one.stage, SIGNATURES[how], why.get(how, ""), one, key)
        if not self.sources.has(one.commit):
            return Link(one.stage, COMMIT, f"it names {commit}; {self.sources.unknown}", one, key)
        if not one.clean:
            return Link(one.stage, DIRTY, f"at {commit}", one, key)
        for name in one.inputs:
            if unaccounted := self._unaccounted(one, name):
                return Link(one.stage, NOWHERE, unaccounted, one, key)
        if other := [name for name in one.code if not self.sources.has_file(one, name, one.code[name])]:
            return Link(one.stage, NOWHERE, f"it ran a {other[0]} that commit {commit} does not have", one, key)
        return Link(one.stage, PROVEN, "", one, key)

    def _unaccounted(self, one: Stated, name: str) -> str:
        """What is wrong with a file that was read, in words; "" if nothing is."""
        if name in self.made:
            maker, made = self.made[name]
            return "" if made == one.inputs[name].sha256 else f"it read another {name} than {maker} has made"
        silent = not {name, *map(str, Path(name).parents)}.isdisjoint(self.silent)
        if silent or self.sources.has_file(one, name, one.inputs[name]):
            return ""
        return f"it read a {name} that no stage made and that commit {one.commit[:7]} does not have"


def _about_bytes(said: Any, differing: list[str]) -> bool:
    """Whether what DVC's status has of a stage is about its own outs or those that differ: hashing tells more."""
    if not isinstance(said, dict) or not said.keys() <= {"changed outs", "changed deps"}:
        return False
    return all(any(overlap(Path(path), Path(out)) for out in differing) for path in said.get("changed deps", {}))


def _as_it_lies(link: Link, found: Found, made: Collection[str], stale: Collection[str]) -> Link:
    """The link, or that it is about other bytes than those here, or about other params, code or data than today's:
    whoever puts back an old result with its old record has genuine statements of it."""
    stated, how = link.stated, (link.stated, link.key)
    files = {**{n: f for n, f in stated.inputs.items() if n not in made}, **stated.outs} if stated else {}
    if link.stage in found.differing:
        return Link(link.stage, BYTES, "", *how)
    if other := [name for name, file in files.items() if found.sha256.get(name, file.sha256) != file.sha256]:
        return Link(link.stage, BYTES, f"{other[0]} has not the SHA-256 that is stated", *how)
    return Link(link.stage, STALE, "", *how) if link.kind == PROVEN and link.stage in stale else link
