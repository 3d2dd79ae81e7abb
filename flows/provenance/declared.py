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

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.provenance.history import NOW, History
from flows.provenance.looks import Deciding, deciding
from stages.evidence.claims import contrasts
from stages.records import resolver
from stages.records.artifacts import PUBLISHED
from stages.records.errors import UserError
from stages.records.params import Claim

SOURCES = ("params.yaml", "studies/*.yaml")  # the files that declare claims
STUDY = re.compile(r"studies/(\w+)\.yaml")
RECORDS = ("dvc.lock", f"{PUBLISHED}/*/artifacts.json", f"{PUBLISHED}/*/replicates/*.json")  # of artifacts' hashes
RECORD = re.compile(r"^dvc\.lock$|/artifacts\.json$|/replicates/")  # one of them
RESULTS = f"{PUBLISHED}/*/evidence.json"
SHOWN = re.compile(rf"{RECORD.pattern}|/evidence\.json$")  # a record, or results
FAMILY = Claim.model_fields["family"].default
HASH = re.compile(rb"[0-9a-f]{32}(?:\.dir)?")
MEASURED = re.compile(  # an arm, or a reward model
    rb'"data/(?:evaluation/(\w+)/(\d+)/(\w+)|judge/(\w+)/(\d+)/(\w+))": "md5 ([0-9a-f]{32}(?:\.dir)?)"'
)
Cell = tuple[str, int, str]  # setting, seed, arm or reward model
Cells = frozenset[Cell]


class Declared(NamedTuple):
    """What decides a claim, and the family that it was in."""

    study: str
    contrast: str
    measure: str
    expect: str
    margin: float
    name: str
    family: str

    @property
    def identity(self) -> str:
        return contrasts.identity(*self[:5])

    @property
    def whatever_study(self) -> str:
        """The identity but for the study's name."""
        return contrasts.identity("", *self[1:5])

    def decided_by(self, cells: Cells) -> bool:
        """Whether one seed has every arm of the contrast; of a fit, in two settings, so that a line has a slope."""
        terms, fit = contrasts.parse(self.contrast, self.measure), self.measure == contrasts.PER_GAP
        settings = {setting for setting, _, _ in cells} if fit else {""}
        for seed in {seed for _, seed, _ in cells}:
            points = [all((term.setting or s, seed, term.arm) in cells for term in terms) for s in settings]
            if sum(points) > fit:
                return True
        return False


class Version(NamedTuple):
    """What a version of a file declares."""

    claims: dict[str, Declared]  # by identity
    studies: dict[str, dict]
    settings: dict[str, dict]

    def of(self, study: str) -> dict[tuple[str, str], Any]:
        """(key, setting) -> each number of the settings that a study names, but for arms that it does not name."""
        names = {str(name) for listed in self.studies[study].values() if isinstance(listed, list) for name in listed}
        leaves = {(key, name): value for name in names for key, value in _leaves(self.settings.get(name, {}))}
        return {
            at: value for at, value in leaves.items() if at[0].split(".")[0] != "arms" or at[0].split(".")[1] in names
        }


class Published(NamedTuple):
    """What a study shows of itself: its numbers, the seeds, and the cells; None where that cannot be read any more."""

    content: Any
    seeds: tuple[int, ...]
    cells: Cells | None

    def deciding(self, claim: Declared) -> Deciding:
        """The numbers that decide a claim; none where they cannot be read any more."""
        try:
            return deciding(claim.contrast, claim.measure, self.content)
        except (KeyError, TypeError, AttributeError):
            return Deciding({}, {})


