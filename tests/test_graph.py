"""dvc.yaml under the real DVC, with stages that only write what they were told."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from conftest import ROOT

from stages.records import plain, resolver
from stages.records.cells import STAGES

pytestmark = pytest.mark.slow

PARAMS = plain.read(ROOT / "params.yaml")
SMALL = {"settings": ["gap", "short"], "seeds": [0], "verifiers": ["global"], "arms": ["base", "offline", "online"]}
WHOLE = ("check", "theory", "claims", "report")  # stages of no cell
CHECK = """
import sys
from pathlib import Path
from stages.records import plain, resolver
from stages.records.cells import NONE, SLOTS
from stages.records.errors import UserError

try:
    resolver.refuse()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
cells = plain.fast(resolver.CELLS)["cells"]
wanted = {f"data/digests/{name}.json": "{}" for name in ("theory", "claims")}
wanted |= {cell["code"]: "{}" for stage in cells.values() for cell in stage.values()}
wanted |= {f"{NONE}{slot}": "" for slot in SLOTS}
for path, text in wanted.items():
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
for path in [*Path("data/digests").iterdir(), *Path("data/none").iterdir()]:
    if path.as_posix() not in wanted:
        path.unlink()
"""
STUB = """
import json
import sys
from pathlib import Path
from stages.records import plain

REPORT = "report.html report.md results.json overview.svg".split()
WHOLE = {
    "theory": ["data/theory"],
    "claims": ["data/report/leads.svg", *(f"data/report/claims.{kind}" for kind in ("html", "md", "json"))],
    "report": ["data/evidence.json", *(f"data/report/{name}" for name in REPORT)],
}
FOLDERS = {"offline": "policy", "online": "policy", "pick": "evaluation", "evaluate": "evaluation"}


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def main(stage):
    content = plain.fast("cells.yaml")
    settings = content["resolved"]["settings"]
    if stage in WHOLE:
        for path in WHOLE[stage]:
            write(path, json.dumps(plain.read("params.yaml")["theory"] if stage == "theory" else stage))
    if stage == "report":
        betas = {name: {a: arm.get("beta") for a, arm in one["arms"].items()} for name, one in settings.items()}
        write("data/report/metrics.json", json.dumps(betas))
        rows = [{"setting": name, "arm": "online", "step": i, "true_reward": i} for name in betas for i in (1, 2)]
        write("data/report/curves.json", json.dumps(rows))
    if stage in WHOLE:
        return
    key = sys.argv[2]
    cell = content["cells"][stage][key]
    for name in ("corpus", "base", "inputs", "start", "labels", "sample", "score", "of", "policy", "code"):
        assert name not in cell or Path(cell[name]).exists(), cell[name]
    parts = [cell[part] for part in ("setting", "seed", "verifier", "arm") if cell.get(part) is not None]
    out = "/".join(["data", FOLDERS.get(stage, stage), *map(str, parts)])
    arm = settings[cell["setting"]]["arms"].get(cell.get("arm"))
    write(f"{cell.get('out', out)}/made.json", json.dumps([stage, key, arm]))
