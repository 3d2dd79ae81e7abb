"""What one version of a file declares, or shows: claims and studies, published numbers, artifacts by their hash."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.provenance.looks import Deciding, deciding
from stages.evidence.claims import contrasts
from stages.records import resolver
from stages.records.errors import UserError
from stages.records.params import Claim

FAMILY = Claim.model_fields["family"].default
MEASURED = re.compile(r"data/(?:evaluation|judge)/(\w+)/(\d+)/(\w+)")  # an arm, or a reward model
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

    @property
    def asked(self) -> set[tuple[str, str]]:
        """(setting, arm or reward model) of each term; of a fit, which is about all settings, without one."""
        return {(term.setting, term.arm) for term in contrasts.parse(self.contrast, self.measure)}

    def decided_by(self, cells: Cells) -> bool:
        """Whether one seed of some setting has every arm that the contrast names there: that shows part of a sum over
        settings, or a point of a fit."""
        asked = self.asked
        named = {setting for setting, _ in asked if setting} or {setting for setting, _, _ in cells}
        return any(
            all((setting, seed, arm) in cells for of, arm in asked if of in ("", setting))
            for setting, seed in {(setting, seed) for setting, seed, _ in cells if setting in named}
        )


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


def _leaves(section: dict, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def measured(content: bytes) -> list[tuple[Cell, str]]:
    """Each arm or reward model in a record of artifacts, a study's or a replicate's, and the hash of its evaluation or
    of what judged it; of the manifest of a replicate, which has no hash of these, see ``shown``."""
    found = []
    listed = _json(content)
    for path, digest in listed.get("artifacts", listed).items():
        if isinstance(digest, str) and (of := MEASURED.fullmatch(path)):
            setting, seed, name = of.groups()
            found.append(((setting, int(seed), name), digest.removeprefix("md5 ")))
    return found


def shown(content: bytes, setting: str, seed: str) -> Cells:
    """The arms and reward models of which a replicate has files, by its manifest."""
    names = [path.split("/") for path in _json(content)]
    return frozenset((setting, int(seed), parts[1]) for parts in names if parts[0] in ("evaluation", "judge"))


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


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
