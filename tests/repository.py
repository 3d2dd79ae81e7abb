"""A small repository of git's with claims and results, each test's own."""

import json
import shutil
import subprocess
from pathlib import Path

from invented import PROJECT, cell, publish

from flows.provenance import claims
from stages.records import seeds

CUES = (PROJECT / "studies/cues.yaml").read_text().partition("\nclaims:")[0]  # a study without its claims,
CUES = CUES.replace("seeds: [200, 201, 202, 203, 204]", "seeds: [0, 1, 2, 3, 4]")  # at these seeds
LEAD = {
    "hypothesis": "main",
    "statement": "Online is ahead.",
    "measure": "true_reward",
    "contrast": "cues_simple_shared.online - cues_simple_shared.offline",
    "expect": "more",
    "margin": 0.2,
    "unit": "true reward (of 6)",
    "paper": "no number",
}


class Repository:
    """A project with claims and results, and git beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin()
        self.commit("begun", readme="A project.")

    def begin(self) -> None:
        """A history, written by an author of its own."""
        self.git("init", "-q", "-b", "main")
        for name, value in (("user.name", "test"), ("user.email", "test@test.invalid"), ("commit.gpgsign", "false")):
            self.git("config", name, value)

    def git(self, *words: str, cwd: Path | None = None) -> str:
        return subprocess.run(
            ["git", *words], cwd=cwd or self.folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Commit all that has changed, and these files; the short hash."""
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "--short", "HEAD")

    def declare(self, study: str = "cues", text: str = CUES, **declared: dict) -> None:
        """Write the file of a study, with these claims alone, beside the project's params.yaml."""
        if not (self.folder / "params.yaml").exists():
            shutil.copy(PROJECT / "params.yaml", self.folder)
        (self.folder / "studies").mkdir(exist_ok=True)
        (self.folder / f"studies/{study}.yaml").write_text(f"{text}\nclaims: {json.dumps(declared)}\n")

    def publish(self, seeds=(0, 1), arms=("online", "offline"), study="cues", online=(3.0, 4.0), points=2) -> None:
        curve = {"step": [*range(points)], "kl": [*map(float, range(points))], "true_reward": [3.0] * points}
        rewards = {arm: [*online] if arm == "online" else [3.0, 4.0] for arm in arms}
        cells = [cell("cues_simple_shared", seed, arm, rewards[arm], curve=curve) for seed in seeds for arm in arms]
        publish(self.folder, study, cells)

    def replicate(self, setting: str, seed: int, *arms: str, study: str = "cues", draw: int = 0) -> None:
        """Publish one, of which the arms' evaluations are there; draw: other numbers of them."""
        folder = self.folder / f"data/studies/{study}/replicates"
        of = {f"data/evaluation/{setting}/{seed}/{arm}": f"md5 {seeds.key(arm, seed, draw):032x}.dir" for arm in arms}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{setting}-{seed}.json").write_text(json.dumps({"artifacts": of}))

    def show(self, message: str, seed: int = 0, setting: str = "cues_simple_shared", draw: int = 0) -> str:
        """Commit the replicate with the two arms that LEAD compares."""
        self.replicate(setting, seed, "online", "offline", draw=draw)
        return self.commit(message)

    def row(self, name: str = "lead") -> claims.Row:
        return next(row for row in claims.account(self.folder).rows if row.name == name)

    def wrong(self) -> str:
        return "\n".join(claims.account(self.folder).wrong)

    def page(self) -> str:
        claims.write(self.folder)
        return (self.folder / claims.PAGE).read_text()


def begun(folder: Path) -> Repository:
    """A new repository below a folder."""
    (folder / "project").mkdir()
    return Repository(folder / "project")


def claiming(repository: Repository) -> Repository:
    """One claim, declared by the commit ``declared``."""
    repository.declare(lead=LEAD)
    repository.declared = repository.commit("declared")
    return repository


def with_results(repository: Repository) -> Repository:
    """The same, and its results by the commit ``shown``."""
    claiming(repository).publish()
    repository.shown = repository.commit("results")
    return repository
