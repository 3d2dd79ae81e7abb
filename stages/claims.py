"""The claims of studies/, each with a verdict, from what the named studies published.

In: data/studies/<study>/{evidence.json, artifacts.json}, which `roads run --study <study>` publishes. Out: claims.json
for programs; claims.html, claims.md and leads.svg for people. No training, no randomness but that of the bootstrap.
"""

import json
from collections import Counter
from pathlib import Path

from threadpoolctl import threadpool_limits

from stages.evidence.claims import contrasts, estimates, page, verdicts
from stages.evidence.claims.published import Evidence, is_published
from stages.records import reading
from stages.records.artifacts import write_file
from stages.records.command import command
from stages.records.events import emit

OUT = Path("data/report")


def run() -> None:
    """Write data/report/{claims.json, claims.html, claims.md, leads.svg}, each at once and whole.

    Claims whose study was not published yet have no verdict; the page says which study to run. Raises UserError
    naming the study when one lacks a setting, seed or arm of a claim, and naming claims that say the same.
    """
    declared, listed = reading.claims(), reading.studies()
    contrasts.refuse_twins(declared)
    names = dict.fromkeys(claim.study for claim in declared.values())
    studies = {name: listed[name] for name in names if is_published(name)}
    evidence = {name: Evidence.read(name, study.seeds) for name, study in studies.items()}
    decided = {name: claim for name, claim in declared.items() if claim.study in studies}
    terms = contrasts.resolved(decided, studies, lambda study, name: name in evidence[study].names)
    with threadpool_limits(1):  # the thread count changes bits
        found = {
            name: estimates.estimate(name, claim, terms[name], evidence[claim.study], studies[claim.study])
            for name, claim in decided.items()
        }
        sizes = Counter(claim.family for claim in sorted(declared.values(), key=page.place))
        entries = [(name, claim, found[name], studies[claim.study]) for name, claim in decided.items()]
        judged = verdicts.judge(entries, sizes)
        verified = {name: study.verification for name, study in studies.items()}
        missing = [name for name in names if name not in studies]
        html, markdown, leads = page.render(judged, sizes, evidence, verified, missing)
    write_file(OUT / "claims.json", json.dumps([claim.row() for claim in judged], indent=1, allow_nan=False) + "\n")
    write_file(OUT / "claims.html", html)
    write_file(OUT / "claims.md", markdown)
    write_file(OUT / "leads.svg", leads)
    emit(**{f"claims/{claim.name}": claim.found.estimate.mean for claim in judged})  # type: ignore[arg-type]


if __name__ == "__main__":
    command(run)
