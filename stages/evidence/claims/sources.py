"""Where the numbers of the page of claims come from: a panel for each claim, table and published study.

They show what the studies have published. Which commits, code and machines that goes back to, `roads lineage` knows.
"""

from collections.abc import Sequence
from pathlib import Path

from stages.evidence.claims import contrasts
from stages.evidence.claims.contrasts import PER_GAP
from stages.evidence.claims.published import Evidence
from stages.evidence.claims.verdicts import Judged
from stages.evidence.panels import Artifact, Panel, key
from stages.evidence.words import inline
from stages.records import arms
from stages.records.artifacts import PUBLISHED
from stages.records.plain import STUDIES


def panels(judged: Sequence[Judged], evidence: dict[str, Evidence], tables: dict[str, list[dict]]) -> list[Panel]:
    """Every panel of the page; tables: as page.tables made them."""
    found = [_claim(claim, evidence[claim.claim.study]) for claim in judged]
    for title, several in tables.items():
        for one in several:
            made = _made(evidence[one["study"]].hashes(one["paths"]), evidence[one["study"]])
            found.append(Panel(one["source"], f"{title}: {one['title']}", [], made, _study_of(one["study"])))
    return found + [_study(study) for study in evidence.values()]


def _claim(claim: Judged, evidence: Evidence) -> Panel:
    """A claim: what it compares, the arms behind it as its study has published them, and their artifacts."""
    declared, terms = claim.claim, contrasts.parse(claim.claim.contrast, claim.claim.measure)
    if declared.measure == PER_GAP:
        terms = [one for setting in claim.study.verification for one in contrasts.in_setting(terms, setting)]
    where = f"{STUDIES}/{declared.study}.yaml"
    params = [(f"{where}, claims.{claim.name}", f"{declared.contrast} in {declared.measure}")]
    params.append((f"{where}, study.seeds", ", ".join(map(str, claim.study.seeds))))
    for setting, arm in dict.fromkeys((term.setting, term.arm) for term in terms):
        for section in ("arms", "verifiers"):
            if options := evidence.options(setting, section, arm):
                params.append((f"settings.{setting}.{section}.{arm}", inline(options)))
    return Panel(
        key("claim", claim.name),
        declared.statement,
        params,
        _made(claim.found.artifacts, evidence),
        _study_of(declared.study),
        f"roads run --study {declared.study}",
    )


def _study(study: Evidence) -> Panel:
    """A published study: the numbers of all of its claims."""
    folder = PUBLISHED / study.study
    made = [
        Artifact((folder / name).as_posix(), study.artifacts[path], "report", study.study)
        for name, path in (("evidence.json", "data/evidence.json"), ("report.md", "data/report/report.md"))
        if path in study.artifacts
    ]
    settings, seeds = ", ".join(study.settings), ", ".join(map(str, study.seeds))
    params = [(f"{STUDIES}/{study.study}.yaml", f"settings {settings}; seeds {seeds}")]
    command = f"roads run --study {study.study}"
    return Panel(key("study", study.study), f"The study {study.study}", params, made, [], command)


def _study_of(study: str) -> list[tuple[str, str]]:
    return [(key("study", study), f"the study {study}")]


def _made(hashes: dict[str, str], evidence: Evidence) -> list[Artifact]:
    return [Artifact(path, hash, _stage(path, evidence), evidence.study) for path, hash in hashes.items()]


def _stage(path: str, evidence: Evidence) -> str:
    """The stage that made a published artifact; empty where its study does not say."""
    _, kind, *of = Path(path).parts
    if kind in ("evaluation", "policy"):
        setting, _, arm = of
        if not (recipe := evidence.options(setting, "arms", arm)):
            return ""
        kind = arms.kind(recipe) if kind == "policy" else "pick" if arms.kind(recipe) == "pick" else "evaluate"
    return f"{kind}@{'-'.join(of)}" if evidence.params else ""
