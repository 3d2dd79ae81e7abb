"""`roads reproduce`: a commit's results come out again by its own code, or are named; nothing of the user's changes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import roads as roads_in
from small import NO_PREFECT, PROJECT, STUDY, alive, dvc, environment, new_project, roads, write_study
from test_verify import flip

from flows.provenance import checkouts, environments
from flows.provenance.reproduce import reproduce
from stages.records.errors import UserError

PIPELINE = """
vars: [cells.yaml]
stages:
  base:
    foreach: ${cells.base}
    do:
      cmd: sh work.sh data/base/${key}
      deps: [work.sh]
      params:
      - cells.yaml: ["resolved.settings.${item.setting}.base"]
      outs: ["data/base/${key}"]
      meta: {setting: "${item.setting}"}
  report:
    cmd:
    - sh work.sh data/report/report.html
    - cat data/base/* > data/report/report.md
    - echo '{"seeds":[0,1,2],"settings":{},"cells":[],"verification":[]}' > data/evidence.json
    deps: [work.sh, data/base]
    params:
    - cells.yaml: [resolved.study]
    outs:
    - data/evidence.json
    - data/report/report.html
    - data/report/report.md: {cache: false}
"""
# LUCK makes what comes out another; SLOW is a file that gets process ids, and lets a stage take a minute.
WORK = """
mkdir -p $(dirname $1) && echo "{\\"made\\": [\\"$*\\", 1${LUCK}]}" > $1.json && mv $1.json $1
[ -z "$SLOW" ] || { echo $$ >> $SLOW; sleep 60; }
"""
OUTS = 5  # of it: two base policies and what the report makes


def git(*words, cwd=None):
    who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


def commit(message="a commit"):
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message)
    return git("rev-parse", "HEAD")


def begun(folder):
    """A project around that graph, with code of its own, that has recorded nothing."""
    root = new_project(folder / "project", PIPELINE)
    (root / "work.sh").write_text(WORK)
    ours = shutil.ignore_patterns("__pycache__")
    for name in ("flows", "stages"):
        shutil.copytree(PROJECT / name, root / name, ignore=ours)
    with (root / ".gitignore").open("a") as file:
        file.write("__pycache__/\n/data/base\n/data/evidence.json\n/data/report/report.html\n")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a commit that has recorded what its own code made."""
    root = begun(tmp_path_factory.mktemp("made"))
    ran = roads_in(root, "run", **environment(**NO_PREFECT))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    git("add", "-A", cwd=root)
    git("commit", "-q", "-m", "recorded", cwd=root)
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it as the current folder, in which what runs tells nothing to Prefect and MLflow, which takes long."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project", symlinks=True))
    monkeypatch.setattr(checkouts, "ELSEWHERE", ("GIT_", "ALL_ROADS_"))
    for name, value in environment(**NO_PREFECT).items():
        monkeypatch.setenv(name, value)
    return Path.cwd()


def again(name="HEAD", study=None, stages=(), cold=False):
    """(state of each out, how or why, the whole answer)."""
    found = reproduce(Path.cwd(), name, study, list(stages), cold, False)
    states = {one["path"]: one["state"] for one in found["outs"]}
    return states, {one["path"]: one.get("how") or one.get("why") for one in found["outs"]}, found


def record(change):
    """Commit a dvc.lock that was changed."""
    path = Path("dvc.lock")
    path.write_text(change(path.read_text()))
    return commit("tampered")


def hash_of(out):
    lines = Path("dvc.lock").read_text().splitlines()
    at = lines.index(f"    - path: {out}")
    return next(line.split()[-1] for line in lines[at:] if "md5: " in line)


@pytest.mark.slow
def test_a_commit_that_is_no_ancestor_is_reproduced_beside_a_changed_tree_which_stays_as_it_is(project):
    git("checkout", "-q", "-b", "aside")
    wanted = commit("aside")
    git("checkout", "-q", "-")
    commit("another")
    Path("work.sh").write_text("exit 1\n")
    Path("dvc.lock").write_text("my own\n")
    Path("data/report/report.md").write_text("my own\n")
    before = git("status", "--porcelain"), git("rev-parse", "HEAD")
    code, said = roads("reproduce", "aside", "--json")
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert code == 0 and found["reproduced"] and found["commit"] == wanted and found["kept"] is None, said
    assert {one["state"] for one in found["outs"]} == {"equal"} and len(found["outs"]) == OUTS
    assert {one["how"] for one in found["outs"] if "base" in one["path"]} == {"restored"}
    assert (git("status", "--porcelain"), git("rev-parse", "HEAD")) == before
    assert Path("dvc.lock").read_text() == "my own\n" and not Path("mlflow.db").exists()
    assert git("worktree", "list").count("\n") == 0 and list(Path(".roads/reproduce").iterdir()) == []


@pytest.mark.slow
def test_cold_computes_everything_and_reads_no_result_of_the_cache(project):
    for path in Path(".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_text("poison")
    states, how, _ = again(cold=True)
    assert set(states.values()) == {"equal"} and set(how.values()) == {"computed"}
    assert not Path(".roads/reproduce").exists() or list(Path(".roads/reproduce").iterdir()) == []


@pytest.mark.slow
def test_an_object_that_was_changed_and_kept_its_mode_is_not_taken_for_the_result(project):
    value = hash_of("data/base/gap")
    flip(Path(".dvc/cache/files/md5") / value[:2] / value[2:])
    states, how, _ = again()
    assert set(states.values()) == {"equal"}
    assert how["data/base/gap"] == "computed" and how["data/base/short"] == "restored"


@pytest.mark.slow
def test_a_record_that_names_the_outs_of_another_stage_is_different_whatever_the_cache_has(project, capsys):
    gap, short = hash_of("data/base/gap"), hash_of("data/base/short")
    record(lambda text: text.replace(gap, "0" * 32).replace(short, gap).replace("0" * 32, short))
    states, why, found = again()
    assert states["data/base/gap"] == states["data/base/short"] == "different" and not found["reproduced"]
    assert "more than numbers in data/base/gap" in why["data/base/gap"]
    assert (project / found["kept"] / "data/base/gap").exists(), "what came out is kept"


@pytest.mark.slow
def test_a_stage_that_is_not_deterministic_is_different_with_the_size_of_the_difference(project, monkeypatch):
    """And may run again, which begins anew."""
    monkeypatch.setenv("LUCK", "0.5")
    for path in sorted(Path("data/base").iterdir()):  # a format whose numbers are compared
        assert json.loads(path.read_text())["made"][1] == 1
    states, _, found = again(cold=True)
    assert set(states.values()) == {"different", "equal"} and states["data/evidence.json"] == "equal"
    assert not Path(found["kept"]).parent.joinpath("cache").exists()
    monkeypatch.delenv("LUCK")
    assert again(cold=True)[2]["reproduced"]
    assert list(Path(".roads/reproduce").iterdir()) == []


@pytest.mark.slow
def test_what_older_code_recorded_is_listed_as_such_and_not_computed(project):
    Path("work.sh").write_text(f"{WORK}\n# other code\n")
    commit("other code, the same record")
    states, why, found = again()
    assert set(states.values()) == {"not recorded by this commit's code"} and not found["reproduced"]
    assert set(why.values()) == {"work.sh is another"}
    assert len(states) == OUTS and all(one["found"] is None for one in found["outs"])
    code, said = roads("reproduce", "HEAD")
    assert (
        code == 1
        and "Not recorded by this commit's code, as work.sh is another: 5 (base@gap, base@short, report and 2" in said
    )
    assert "0 of 5 outs are equal" in said


@pytest.mark.slow
def test_some_stages_are_reproduced_with_what_they_need_and_another_platform_is_named(project):
    facts = Path("data/made.json")
    facts.write_text(facts.read_text().replace('"libc": "glibc', '"libc": "other'))
    commit("made elsewhere")
    states, _, found = again(stages=["base@gap"])
    assert states == {"data/base/gap": "equal"} and found["reproduced"]
    ((how, names),) = found["platforms"].items()
    assert how.startswith("libc=other") and names == ["base@gap"]
    with pytest.raises(UserError, match=r"--stages nonsense: dvc.yaml has no such stage"):
        again(stages=["nonsense"])
    assert list(Path(".roads/reproduce/").glob("*/checkout")) == []


