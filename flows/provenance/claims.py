"""`roads claims`: each claim with its verdict, beside what git says of when it was declared (declared.py).

The verdicts are data/report/claims.json's. What git says is written to data/report/declared.html, which is neither in
git nor an out of DVC's: a commit that holds what it is about would change what it says.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flows.provenance.declared import Past
from flows.provenance.history import NOW
from flows.provenance.versions import Declared
from stages.evidence.claims import contrasts
from stages.evidence.words import count
from stages.records import reading
from stages.records.artifacts import write_file
from stages.records.errors import UserError
from stages.records.params import Claim, Study

VERDICTS = Path("data/report/claims.json")
PAGE = Path("data/report/declared.html")
IN_TIME, LATE, OPEN, NEW, UNKNOWN = "in time", "late", "no results yet", "not committed yet", "not known"
COLUMNS = ("claim", "verdict", "family", "declared", "first results", "seeds published", "git says")


@dataclass(frozen=True)
class Row:
    """A claim, its verdict, and what git says of it."""

    name: str
    statement: str
    study: str
    verdict: str
    family: str
    declared: str  # the commit, with its date
    results: str  # the first commit that showed its results; empty before there are any
    seeds: list[tuple[int, str]]  # how many of them each publication of its study had, and the commit
    says: str
    wrong: str  # what the page of claims would pretend, and what to do; empty if all is well

    def cells(self) -> tuple[str, ...]:
        """The row in a terminal."""
        seeds = ", ".join(str(number) for number, _ in self.seeds)
        return self.name, self.verdict, self.family, self.declared, self.results or "none", seeds or "none", self.says


@dataclass(frozen=True)
class Account:
    """All claims, and what there is to say of them, as sentences."""

    rows: list[Row]
    refused: list[str]  # with these, p-values would be too small
    doubts: list[str]
    notes: list[str]  # what else changed between declaration and results

    @property
    def wrong(self) -> list[str]:
        return self.refused + self.doubts

    @property
    def summary(self) -> str:
        """29 claims: 28 in time, 1 late."""
        counted = ", ".join(f"{number} {says}" for says, number in Counter(row.says for row in self.rows).most_common())
        return f"{count(len(self.rows), 'claim')}: {counted}." if self.rows else "No claim is declared."

    @property
    def warning(self) -> str:
        """One line for the end of a run; empty if all is well."""
        return f"{self.summary} {count(len(self.wrong), 'warning')}, told by `roads claims`." if self.wrong else ""

    def table(self) -> str:
        """For a terminal."""
        lines = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def account(project: Path) -> Account:
    """What git says of the claims in studies/. Raises UserError for wrong params."""
    declared, studies = reading.claims(project), reading.studies(project)
    past, verdicts = Past(project), _verdicts(project / VERDICTS)
    planned = cache(lambda study: reading.names(study, project))
    contrasts.resolved(declared, studies, lambda study, name: name in past.names(study) or name in planned(study))
    rows, present = [], []
    for name, claim in declared.items():
        decides = Declared(claim.study, claim.contrast, claim.measure, claim.expect, claim.margin, name, claim.family)
        verdict = verdicts.get((name, decides.identity, claim.family), "not decided yet")
        rows.append(_row(past, decides, claim.late, claim.statement, verdict))
        present.append(decides)
    refused = [row.wrong for row in rows if row.wrong]
    refused += _looks(past, present, declared, studies)
    doubts = _taken_out(past, present)
    if unknown := [claim.name for claim, row in zip(present, rows) if row.says == UNKNOWN]:
        reason = past.history.missing or "the history begins with their results"
        doubts.append(f"Which was first, claim or results, is not known of {', '.join(unknown)}: {reason}.")
    notes = []
    for study in dict.fromkeys(claim.study for claim in present):
        if changes := [f"{', '.join(keys)} {past.at(commit)}" for commit, keys in past.changes(study)]:
            notes.append(
                f"studies/{study}.yaml: its study changed after claims on it were declared: {'; '.join(changes)}."
            )
        if tuned := [f"{_named(keys)} {past.at(commit)}" for commit, keys in past.tuned(study)]:
            notes.append(
                f"Settings of the study {study} changed after claims on it were declared, and results came after that: "
                f"{'; '.join(tuned)}."
            )
        beside, before = past.dropped(study)
        if beside:
            doubts.append(
                f"studies/{study}.yaml: replicates of seeds that it does not have now were there beside others "
                f"({'; '.join(map(past.at, beside))}): put the seeds back, as those that were seen stay."
            )
        if before:
            notes.append(
                f"The study {study} had published replicates of other seeds before ({'; '.join(map(past.at, before))})."
            )
        notes += _anew(past, study, [claim for claim in present if claim.study == study])
        if former := past.former(study):
            listed = "; ".join(f"{count(len(at.seeds), 'seed')} {past.at(commit)}" for commit, at in former)
            notes.append(
                f"The study {study} was published with other seeds before ({listed}): no verdict rests on them, and "
                "git has what was claimed and found then."
            )
    return Account(rows, refused, doubts, notes)


def refuse(project: Path) -> None:
    """Raise UserError if the stage `claims`, which knows nothing of git, would make p-values that are too small."""
    if refused := account(project).refused:
        rest = f" ({len(refused) - 1} more: `roads claims`.)" if len(refused) > 1 else ""
        raise UserError(refused[0] + rest)


def write(project: Path) -> Account:
    """The same, written to PAGE as well."""
    from flows.pages import fill

    found = account(project)
    write_file(project / PAGE, fill("declared.html", account=found, late=LATE))
    return found


def _row(past: Past, claim: Declared, says_late: bool, statement: str, verdict: str) -> Row:
    starts, firsts = past.firsts(past.standing(claim.identity)), past.firsts(past.showing(claim))
    if not firsts:
        says = NEW if starts == [NOW] else OPEN
    elif past.history.missing or past.begins_with(claim):
        says = UNKNOWN
    else:
        says = IN_TIME if past.in_time(claim) else LATE
    begun = past.at(starts[-1 if says == LATE else 0]) if says != UNKNOWN else UNKNOWN
    results, wrong = past.at(firsts[0]) if firsts else "", ""
    if says == LATE and not says_late:
        wrong = (
            f"{claim.name} is late: declared {begun}, and its results were there {results}. Give it `family: late` in "
            f"studies/{claim.study}.yaml, and let `roads run` decide anew."
        )
    elif says == IN_TIME and not says_late and claim.family not in (then := past.families(claim)):
        wrong = f"{claim.name} was in the family {min(then)} when its results came ({results}): put it back there."
    looks = [(len(at.seeds), past.at(commit)) for commit, at in past.publications(claim.study)]
    return Row(claim.name, statement, claim.study, verdict, claim.family, begun, results, looks, says, wrong)


def _taken_out(past: Past, present: list[Declared]) -> list[str]:
    """The claims that stood when their results came and stand no more, but for those of a study that was renamed."""
    said, kept = [], {claim.whatever_study for claim in present}
    ever = {identity: claim for claims in past.declared.values() for identity, claim in claims.items()}
    for claim in ever.values():
        if claim.whatever_study not in kept and past.stood(claim):
            said.append(
                f"{claim.name} ({claim.contrast} in {claim.measure}, study {claim.study}) had been declared when its "
                f"results came, and was taken out or changed {past.at(past.end(claim))}: put it back, as a claim that "
                "fails stays."
            )
    return said


def _looks(past: Past, present: list[Declared], declared: dict[str, Claim], studies: dict[str, Study]) -> list[str]:
    """A sentence on claims whose numbers were published in more versions than their ``looks`` count."""
    said = defaultdict(list)
    for claim in present:
        study, looks, order = studies[claim.study], past.looks(claim), list(past.commits)
        counted, until = declared[claim.name].looked_at(study), order.index(looks[0][0]) if looks else len(order)
        again = [commit for commit in past.remade(claim) if order.index(commit) < until]
        if (number := max(len(looks), 1) + len(again)) > counted:
            versions = [f"replicates made anew {past.at(commit)}" for commit in again]
            versions += [f"{count(len(at.seeds), 'seed')} {past.at(commit)}" for commit, at in looks]
            said[claim.study, counted, number, "; ".join(versions)].append(claim.name)
    sentences = []
    for (study, counted, number, listed), names in said.items():  # type: ignore[assignment]
        alone = len(names) < sum(claim.study == study for claim in present)
        where = ", ".join(f"claims.{name}.looks" for name in names) if alone else "study.looks"
        sentences.append(
            f"studies/{study}.yaml: p counts {count(counted, 'look')} at {', '.join(names)}, but git has {number} "
            f"versions of the deciding numbers ({listed}): set {where} to {number}, so that p counts each."
        )
    return sentences


def _anew(past: Past, study: str, claims: list[Declared]) -> list[str]:
    """A sentence on each publication of a study with the seeds of one before."""
    sentences = []
    for commit in past.anew(study):
        other = [claim.name for claim in claims if commit in dict(past.looks(claim))]
        what = f"other numbers decide {', '.join(other)}" if other else "the numbers that decide its claims stayed"
        sentences.append(f"The study {study} was published anew with the same seeds {past.at(commit)}: {what}.")
    return sentences


def _named(keys: list[tuple[str, str]]) -> str:
    """offline.beta, offline.points (gap, short), from (key, setting) of each."""
    settings, alike = defaultdict(list), defaultdict(list)
    for key, setting in sorted(keys):
        settings[key].append(setting)
    for key, names in settings.items():
        alike[", ".join(names)].append(key)
    return ", ".join(f"{', '.join(keys)} ({names})" for names, keys in alike.items())


def _verdicts(path: Path) -> dict[tuple[str, str, str], str]:
    """(name, identity, family) -> the verdict, of those that the stage `claims` has decided as they stand."""
    try:
        return {(row["id"], row["identity"], row["family"]): row["verdict"] for row in json.loads(path.read_text())}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not made yet, or by an older version of the stage
        return {}
