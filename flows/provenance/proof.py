"""What `roads verify` answers: whether bytes are as recorded, and whether a chain of statements proves them."""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from flows.pipeline.changes import some
from flows.pipeline.graph import Graph, upstream
from flows.pipeline.reading import overlap
from flows.pipeline.verify import Found, unlike_published, verify
from flows.places import MIRRORED
from flows.provenance import chain, keys, replicates, statements
from flows.provenance.chain import Link
from flows.provenance.making import counted
from flows.provenance.sources import Sources
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

HERE = "this study"
MEANING = {  # of a kind of link, with what to do about it
    chain.BYTES: "what lies here is not what is recorded or stated",
    chain.DAMAGED: "the statement was changed, or signed by somebody else in the name of a key that you trust",
    chain.OTHER: "there are statements, but none of them is about what is recorded",
    chain.UNMADE: "`roads run` makes it",
    chain.NONE: "made without a statement; nothing is signed afterwards, so only running it again, as by `roads run "
    "--force STAGE`, gives it one",
    chain.UNSIGNED: "anybody could have written the statement: after `roads keys new`, what runs is signed",
    chain.STRANGE: "if you know whose key that is, get it from its owner, not from this repository, and run "
    "`roads keys trust FILE`",
    chain.COMMIT: "git does not have the commit that the statement names",
    chain.DIRTY: "the code was not that of a commit: commit it, and run `roads run --force STAGE`",
    chain.STALE: "recorded with another command, other params or inputs than there are now, as `roads status` says",
    chain.NOWHERE: "what it read is no other stage's work and no declared source",
}


@dataclass(frozen=True)
class Proof:
    """The answer: what is wrong with bytes, and the links of the chains that were asked for, by study."""

    wrong: list[str]
    summary: str
    chains: dict[str, list[Link]]

    @property
    def links(self) -> list[Link]:
        """Those of all chains."""
        return [link for links in self.chains.values() for link in links]

    @property
    def right(self) -> bool:
        """Whether all bytes are right and all links hold."""
        return not self.wrong and all(link.kind == chain.PROVEN for link in self.links)


def prove(graph: Graph, path: str | None, everything: bool, links: bool) -> Proof:
    """The proof of a ``path`` (a stage, an out, a file in one, a published study), or of all stages and all published
    studies; with ``everything`` DVC's cache is hashed too. Without ``links`` only bytes are compared.

    Raises UserError for a path that nothing has made.
    """
    place, own = _place(graph, path), graph.root.name if (graph.root / MIRRORED).exists() else None
    checkout = graph.root.parents[1] if own else graph.root
    published = replicates.studies(graph.root)
    studies = [folder for folder in published if place and _is_at(graph.root / place, folder)]
    names = [] if studies else upstream(graph.stages, _made(graph, place) if place else graph.stages)
    if any(dep.fs_path == str(graph.root / PUBLISHED) for name in names for dep in graph.dvc_stage(name).deps):
        studies = published
    found = verify(graph, None if everything else {*names}) if names else Found([], _hashed(studies), set(), {})
    if place and not studies and place not in found.sha256 and (graph.root / place).is_file():
        raise UserError(f"{place} is none of the files that are recorded: name one, or a stage.")
    wrong = list(found.wrong)
    wrong += [said for study in studies if not everything for said in unlike_published(graph.root, study.name)]
    wrong += statements.collect(graph.root, statements.cache(graph))
    wrong += [said for name in names for said in statements.read(graph, name)[1]]
    chains: dict[str, list[Link]] = {}
    if links:
        trusted = keys.trusted(checkout)
        if names:
            with contextlib.closing(Sources(checkout, own)) as sources:
                chains[HERE] = chain.of_graph(graph, names, found, trusted, sources)
        for study in studies:
            with contextlib.closing(Sources(checkout, study.name, replicates.restored(study))) as sources:
                chains[str(study.relative_to(graph.root))] = chain.of_published(study, trusted, sources)
    return Proof(wrong, found.summary, chains)


