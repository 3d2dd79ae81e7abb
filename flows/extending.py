"""`roads extend STUDY --seeds 8-11`: more seeds for a study whose verdicts were seen, with the look that they cost.

The seeds and the number of looks are written into studies/STUDY.yaml, every other byte of which stays, and committed,
so that the new results come from a clean commit that declares them. p counts once more from then on, and `roads claims`
holds the number against the publications that git has.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from flows.provenance.declared import Past
from flows.provenance.versions import Declared
from stages.provenance.git import git
from stages.records import plain, reading
from stages.records.arms import known
from stages.records.artifacts import PUBLISHED, write_file
from stages.records.errors import UserError
from stages.records.params import Study

RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
MOST = 1000  # seeds at once: more is a slip of the finger


class Extension(NamedTuple):
    """What `roads extend` writes into the file of a study."""

    study: str
    file: Path  # below the project
    content: str
    seeds: list[int]  # the new ones
    looks: int  # of the study, once its new verdicts are seen


def extension(study: str, seeds: str, project: Path = Path()) -> Extension:
    """The file of a study with more seeds and one more look; nothing is written.

    seeds: as 8-11, or 8,10. Raises UserError for what is no range or is there already; where the study has published
    nothing, so that nobody has seen a verdict; and where git lacks what looks are counted by.
    """
    studies, file = reading.studies(project), Path(plain.STUDIES) / f"{study}.yaml"
    known(study, sorted(studies), "the command", f"the files of {plain.STUDIES}/")
    now, more = studies[study], parsed(seeds)
    if there := [seed for seed in more if seed in now.seeds]:
        raise UserError(
            f"{file} has seed {there[0]} already: name others, or, where it was declared and has not run yet, go on "
            f"with `roads run --study {study}`."
        )
    past = Past(project)
    if past.history.missing:
        raise UserError(f"How often the verdicts of {study} were seen cannot be counted: {past.history.missing}.")
    for path in (file, PUBLISHED / study):
        if git(project, "status", "--porcelain", "--", str(path)):
            raise UserError(
                f"{path} is not as git has it: commit it, as looks are counted by the history; then extend."
            )
    if not (publications := past.publications(study)):
        raise UserError(
            f"{study} has published nothing, so that nobody has seen its verdicts: write the seeds into study.seeds of "
            f"{file}, which is no look, and run it."
        )
    if (shown := publications[-1][1].seeds) != tuple(sorted(now.seeds)):
        raise UserError(
            f"{file} declares the seeds {listed(now.seeds)}, and {PUBLISHED / study} has {listed(shown)}: first bring "
            f"that up to date with `roads run --study {study}`, and commit it."
        )
    looks = _looks(past, now, project)
    return Extension(study, file, edited(project / file, more, looks), more, looks[""])


def refuse_stale(study: str) -> None:
    """Raise UserError unless the results of the seeds that a study has are up to date in its folder: with them made
    anew, the look would be at other seeds and at other numbers."""
    from flows.commands import go_to
    from flows.pipeline.graph import Graph
    from flows.plan import plan

    here, environment = Path.cwd(), dict(os.environ)
    try:
        go_to(study)
        graph = Graph(publishing=True)
        due = plan(graph, set(graph.stages)).due
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
    if due:
        raise UserError(
            f"{due[0]} of the study {study} is not up to date here (one of {len(due)}), and more seeds should leave "
            f"those that it has as they are: first `roads run --study {study}`, which takes from the cache what it has."
        )


def declare(found: Extension, project: Path) -> str:
    """Write the file and commit it alone; the sentence that says so. Raises UserError, with the file as it was, where
    git does not commit."""
    path, said = project / found.file, f"{found.study}: seeds {listed(found.seeds)} too, look {found.looks}"
    before = path.read_bytes()
    write_file(path, found.content)
    words = ["git", "commit", "--quiet", "--only", "-m", said, "--", str(found.file)]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True)
    if done.returncode:
        write_file(path, before)
        why = " ".join((done.stderr or done.stdout).split()).removesuffix(".")
        raise UserError(
            f"git did not commit {found.file} ({why}), so it is as it was: put that right, and extend again."
        )
    return f"Committed {found.file}: seeds {listed(found.seeds)} too; its p-values count {found.looks} looks."


def carry_out(found: Extension, project: Path) -> int:
    """Run what the new seeds need, then what is about all seeds, and decide the claims; the exit code of the first
    command that does not end well, else 0. Each is a command that a person can give again."""
    seeds, of_study = ",".join(map(str, found.seeds)), ["run", "--study", found.study]
    stopped: list[int] = []
    for words in ([*of_study, "--seeds", seeds], of_study, ["run", "--stages", "claims"]):
        print(f"roads {' '.join(words)}", flush=True)
        child = subprocess.Popen([sys.executable, "-m", "flows", *words], cwd=project)

        def stop(number: int, _: object, child: subprocess.Popen = child) -> None:
            stopped.append(number)
            child.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):  # the child stops in its own way, and says with which exit code
            signal.signal(number, stop)
        if code := child.wait() or (130 if stopped else 0):
            return code if code > 0 else 128 - code
    return 0


def parsed(seeds: str) -> list[int]:
    """8-11,20 as [8, 9, 10, 11, 20]. Raises UserError."""
    found: list[int] = []
    for part in seeds.split(","):
        match = RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= MOST:
            raise UserError(f"--seeds {seeds}: {part.strip() or 'nothing'} names no seeds: write 8-11, or 8,10.")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise UserError(f"--seeds {seeds} names {max(found, key=found.count)} twice: name each seed once.")
    return found


def listed(seeds: Any) -> str:
    """0 to 4, 8 to 11: seeds for people."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _looks(past: Past, study: Study, project: Path) -> dict[str, int]:
    """The looks with one more: of the study (""), and of each claim that has its own; never fewer than git has seen."""
    looks = {"": study.looks}
    for name, claim in reading.claims(project).items():
        if claim.study == study.name:
            decides = Declared(
                claim.study, claim.contrast, claim.measure, claim.expect, claim.margin, name, claim.family
            )
            at = name if claim.looks else ""
            looks[at] = max(looks.get(at, 0), claim.looks or 0, len(past.looks(decides)))
    return {name: number + 1 for name, number in looks.items()}