"""


class Project:
    """A project in a folder of its own, with git and DVC, whose stages are stubs."""

    def __init__(self, folder: Path, params: dict) -> None:
        self.folder = folder
        self.write("params.yaml", plain.text(params))
        resolver.write(folder)
        shutil.copy(ROOT / "dvc.yaml", folder)
        for name in (
            "__init__",
            "worlds/__init__",
            *(f"records/{n}" for n in ("__init__", *"arms cells errors plain resolver".split())),
        ):
            text = (ROOT / f"stages/{name}.py").read_text() if "/" in name else ""
            self.write(f"stages/{name}.py", text)
        self.write("stages/check.py", CHECK)
        self.write("stages/stub.py", STUB)
        for stage in (*STAGES, "theory", "claims"):
            self.write(f"stages/{stage}.py", f'from stages.stub import main\n\nmain("{stage}")\n')
        self.write("requirements.lock", "")
        self.write("data/studies/evidence/evidence.json", "{}")
        self.write("studies/evidence.yaml", "study: {}\n")
        self.write(".gitignore", "__pycache__\n")
        self.write(".dvcignore", "__pycache__\n")
        self.run("git", "init", "-q", "-b", "main")
        self.run("dvc", "init", "-q")
        self.run("dvc", "config", "core.analytics", "false")
        self.run("dvc", "config", "core.autostage", "true")
        self.commit("begun")

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def run(self, *words: str, fails: bool = False) -> str:
        """What a command says."""
        return told(self.folder, *words, fails=fails)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def edit(self, old: str, new: str) -> None:
        """Change params.yaml, with the cells left as they are."""
        text = (self.folder / "params.yaml").read_text()
        assert old in text
        self.write("params.yaml", text.replace(old, new, 1))

    def back(self) -> None:
        """As it was at the last commit. Git compares seconds and sizes, and DVC, which stages dvc.lock, writes an index
        that forgets which files changed in the second that it knows them by; so git reads all of them anew."""
        (self.folder / ".git/index").unlink()
        self.run("git", "reset", "-q", "--hard")  # the index too, in which DVC puts dvc.lock
        self.run("dvc", "checkout", "-q")


def told(folder: Path, *words: str, fails: bool = False) -> str:
    who = {f"GIT_{role}_{key}": "test@test.invalid" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **who, "PATH": path}
    if words[0] == "dvc":
        done = forked.run(["dvc.__main__", *words[1:]], folder, environment)
    else:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert bool(done.returncode) == fails, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def ran(said: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", said))


def due(project: Project) -> set[str]:
    return set(json.loads(project.run("dvc", "status", "--json")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small graph, made by plain `dvc repro`, and committed."""
    folder = tmp_path_factory.mktemp("graph")
    project = Project(folder, resolver.over(PARAMS, {"study": SMALL}))
    said = project.run("dvc", "repro")
    cells = plain.fast(folder / "cells.yaml")["cells"]
    assert ran(said) == {f"{stage}@{cell}" for stage in STAGES[:-1] for cell in cells[stage]} | set(WHOLE)
    project.commit("made")
    assert due(project) == set() and project.run("git", "status", "--short") == ""
    return project


@pytest.fixture
def project(made):
    yield made
    made.back()


def of_a_study(name: str) -> dict:
    if name == "quick":
        return PARAMS
    if name == "worlds":  # drawn anew by every seed
        return resolver.over(PARAMS, {"study": {"redraw": "world", "settings": ["gap"]}})
    return resolver.prepared(PARAMS, plain.read(ROOT / f"studies/{name}.yaml"), name)


@pytest.mark.parametrize("name", ["quick", "micro", "pythia", "worlds"])
def test_dvc_makes_one_stage_of_each_cell(tmp_path, name):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(plain.text(of_a_study(name)))
    assert resolver.write(tmp_path)
    told(tmp_path, "dvc", "init", "-q", "--no-scm")
    names = told(tmp_path, "dvc", "stage", "list", "--name-only").split()
    cells = plain.fast(tmp_path / "cells.yaml")["cells"]
    assert names[0] == "check" and len(set(names)) == len(names)
    assert set(names) == {f"{stage}@{cell}" for stage in STAGES[:-1] for cell in cells[stage]} | set(WHOLE)


def test_stages_say_in_their_meta_what_people_call_them(made):
    code = "import json; from dvc.repo import Repo; "
    code += "print(json.dumps({s.addressing: s.meta for s in Repo().index.stages}))"
    meta = json.loads(made.run(sys.executable, "-c", code))
    assert meta["online@gap-0-online"] == {
        "task": "online", "setting": "gap", "seed": 0, "arm": "online", "device": "gpu", "memory": 2,
    }  # fmt: skip
    assert meta["corpus@gap"]["seed"] is None and meta["corpus@gap"]["task"] == "corpus"
    judge, evaluate = meta["judge@gap-0-global"], meta["evaluate@gap-0-online"]
    assert judge["measures"] == "data/reward/gap/0/global" and judge["arm"] is None and judge["verifier"] == "global"
    assert evaluate["measures"] == "data/policy/gap/0/online" and meta["pool@gap-0"]["task"] == "reward"
    assert all("task" in one for one in meta.values())


def test_every_stage_depends_on_the_check(made):
    code = "import json; from dvc.repo import Repo; index = Repo().index; "
    code += "deps = {s.addressing: [d.def_path for d in s.deps if not hasattr(d, 'params')] for s in index.stages}; "
    code += "print(json.dumps(deps))"
    deps = json.loads(made.run(sys.executable, "-c", code))
    for name, paths in deps.items():
        assert name == "check" or any(path.startswith("data/digests/") for path in paths), name
        assert len(set(paths)) == len(paths), name
        assert name == "check" or not {"params.yaml", "cells.yaml"} & set(paths)