def _hashed(studies: list[Path]) -> str:
    return f"The files of {some([f'{PUBLISHED / study.name}' for study in studies])} were hashed."


def _place(graph: Graph, path: str | None) -> str | None:
    """A path as the project has it, however it is written."""
    if path is None or path in graph.stages:
        return path
    return os.path.relpath(graph.root / path, graph.root)


def _is_at(path: Path, published: Path) -> bool:
    """Whether a path is a published study, something in it, or the folder of all of them."""
    return path.exists() and overlap(path, published) and published.parent in (path, *path.parents)


def _made(graph: Graph, place: str) -> list[str]:
    """The stages that a place names: itself, all of its group, or those that made what lies there."""
    if found := [name for name, stage in graph.stages.items() if place in (name, stage.group)]:
        return found
    outs = {out.fs_path: name for name in graph.stages for out in graph.dvc_stage(name).outs}
    at = graph.root / place
    makers = sorted({name for path, name in outs.items() if overlap(Path(path), at)})
    if makers and (str(at) in outs or at.exists()):
        return makers
    near = get_close_matches(place, [*graph.stages, *(os.path.relpath(path, graph.root) for path in outs)], 1, 0.0)
    raise UserError(f"{place} is no stage and nothing that one has made; the nearest is {', '.join(near) or 'none'}.")


def words(proof: Proof) -> list[str]:
    """The answer in lines: what is wrong, a table of counts, a sentence for each kind of link, and the sum of it."""
    lines = [*proof.wrong, *filter(None, [proof.summary])]
    if not proof.chains:
        return lines
    if not proof.links:
        return [*lines, f"Raw data, which no stage made: its bytes are {'not ' if proof.wrong else ''}as recorded."]
    by_kind = {kind: [link for link in proof.links if link.kind == kind] for kind in chain.KINDS}
    kinds, first = [kind for kind in reversed(by_kind) if by_kind[kind]], max(map(len, ["stages", *proof.chains]))
    lines.append("  ".join(["stages".ljust(first), *kinds]))
    for name, links in proof.chains.items():
        counts = Counter(link.kind for link in links)
        lines.append("  ".join([name.ljust(first), *(str(counts[kind] or "-").rjust(len(kind)) for kind in kinds)]))
    lines += [_sentence(kind, links) for kind, links in by_kind.items() if links]
    total, good = counted(len(proof.links), "stage"), len(by_kind[chain.PROVEN])
    if proof.right:
        return [*lines, f"Proven: {total}, back to what git has on record."]
    return [*lines, f"Not proven: {good} of {total}, and {'not ' if proof.wrong else ''}all bytes are as recorded."]


def _sentence(kind: str, links: list[Link]) -> str:
    """unsigned: base@gap, offline@gap-0, report and 3 more: ..."""
    which = f"{kind}: {some([link.stage for link in links])}"
    if kind == chain.PROVEN:
        by = some(sorted({link.key[:16] for link in links}))
        return f"{which}: signed by {by}; the code of {some(sorted({link.stated.commit[:7] for link in links}))}."
    why = next((f" ({link.why})" for link in links if link.why), "")
    return f"{which}{why}: {MEANING[kind]}."


def plain(proof: Proof) -> dict[str, Any]:
    """The answer for programs."""
    return {
        "right": proof.right,
        "bytes": {"wrong": proof.wrong, "summary": proof.summary},
        "counts": Counter(link.kind for link in proof.links),
        "chains": {name: [_plain(link) for link in links] for name, links in proof.chains.items()},
    }


def _plain(link: Link) -> dict[str, str]:
    stated = link.stated
    about = {"commit": stated.commit, "finished": stated.finished, "statement": stated.sha256} if stated else {}
    return {"stage": link.stage, "kind": link.kind, "why": link.why, "key": link.key, **about}