def edited(path: Path, seeds: list[int], looks: dict[str, int]) -> str:
    """The text of a study's file with more seeds and these looks, every other character as it is. Raises UserError
    where that does not say what it should."""
    text = path.read_bytes().decode()
    found, wanted = YAML().load(text), plain.parsed(text.encode(), path)
    note = f"at seeds {listed(wanted['study']['seeds'])}"
    wanted["study"] |= {"seeds": [*wanted["study"]["seeds"], *seeds], "looks": looks[""]}
    for name in looks.keys() - {""}:
        wanted["claims"][name]["looks"] = looks[name]
    edits = _seeds(found["study"]["seeds"], seeds)
    for name, number in looks.items():
        edits += _look(found["claims"][name] if name else found["study"], number, note, text.split("\n"))
    new = _applied(text, edits)
    if plain.parsed(new.encode(), path) != wanted:
        raise UserError(
            f"{path} has a form that cannot be edited here: write looks: {looks['']} and the seeds {listed(seeds)} "
            "into it by hand, and commit that."
        )
    return new


Edit = tuple[int, int, int, str]  # line and column, how many characters go there, and what comes in their place


def _seeds(now: Any, more: list[int]) -> list[Edit]:
    """More seeds behind the last; ``now``: with their places, as ruamel.yaml has them."""
    line, column = now.lc.item(len(now) - 1)
    if now.fa.flow_style():
        return [(line, column + len(str(now[-1])), 0, "".join(f", {seed}" for seed in more))]
    return [(line + 1, 0, 0, "".join(f"{' ' * (column - 2)}- {seed}\n" for seed in more))]


def _look(section: Any, number: int, note: str, lines: list[str]) -> list[Edit]:
    """The number of looks of a study or claim, with a note in the comment beside it."""
    if "looks" in section:
        line, column = section.lc.value("looks")
        width, end = len(str(section["looks"])), len(lines[line].rstrip())
        comment = "#" in lines[line][column:]
        noted = f"; then {note}, so {number} looks now" if comment else f"  # then {note}"
        alone = comment or end == column + width  # nothing else in the line, as in {looks: 1, ...}
        return [(line, column, width, str(number)), *([(line, end, 0, noted)] if alone else [])]
    line, column = section.lc.key("seeds")
    if section.fa.flow_style():
        return [(line, column, 0, f"looks: {number}, ")]
    return [(line, column, 0, f"looks: {number}  # its claims were judged {note} before\n{' ' * column}")]


def _applied(text: str, edits: list[Edit]) -> str:
    lines = text.split("\n")
    for line, column, width, new in sorted(edits, reverse=True):
        lines[line] = lines[line][:column] + new + lines[line][column + width :]
    return "\n".join(lines)