@pytest.mark.slow
def test_what_only_a_remote_has_is_restored(project, tmp_path):
    for words in (f"remote add -d far {tmp_path}/far", "push -q --run-cache"):
        dvc(*words.split())
    shutil.rmtree(".dvc/cache")
    states, how, _ = again()
    assert set(states.values()) == {"equal"} and how["data/base/gap"] == "restored"


@pytest.mark.slow
def test_a_published_study_is_reproduced_at_the_commit_that_made_it(project):
    write_study(project, "three_seeds", {**STUDY, "seeds": [0, 1, 2]})
    source = commit("a study")
    code, said = roads("run", "--study", "three_seeds")
    assert code == 0 and "Published" in said, said
    shutil.rmtree("runs")
    published = commit("published")
    for name in (source, published):
        states, _, found = again(name, "three_seeds")
        assert found["commit"] == source and found["reproduced"]
        assert set(states) == {"data/base/gap", "data/base/short", "data/evidence.json", "data/report/report.md"}
    path = Path("data/studies/three_seeds/artifacts.json")
    path.write_text(path.read_text().replace("0", "1"))
    with pytest.raises(UserError, match=r"data/studies/three_seeds of .* is damaged"):
        again(commit("forged"), "three_seeds")
    with pytest.raises(UserError, match=r"has no data/studies/nonsense/record.json"):
        again("HEAD", "nonsense")