def test_after_an_edit_that_cells_do_not_follow_only_the_check_is_due_and_it_refuses(project):
    before = (project.folder / "dvc.lock").read_bytes()
    project.edit("beta: 5.0", "beta: 6.0")
    assert due(project) == {"check"}
    key = "resolved.settings.short.arms.offline.beta"
    sentence = (
        f"error: cells.yaml does not follow params.yaml ({key}: 5.0, should be 6.0): run `roads study` (`dvc exp run` "
        f"needs -S cells.yaml:{key}=6.0 beside its own)."
    )
    for words in (("repro",), ("repro", "evaluate@gap-0-online")):
        said = project.run("dvc", *words, fails=True)
        assert sentence in said.splitlines() and ran(said) == {"check"}
    assert (project.folder / "dvc.lock").read_bytes() == before
    assert project.run("git", "status", "--short").split() == ["M", "params.yaml"], "nothing is lost, nothing is dirty"
    project.edit("beta: 6.0", "beta: 5.0")
    assert due(project) == set()


def test_with_cells_written_anew_only_what_changed_is_due(project):
    project.edit("beta: 5.0", "beta: 6.0")
    assert resolver.write(project.folder)
    wanted = {"check", "offline@short-0-offline", "evaluate@short-0-offline", "report"}
    assert due(project) == wanted
    assert ran(project.run("dvc", "repro")) == wanted | {"replicate@short-0"}
    assert due(project) == set()
    assert "6" in project.run("dvc", "metrics", "diff") and "short.offline" in project.run("dvc", "metrics", "diff")


def test_a_new_setting_and_a_new_seed_make_their_own_cells_due(project):
    params = plain.read(project.folder / "params.yaml")
    params["settings"]["far"] = {"extends": "short", "preferences": {"pairs": 100}}
    params["study"]["settings"] = ["gap", "short", "far"]
    project.write("params.yaml", plain.text(params))
    assert resolver.write(project.folder)
    new = due(project) - {"check", "report"}
    assert new and all("@far-0" in name for name in new), f"{new}: its corpus and base policy are short's"
    params["study"] |= {"settings": ["gap", "short"], "seeds": [0, 1]}
    project.write("params.yaml", plain.text(params))
    assert resolver.write(project.folder)
    assert {name.split("-")[1] for name in due(project) - {"check", "report"}} == {"1"}


def test_an_experiment_refuses_alone_and_runs_with_its_companion(project):
    value = ["-S", "settings.short.offline.beta=6"]
    said = project.run("dvc", "exp", "run", *value, fails=True)
    beside = re.search(r"needs -S (\S+) beside its own", said)[1]
    assert beside == "cells.yaml:resolved.settings.short.arms.offline.beta=6"
    project.back()
    said = project.run("dvc", "exp", "run", *value, "-S", beside)
    changed = {"check", "offline@short-0-offline", "evaluate@short-0-offline", "replicate@short-0", "report"}
    assert ran(said) == changed
    changed = json.loads(project.run("dvc", "params", "diff", "--json"))
    assert changed["params.yaml"]["settings.short.offline.beta"]["new"] == 6
    assert changed["cells.yaml"]["resolved.settings.short.arms.offline.beta"]["new"] == 6
    found = json.loads(project.run("dvc", "metrics", "diff", "--json"))
    assert found["data/report/metrics.json"]["short.offline"]["new"] == 6
    assert not resolver.write(project.folder), "DVC wrote the file in its own way, and it says what it should"


def test_an_experiment_on_what_no_cell_copies_runs_alone(project):
    assert ran(project.run("dvc", "exp", "run", "-S", "theory.seeds=9")) == {"check", "theory", "report"}


def test_plots_show_the_learning_curves(project):
    assert "curves" in project.run("dvc", "plots", "show", "--json", "data/report/curves.json")


def test_a_fresh_clone_makes_the_same(made, tmp_path):
    told(tmp_path, "git", "clone", "-q", str(made.folder), str(tmp_path / "clone"))
    clone = tmp_path / "clone"
    assert not (clone / "data/digests").exists()
    told(clone, "dvc", "repro")
    assert (clone / "dvc.lock").read_bytes() == (made.folder / "dvc.lock").read_bytes()
    assert told(clone, "git", "status", "--short") == ""


def test_a_fresh_clone_refuses_cells_that_do_not_follow(made, tmp_path):
    told(tmp_path, "git", "clone", "-q", str(made.folder), str(tmp_path / "clone"))
    path = tmp_path / "clone/params.yaml"
    path.write_text(path.read_text().replace("beta: 5.0", "beta: 6.0"))
    said = told(tmp_path / "clone", "dvc", "repro", fails=True)
    assert "error: cells.yaml does not follow params.yaml" in said and ran(said) == {"check"}
