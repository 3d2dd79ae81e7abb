"""What git says of claims: when each was declared, and the first results that it could have seen.

A claim is what decides it (stages/evidence/claims/contrasts.identity), not its words. Its results could be seen from
the first commit on in which its study, or the replicates that it has published so far, have every arm of its contrast
for one seed, or in which the record of another study, or dvc.lock, has the very same artifacts (a study that was
renamed, or that shares a setting). Only seeds that the study has now count: what others had shown says nothing of what
these draw. It is in time if it stood in the project's files just before each such commit. The order of commits counts,
and no date does.

Claims stand in the file of their study, studies/NAME.yaml; of older commits in params.yaml, with all studies and their
settings. In which of the two a claim stands is no part of it. What a study is and the numbers of its settings are
compared within either of the two only: a commit that moves them shows no change.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.provenance.history import NOW, History
from flows.provenance.versions import (
    Cells,
    Declared,
    Published,
    Version,
    declarations,
    measured,
    numbers,
    published,
    shown,
)
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError

SOURCES = ("params.yaml", "studies/*.yaml")  # the files that declare claims
STUDY = re.compile(r"studies/(\w+)\.yaml")
RECORDS = ("dvc.lock", f"{PUBLISHED}/*/artifacts.json", f"{PUBLISHED}/*/replicates/*.json")  # of artifacts' hashes
RECORD = re.compile(r"^dvc\.lock$|/artifacts\.json$|/replicates/[^/]+$")  # one of them
MANIFEST = re.compile(r"/replicates/(\w+)-(\d+)/manifest\.json$")  # of what is shown of a setting and seed
RESULTS = (f"{PUBLISHED}/*/evidence.json", f"{PUBLISHED}/*/replicates/*/manifest.json")
SHOWN = re.compile(rf"{RECORD.pattern}|{MANIFEST.pattern}|/evidence\.json$")  # a record, or results
HASH = re.compile(rb"[0-9a-f]{32}(?:\.dir)?")


class Past:
    """What each commit says of claims and of results. A version of a file is read once."""

    def __init__(self, project: Path) -> None:
        self.history = History.read(project, [*SOURCES, *RECORDS, *RESULTS])
        self.commits = self.history.commits
        self._known: dict[tuple, Any] = {}

    @cached_property
    def declared(self) -> dict[str, dict[str, Declared]]:
        """Commit -> identity -> the claim."""
        return {
            commit: {
                identity: claim
                for version in self._versions(commit).values()
                for identity, claim in version.claims.items()
            }
            for commit in self.commits
        }

    def standing(self, identity: str) -> set[str]:
        """The commits in which a claim is declared."""
        return {commit for commit, claims in self.declared.items() if identity in claims}

    def showing(self, claim: Declared) -> set[str]:
        """The commits whose reader could have seen what decides the claim."""

        def found() -> set[str]:
            showing = {state: self._shows(state, claim) for state in self._moments}
            return {commit for commit, state in self._states.items() if showing[state]}

        return self._once(found, "showing", claim.identity)

    @cached_property
    def _states(self) -> dict[str, str]:
        """Commit -> the first commit with the same results and records, as most commits touch none of them."""
        first: dict[frozenset, str] = {}
        shown = {c: frozenset(at for at in of.files.items() if SHOWN.search(at[0])) for c, of in self.commits.items()}
        return {commit: first.setdefault(files, commit) for commit, files in shown.items()}

    @property
    def _moments(self) -> Iterable[str]:
        """Those first commits, in the order of history."""
        return dict.fromkeys(self._states.values())

    def publications(self, study: str) -> list[tuple[str, Published]]:
        """The commits that changed what a study has published of a seed that it has now, and what it was then."""
        ours = self._seeds(study)
        return [(c, at) for c, at in self._published(study) if not ours or not at.seeds or ours.intersection(at.seeds)]

    def former(self, study: str) -> list[tuple[str, Published]]:
        """The same of what it has published of other seeds alone."""
        ours = self.publications(study)
        return [one for one in self._published(study) if one not in ours]

    def remade(self, claim: Declared) -> list[str]:
        """The commits that showed other numbers of a replicate that decides a claim than one before had shown."""
        ours, asked = self._seeds(claim.study), claim.asked
        seen, found = set[tuple](), list[str]()
        for commit in self._moments:
            records = [path for path in self._replicated(commit, claim.study) if RECORD.search(path)]
            new = {one for path in records for one in self._of(commit, path, measured)} - seen
            new = {(c, d) for c, d in new if c[1] in ours and {("", c[2]), (c[0], c[2])} & asked}
            if {cell for cell, _ in new} & {cell for cell, _ in seen}:
                found.append(commit)
            seen |= new
        return found

    def names(self, study: str) -> set[str]:
        """The arms and reward models that a study has published as it is now; none where it has published nothing.

        Raises UserError where that cannot be read.
        """
        found: Published | None = self._of(NOW, _results(study), published)
        if found and found.cells is None:
            raise UserError(f"{_results(study)} cannot be read: bring it back from git.")
        return {name for _, _, name in found.cells} if found else set()

    def looks(self, claim: Declared) -> list[tuple[str, Published]]:
        """Those publications that decided a claim by numbers that none before them had."""

        def found() -> list[tuple[str, Published]]:
            looks, before = [], []
            for commit, at in self.publications(claim.study):
                numbers = at.deciding(claim)
                if numbers.seeds and not any(map(numbers.same, before)):
                    looks.append((commit, at))
                    before.append(numbers)
            return looks

        return self._once(found, "looks", claim.identity)

    def anew(self, study: str) -> list[str]:
        """The publications of a study with the seeds of one before."""
        seeds = [at.seeds for _, at in self.publications(study)]
        return [c for i, (c, at) in enumerate(self.publications(study)) if at.seeds and at.seeds in seeds[:i]]

    def tuned(self, study: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """The commits between a claim and a publication that changed settings of its study; (key, setting) of each."""
        order, shown = list(self.commits), [commit for commit, _ in self.publications(study)]
        upto = order[: order.index(shown[-1]) + 1] if shown else []
        return self._changed(upto, study, {commit: self._settings(commit, study) for commit in upto})

    def changes(self, study: str) -> list[tuple[str, list[str]]]:
        """The commits that changed a study of which a claim stood, and which of its keys."""
        found = {commit: self._versions(commit) for commit in self.commits}
        sections = {
            c: {path: v.studies[study] for path, v in of.items() if study in v.studies} for c, of in found.items()
        }
        return self._changed(list(self.commits), study, sections)

    def _changed(self, commits: list[str], study: str, at: dict[str, dict[str, dict]]) -> list[tuple[str, list]]:
        """Those of the commits that changed something while a claim on the study stood, and the keys that changed.

        ``at``: commit -> file -> key -> value; only what the same file said before and after is compared.
        """
        found = []
        for commit in commits:
            standing = [p for p in self._parents(commit) if any(c.study == study for c in self.declared[p].values())]
            keys = [_differing(at[parent], at[commit]) for parent in standing]
            if keys and all(keys):
                found.append((commit, keys[0]))
        return found

    def firsts(self, commits: set[str]) -> list[str]:
        """Those of the commits of whose parents none is among them, in the order of history."""
        return [c for c in self.commits if c in commits and not commits.intersection(self._parents(c))]

    def in_time(self, claim: Declared) -> bool:
        """Whether it stood in a parent of every commit that was the first to show its results."""
        standing = self.standing(claim.identity)
        return all(standing.intersection(self._parents(c)) for c in self.firsts(self.showing(claim)))

    def begins_with(self, claim: Declared) -> bool:
        """Whether a commit without parents has both the claim and its results: git cannot tell which was first."""
        both = self.standing(claim.identity).intersection(self.firsts(self.showing(claim)))
        return any(not self.commits[commit].parents for commit in both)

    def families(self, claim: Declared) -> set[str]:
        """Those in which a claim that is in time stood when its results came first."""
        before = {parent for c in self.firsts(self.showing(claim))[:1] for parent in self._parents(c)}
        return {self.declared[commit][claim.identity].family for commit in self.standing(claim.identity) & before}

    def stood(self, claim: Declared) -> bool:
        """Whether it was declared at some time before its results came: first, or again after they had been removed."""
        standing = self.standing(claim.identity)
        return any(standing.intersection(self._parents(c)) for c in self.firsts(self.showing(claim)))

    def dropped(self, study: str) -> tuple[list[str], list[str]]:
        """The commits that showed replicates of seeds which a study has no more: beside seeds that it still has, and
        when it had others altogether."""
        ours, beside, former = self._seeds(study), list[str](), list[str]()
        for commit in self._moments:
            then, gone = self._seeds(study, commit), {seed for _, seed, _ in self._replicates(commit, study)} - ours
            if ours and gone:
                (beside if ours & then and gone & then else former).append(commit)
        return beside, former

    def end(self, claim: Declared) -> str:
        """The last commit that took a claim out."""
        standing = self.standing(claim.identity)
        return [c for c in self.commits if c not in standing and standing.intersection(self._parents(c))][-1]

    def at(self, commit: str) -> str:
        """A commit, for people."""
        found = self.commits[commit]
        return "now (not committed)" if commit == NOW else f"{found.short} ({found.date})"

    def _seeds(self, study: str, commit: str = NOW) -> frozenset[int]:
        """Those of a study, by its own file or, of older commits, by params.yaml; none where there is no such study, or
        it does not say."""
        versions = self._versions(commit)
        said = [versions[path] for path in (f"studies/{study}.yaml", SOURCES[0]) if path in versions]
        listed = next((version.studies[study].get("seeds") for version in said if study in version.studies), None)
        return frozenset(listed if isinstance(listed, list) else ())

    def _published(self, study: str) -> list[tuple[str, Published]]:
        """The commits that changed what a study has published as a whole, and what it was then."""
        at = {commit: self._of(commit, _results(study), published) for commit in self.commits}
        return [(c, found) for c, found in at.items() if found and all(at[p] != found for p in self._parents(c))]

    def _versions(self, commit: str) -> dict[str, Version]:
        """File -> what it declares."""
        found = {}
        for path in self.commits[commit].files:
            study = STUDY.fullmatch(path)
            if study or path == SOURCES[0]:
                found[path] = self._of(commit, path, declarations, *(study.groups() if study else ()))
        return found

    def _settings(self, commit: str, study: str) -> dict[str, dict[tuple[str, str], Any]]:
        """File -> the numbers of the settings of a study; those of a study's file rest on params.yaml as well."""
        versions = self._versions(commit).items()
        found = {path: version.of(study) for path, version in versions if study in version.studies and version.settings}
        files, path = self.commits[commit].files, f"studies/{study}.yaml"
        if path in files and SOURCES[0] in files:
            params, own = (self.history.content(commit, name) for name in (SOURCES[0], path))
            found[path] = self._once(lambda: numbers(params, own, study), path, files[SOURCES[0]], files[path])
        return found

    def _parents(self, commit: str) -> list[str]:
        """Without those that a shallow clone lacks."""
        return [parent for parent in self.commits[commit].parents if parent in self.commits]

    def _shows(self, commit: str, claim: Declared) -> bool:
        shown = self._of(commit, _results(claim.study), published)
        if shown and (shown.cells is None or self._decides(claim, shown.cells)):
            return True
        if self._decides(claim, self._replicates(commit, claim.study)):
            return True
        records = [path for path in self.commits[commit].files if RECORD.search(path)]
        return any(self._decides(claim, self._same(commit, path, claim.study)) for path in records)

    def _decides(self, claim: Declared, cells: Cells) -> bool:
        def found() -> bool:
            ours = self._seeds(claim.study)
            return claim.decided_by(frozenset(cell for cell in cells if not ours or cell[1] in ours))

        return self._once(found, claim.identity, cells)

    def _replicates(self, commit: str, study: str) -> Cells:
        """The arms and reward models of the replicates that a study had published by a commit, in part or whole."""
        paths, files = self._replicated(commit, study), self.commits[commit].files

        def found() -> Cells:
            cells: set = set()
            for path in paths:
                if of := MANIFEST.search(path):
                    cells |= self._of(commit, path, shown, *of.groups())
                else:
                    cells |= {cell for cell, _ in self._of(commit, path, measured)}
            return frozenset(cells)

        return self._once(found, study, *(files[path] for path in paths))

    def _replicated(self, commit: str, study: str) -> list[str]:
        """The files of these replicates that tell what they show."""
        return [path for path in self.commits[commit].files if path.startswith(f"{PUBLISHED}/{study}/replicates/")]

    def _same(self, commit: str, record: str, study: str) -> Cells:
        """What the study rests on today, of arms and reward models, that is in a record of that commit, by its hash."""
        below = f"{PUBLISHED}/{study}/"
        paths = [path for path in self.commits[NOW].files if path.startswith(below) and RECORD.search(path)]

        def found() -> Cells:
            ours = [one for path in paths for one in self._of(NOW, path, measured)]
            digests = {digest.decode() for digest in HASH.findall(self.history.content(commit, record))}
            return frozenset(cell for cell, digest in ours if digest in digests)

        return self._once(found, study, record, self.commits[commit].files[record])

    def _of(self, commit: str, path: str, read: Callable[..., Any], *more: str) -> Any:
        """``read`` of a file's content at a commit (and of ``more``); None if the file was not there."""
        version = self.commits[commit].files.get(path)
        return version and self._once(lambda: read(self.history.content(commit, path), *more), path, version, read)

    def _once(self, work: Callable[[], Any], *key: Any) -> Any:
        if key not in self._known:
            self._known[key] = work()
        return self._known[key]


def _differing(before: dict[str, dict], now: dict[str, dict]) -> list:
    """The keys of which a file says something else than before; of files that say something both times."""
    both = [(before[path], now[path]) for path in now if before.get(path) and now[path]]
    return list(dict.fromkeys(key for then, new in both for key in {**then, **new} if then.get(key) != new.get(key)))


def _results(study: str) -> str:
    return f"{PUBLISHED}/{study}/evidence.json"