def started(tmp_path):
    """`roads reproduce`, and the ids of the stages that it runs, which take a minute."""
    pids = tmp_path / "pids"
    pids.unlink(missing_ok=True)
    code = "import flows.provenance.checkouts as c; c.ELSEWHERE = ('ALL_ROADS_',); from flows.cli import main; main()"
    words = [sys.executable, "-c", code, "reproduce", "HEAD", "--cold"]
    env = environment(**NO_PREFECT, SLOW=str(pids))
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.monotonic() + 60
    while not (pids.exists() and pids.read_text()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None and pids.read_text(), process.communicate()[0]
    return process, [int(line) for line in pids.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_end_by_a_signal_leaves_no_process_and_a_second_try_goes_well(project, tmp_path, number, code):
    process, pids = started(tmp_path)
    with pytest.raises(UserError, match=r"Another run is working in .*-cold \(process \d+\): wait for its end"):
        again(cold=True)
    process.send_signal(number)
    assert process.wait(30) == code
    end = time.monotonic() + 5
    while (left := _at_work(project)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left and not any(map(alive, pids))
    assert again(cold=True)[2]["reproduced"]


def _at_work(folder):
    """The processes, besides this one, whose current folder lies in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if link.parent.name != str(os.getpid()) and Path(os.readlink(link)).is_relative_to(folder):
                found.append(link.parent.name)
    return found


def refused(name, project, **more):
    with pytest.raises(UserError) as error:
        reproduce(project, name, None, [], False, False, **more)
    assert git("worktree", "list", cwd=project).count("\n") == 0
    return str(error.value)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A repository with what `roads reproduce` looks for, and nothing that would run."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for path in ("flows/__main__.py", "stages/__init__.py", "dvc.yaml", "cells.yaml", ".dvc/config"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).touch()
    Path(".gitignore").write_text(".roads/\n")
    Path("requirements.lock").write_text("nonsense-not-there==1.0\npytest==0.1\ntyper==0.0.1\n")
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    commit()
    return tmp_path


def test_a_name_that_is_no_commit_is_told(small):
    assert "git knows no commit nonsense here" in refused("nonsense", small)
    assert "git knows no commit --all here" in refused("--all", small)


def test_a_commit_of_the_first_plan_is_told_in_one_sentence(small):
    git("rm", "-q", "cells.yaml")
    said = refused(commit("first plan"), small)
    assert "is of another layout" in said and "it has no cells.yaml" in said and "\n" not in said


@pytest.mark.parametrize("text", ["stages: [", "stages: {base: 1}\nschema: '2.0'\n", "", "\xff", "<<<<<<< ours\n"])
def test_a_record_that_is_damaged_or_missing_is_told(small, text):
    Path("dvc.lock").write_bytes(text.encode("latin-1"))
    assert "dvc.lock of" in (said := refused(commit("damaged"), small)) and "is damaged" in said
    git("rm", "-q", "dvc.lock")
    assert "has no dvc.lock" in refused(commit("gone"), small)


def test_other_packages_than_the_commits_are_all_named_and_nothing_runs(small):
    said = refused("HEAD", small)
    for name in ("nonsense-not-there 1.0 (here none)", "pytest 0.1 (here", "typer 0.0.1 (here", "--environment"):
        assert name in said


@pytest.mark.slow
def test_an_environment_of_a_lock_is_made_once_and_made_anew_where_that_was_cut_short(small, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text("[project]\nname = 'tiny-thing'\nversion = '1.5'\n")
    (source / "tiny_thing.py").touch()
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*wheel, str(source)], check=True)
    (file,) = tmp_path.glob("tiny_thing*.whl")
    Path("requirements.lock").write_text(f"tiny-thing @ {file.as_uri()}\n")
    python = environments.python(small, small)
    ask = [python, "-c", "import tiny_thing, importlib.metadata as m; print(m.version('tiny-thing'))"]
    assert subprocess.check_output(ask).strip() == b"1.5"
    (python.parents[1] / environments.READY).unlink()
    (python.parents[1] / "pyvenv.cfg").unlink()
    assert environments.python(small, small) == python and subprocess.check_output(ask).strip() == b"1.5"
    Path("requirements.lock").write_text("nonsense-not-there @ file:///nowhere.whl\n")
    with pytest.raises(UserError, match=r"` failed .*: mend that and run again"):
        environments.python(small, small)


def test_of_the_real_study_some_stages_are_restored_and_one_computed(micro_copy):
    """The slowest: a commit of the micro study, by its own code, with Prefect and MLflow in the worktree."""
    git("add", "-A", cwd=micro_copy)
    git("commit", "-qm", "recorded", cwd=micro_copy)
    done = roads_in(micro_copy, "reproduce", "HEAD", "--stages", "pick@micro-0-best_of_soft", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["reproduced"] and found["platforms"] == {}, done.stdout + done.stderr
    how = {one["path"]: one["how"] for one in found["outs"]}
    assert how["data/base/micro"] == "restored" and how["data/digests"] == "computed" and len(how) >= 5
    assert git("status", "--porcelain", cwd=micro_copy) == ""