class Past:
    """What each commit says of claims and of results. A version of a file is read once."""

    def __init__(self, project: Path) -> None:
        self.history = History.read(project, [*SOURCES, *RECORDS, RESULTS])
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
            showing = {state: self._shows(state, claim) for state in dict.fromkeys(self._states.values())}
            return {commit for commit, state in self._states.items() if showing[state]}

        return self._once(found, "showing", claim.identity)

    @cached_property
    def _states(self) -> dict[str, str]:
        """Commit -> the first commit with the same results and records, as most commits touch none of them."""
        first: dict[frozenset, str] = {}
        shown = {c: frozenset(at for at in of.files.items() if SHOWN.search(at[0])) for c, of in self.commits.items()}
        return {commit: first.setdefault(files, commit) for commit, files in shown.items()}

    def publications(self, study: str) -> list[tuple[str, Published]]:
        """The commits that changed what a study has published of a seed that it has now, and what it was then."""
        ours = self._seeds(study)
        return [(c, at) for c, at in self._published(study) if not ours or not at.seeds or ours.intersection(at.seeds)]

    def former(self, study: str) -> list[tuple[str, Published]]:
        """The same of what it has published of other seeds alone."""
        ours = self.publications(study)
        return [one for one in self._published(study) if one not in ours]

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
        """Those in which a claim that is in time stood when its results came."""
        before = {parent for c in self.firsts(self.showing(claim)) for parent in self._parents(c)}
        return {self.declared[commit][claim.identity].family for commit in self.standing(claim.identity) & before}

    def end(self, claim: Declared) -> str:
        """The last commit that took a claim out."""
        standing = self.standing(claim.identity)
        return [c for c in self.commits if c not in standing and standing.intersection(self._parents(c))][-1]

    def at(self, commit: str) -> str:
        """A commit, for people."""
        found = self.commits[commit]
        return "now (not committed)" if commit == NOW else f"{found.short} ({found.date})"

    def _seeds(self, study: str) -> frozenset[int]:
        """Those that a study has now; none where there is no such study any more, or it does not say."""
        now = [version.studies[study] for version in self._versions(NOW).values() if study in version.studies]
        listed = now[0].get("seeds") if now else None
        return frozenset(listed if isinstance(listed, list) else ())

    def _published(self, study: str) -> list[tuple[str, Published]]:
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
        """The arms and reward models of the replicates that a study had published by a commit."""
        below, files = f"{PUBLISHED}/{study}/replicates/", self.commits[commit].files
        paths = [path for path in files if path.startswith(below)]

        def found() -> Cells:
            return frozenset(cell for path in paths for cell, _ in self._of(commit, path, measured))

        return self._once(found, study, *(files[path] for path in paths))

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


def declarations(content: bytes, study: str = "") -> Version:
    """What a version of params.yaml, or of the file of a study, declares, without the claims that today's contrasts
    cannot say. Settings only of params.yaml with studies, as a study's own are laid over those of another file."""
    if not study and b"claims:" not in content:
        return Version({}, {}, {})
    try:
        found = _load(content)
        claims = (found.get("claims", {}) if study else found["claims"]).items()
        studies = {study: dict(found["study"])} if study else dict(found["studies"])
        settings = {} if study else dict(found["settings"])
    except (YAMLError, LookupError, TypeError, AttributeError, ValueError):
        return Version({}, {}, {})
    declared = {}
    for name, given in claims:
        try:
            given = {"study": study, **given} if study else given
            claim = Declared(*(given[key] for key in Declared._fields[:5]), name, given.get("family", FAMILY))  # type: ignore[call-arg]
            declared[claim.identity] = claim
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return Version(declared, studies, settings)


def numbers(params: bytes, content: bytes, study: str) -> dict[tuple[str, str], Any]:
    """(key, setting) -> each number of the settings that a study names, resolved, by versions of params.yaml and of its
    file; nothing where the two do not go together."""
    try:
        found = resolver.resolve(resolver.prepared(_load(params), _load(content), study))["resolved"]
        return {
            (key, name): value for name in found["study"]["settings"] for key, value in _leaves(found["settings"][name])
        }
    except (UserError, YAMLError, LookupError, TypeError, AttributeError, ValueError):
        return {}


def _load(content: bytes) -> Any:
    return YAML(typ="safe").load(content)  # by the C loader, as there may be many versions


def _differing(before: dict[str, dict], now: dict[str, dict]) -> list:
    """The keys of which a file says something else than before; of files that say something both times."""
    both = [(before[path], now[path]) for path in now if before.get(path) and now[path]]
    return list(dict.fromkeys(key for then, new in both for key in {**then, **new} if then.get(key) != new.get(key)))


def _leaves(section: dict, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def measured(content: bytes) -> list[tuple[Cell, str]]:
    """Each arm or reward model in a version of artifacts.json, and the hash of its evaluation or of what judged it."""
    found = []
    for *parts, digest in MEASURED.findall(content):
        setting, seed, name = (part.decode() for part in parts if part)
        found.append(((setting, int(seed), name), digest.decode()))
    return found


def published(content: bytes) -> Published:
    """What a version of evidence.json shows."""
    try:
        found = json.loads(content)
        found.pop("platform", None)  # of former versions: where it ran is no result
        of_arms = ((cell["setting"], cell["seed"], cell["arm"]) for cell in found["cells"])
        of_models = ((cell["setting"], cell["seed"], cell["verifier"]) for cell in found.get("judged", []))
        cells = frozenset([*of_arms, *of_models])
        return Published(found, tuple(sorted(found["seeds"])), cells)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Published(content, (), None)


def _results(study: str) -> str:
    return f"{PUBLISHED}/{study}/evidence.json"
