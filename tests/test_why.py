"""`roads why`: each sentence is true, and there is one for all that makes a stage run, on a small graph under DVC."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import small
from conftest import edit_params
from small import STUDY, dvc, roads, write_params

from flows.pipeline.graph import Graph
from flows.provenance import why
from flows.provenance.edits import edited, files_then
from stages.provenance.digests import Code
from stages.records.errors import UserError

pytestmark = pytest.mark.slow

GAP = "offline@gap-0-offline"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small graph, carried out and committed."""
    folder = small.new_project(tmp_path_factory.mktemp("why") / "project", small.PIPELINE)
    dvc("repro", "-q", folder=folder)
    for command in ("git add -A", "git -c user.name=t -c user.email=t@t.invalid commit -qm made"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project", symlinks=True))
    return Path.cwd()


def asked(what: str) -> str:
    return why.words(why.why(Graph(), what))


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def test_nothing_would_make_a_stage_run_that_is_up_to_date(project):
    assert asked(GAP) == f"Nothing would make {GAP} run."
    assert asked("report") == asked("data/report/report.html") == "Nothing would make report run."
    assert "No stage would run because of work.sh. work.sh is read by 7 stages" in asked("work.sh")
    Path("README.md").touch()
    assert asked("README.md") == "No stage depends on README.md, so that none would run because of it."


def test_a_param_is_told_with_both_values_and_what_follows_from_it_with_its_root(project):
    write_params(project, STUDY, learning_rate=0.125, beta=9)
    said = asked(GAP)
    assert f"{GAP} would run:" in said
    assert "- The param settings.gap.arms.offline.learning_rate is 0.125, and was 0.0001 when the result was" in said
    assert "- The param settings.gap.arms.offline.beta is 9, and was 1.5 when the result was recorded." in said
    assert asked("offline@short-0-offline") == "Nothing would make offline@short-0-offline run."
    said = asked("report")
    roots = "offline@gap-0-offline or offline@gap-1-offline"
    assert f"report may run, if what one of these makes comes out differently: {roots}." in said
    assert "offline@gap-0-offline and offline@gap-1-offline would run:\n- The param" in said
    said = asked("params.yaml")
    assert "Because of params.yaml:" in said and "1 stage after these (report) may run then." in said
    assert said == asked("cells.yaml").replace("cells.yaml", "params.yaml")


def test_a_param_that_was_taken_out_is_none_now(project):
    edit_params(project, lambda data: data["settings"]["gap"]["offline"].pop("beta"))
    edit_params(project, lambda data: data["settings"]["gap"]["arms"]["offline"].update(beta=2.5))
    small.resolver.write(project)
    assert "settings.gap.arms.offline.beta is 2.5, and was 1.5" in asked(GAP)
    Path("cells.yaml").write_text(re.sub(r", beta: 2.5\b", "", Path("cells.yaml").read_text()))
    assert "settings.gap.arms.offline.beta is none, and was 1.5" in asked(GAP)


def test_what_the_cache_has_is_brought_back_and_that_is_said(project):
    write_params(project, STUDY, beta=9)
    assert f"{GAP} would run:" in asked(GAP), "a run with the old param is no run with the new one"
    dvc("repro", "-q")
    write_params(project, STUDY)
    said = asked(GAP)
    assert f"{GAP} would not be computed but brought back from DVC's cache" in said and "is 1.5, and was 9" in said
    assert roads("run", "--stages", GAP, **small.NO_PREFECT)[1].count("from the run cache") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: out.unlink(), "is missing"),
        (lambda out: (out.unlink(), out.write_text("forged, of the same graph")), "is not what it made"),
    ],
)
def test_an_out_that_was_edited_or_lost_comes_back_and_runs_nothing_after_it(project, change, said):
    out = Path("data/base/gap")
    change(out)
    for name in ("base@gap", "data/base/gap"):
        found = asked(name)
        assert "base@gap would not be computed but brought back" in found and f"- Its out {out} {said}." in found
    assert asked(GAP) == f"Nothing would make {GAP} run.", "what it reads comes back as it was"
    assert asked("report") == "Nothing would make report run."
    shutil.rmtree(".dvc/cache")
    assert "base@gap would run:" in asked("base@gap")
    assert f"- Its out {out} {said}, and DVC's cache has lost what is recorded of it." in asked("base@gap")
    assert f"{GAP} may run, if what base@gap makes comes out differently." in asked(GAP)


def test_outs_that_only_the_cache_has_lost_run_nothing(project):
    shutil.rmtree(".dvc/cache/files")
    assert asked("base@gap").splitlines() == [
        "base@gap would not run:",
        "- Its outs are only missing from the cache, and are put back.",
    ]


def test_an_input_is_told_with_the_files_in_it(project):
    replace("dvc.yaml", 'deps: [work.sh, "${item.base}"]', 'deps: [work.sh, "${item.base}", studies]')
    dvc("repro", "-q")
    assert asked("studies/three_seeds.yaml").startswith("No stage would run because of studies/three_seeds.yaml.")
    replace("studies/three_seeds.yaml", "seeds:", "seeds :")
    sentence = "studies, which it reads, is not what the result was made from (studies/three_seeds.yaml was changed)."
    assert sentence in asked(GAP) and sentence in asked("studies/three_seeds.yaml")
    Path("studies/other.yaml").write_text("")
    assert "studies/other.yaml is new" in asked("studies/other.yaml")
    Path("studies/other.yaml").unlink()
    assert asked("studies/other.yaml").startswith("No stage would run because of studies/other.yaml.")


def test_a_command_an_input_and_an_out_that_dvc_yaml_changed(project):
    replace("dvc.yaml", "sh work.sh data/report/report.html", "sh work.sh  data/report/report.html")
    assert "Its command is `sh work.sh  data/report/report.html" in asked("report")
    replace("dvc.yaml", "deps: [work.sh, data/policy]", "deps: [work.sh, data/policy, params.yaml]")
    replace("dvc.yaml", "    - data/evidence.json\n", "    - data/evidence.json\n    - data/more\n")
    for said in (asked("report"), asked("dvc.yaml")):
        assert "- It reads params.yaml now, and did not when the result was recorded." in said
        assert "- It makes data/more now, of which dvc.lock records nothing." in said


def test_an_out_more_alone_runs_the_stage(project):
    replace("dvc.yaml", "    - data/evidence.json\n", "    - data/evidence.json\n    - data/more\n")
    assert asked("report") == "report would run:\n- It makes data/more now, of which dvc.lock records nothing."


def test_a_stage_without_record_says_which_record_there_is(project):
    replace("dvc.yaml", "  offline:\n", "  off:\n")
    said = asked("off@gap-0-offline")
    assert f"- dvc.lock has no record of it; its outs are recorded of {GAP}, which dvc.yaml no longer has." in said
    assert "off@gap-0-offline would not be computed but brought back" in said, "the run cache knows no stage names"
    with pytest.raises(UserError, match=f"{GAP} is no stage of this study.*did you mean off@gap-0-offline"):
        asked(GAP)
    Path("dvc.lock").unlink()
    said = asked("base@gap")
    assert "base@gap would not be computed" in said and "- There is no dvc.lock, so it has no record." in said
    assert "off@gap-0-offline would run, or be brought back if" in asked("off@gap-0-offline")


def test_a_damaged_lock_file_is_refused_by_name(project):
    Path("dvc.lock").write_text(Path("dvc.lock").read_text()[:-100] + "\n  - : [")
    with pytest.raises(UserError, match=r"dvc\.lock.*git checkout -- dvc\.lock"):
        asked(GAP)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ofline", "did you mean offline"),
        ("work.sg", "did you mean work.sh"),
        ("data/base/gab", "did you mean data/base/gap"),
        ("../secret", "is not in"),
        ("/etc/passwd", "is not in"),
        ("runs/three_seeds/data/base/gap", "ask `roads why data/base/gap --study three_seeds`"),
    ],
)
def test_a_name_that_there_is_not_is_one_sentence(project, name, said):
    with pytest.raises(UserError) as refused:
        asked(name)
    assert name in str(refused.value) and said in str(refused.value)


def test_the_command_prints_words_and_json_and_knows_studies(project):
    write_params(project, STUDY, beta=9)
    code, said = roads("why", "report", "--json")
    found = json.loads(said)
    assert code == 0 and found["stages"] == ["report"]
    assert found["answers"]["report"] == {
        "outcome": "may run",
        "because": [],
        "roots": ["offline@gap-0-offline", "offline@gap-1-offline"],
    }
    cause = found["answers"][GAP]["because"][0]
    assert (cause["kind"], cause["name"]) == ("param", "settings.gap.arms.offline.beta")
    assert (cause["was"], cause["now"]) == (1.5, 9) and "was 1.5" in cause["said"]
    code, said = roads("why", "offline@gap-2-offline", "--study", "three_seeds")
    assert code == 0 and "- There is no dvc.lock, so it has no record." in said
    assert roads("why", "ofline") == (
        2,
        "error: ofline is no stage of this study, and no file that one makes or reads: did you mean offline?\n",
    )


MODULE = '''"""A stage."""

import math

LIMIT = 3


class Model:
    """A model."""

    size = 1

    def fit(self, x):
        return x

    def score(self):
        return 1


def run():
    """Run."""
    return math.pi
'''


@pytest.fixture
def repository(tmp_path):
    """A repository with a module, and the digest that it has there."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/one.py").write_text(MODULE)
    for words in ("init -q", "add -A", "-c user.name=t -c user.email=t@t.invalid commit -qm begun"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
    return tmp_path, ("stages.one", Code(tmp_path).read("stages.one")[0]["stages.one"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("math.pi", "math.e", "run() changed"),
        ("LIMIT = 3", "LIMIT = 4", "LIMIT changed"),
        ("return 1", "return 2", "Model.score() changed"),
        ("size = 1", "size = 2", "Model changed"),
        ("import math", "import math\nimport os", "its imports changed"),
        ("def run", "def go", "go() is new; run() is gone"),
        ("LIMIT = 3", "print(3)", "its top level is new; LIMIT is gone"),
        ("import math\n\nLIMIT = 3", "LIMIT = 3\nimport math", "the order of its parts changed"),
    ],
)
def test_of_a_module_the_functions_that_were_edited_are_named(repository, old, new, said):
    folder, then = repository
    (folder / "stages/one.py").write_text(MODULE.replace(old, new))
    assert edited(folder, [then]) == {then: said}


def test_the_code_of_then_is_found_by_its_digest_in_older_commits_and_else_nothing_is_said(repository):
    folder, then = repository
    for number in (1, 2):
        (folder / "stages/one.py").write_text(MODULE.replace("LIMIT = 3", f"LIMIT = {3 + number}"))
        who = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
        subprocess.run(["git", *who, "commit", "-qam", "more"], cwd=folder, check=True)
    assert edited(folder, [then]) == {then: "LIMIT changed"}
    assert edited(folder, [("stages.one", "0" * 64)]) == {} == edited(folder, [("stages.none", then[1])])
    shutil.rmtree(folder / ".git")
    assert edited(folder, [then]) == {}


def test_the_files_of_a_folder_are_found_by_its_hash(repository):
    from flows.pipeline.content import digest, md5

    folder, _ = repository
    then = {name: md5(folder / "stages" / name) for name in ("__init__.py", "one.py")}
    (folder / "stages/one.py").write_text("")
    assert files_then(folder, "stages", digest(then), lambda name: True) == then
    assert files_then(folder, "stages", "0" * 32 + ".dir", lambda name: True) is None
    only = {"one.py": then["one.py"]}
    assert files_then(folder, "stages", digest(only), lambda name: name.endswith("one.py")) == only


def micro(project: Path, *words: str) -> str:
    code, said = roads("why", *words)
    assert code == 0, said
    return said


def test_of_code_the_file_and_the_function_are_named_and_what_does_not_count_is_not(micro_copy, monkeypatch):
    """The real graph, whose stages depend on the digests of their code."""
    monkeypatch.chdir(micro_copy)
    for words in ("add -A", "-c user.name=t -c user.email=t@t.invalid commit -qm made"):
        subprocess.run(["git", *words.split()], check=True, stdout=subprocess.DEVNULL)
    rloo, text = Path("stages/methods/rloo.py"), Path("stages/methods/rloo.py").read_text()
    rloo.write_text("# a comment\n" + text.replace("It has none.", "There are none.") + "\n\n")
    assert "No stage would run because of stages/methods/rloo.py, as comments" in micro(micro_copy, str(rloo))
    rloo.write_text(text.replace("return -((rewards", "return -2 * ((rewards"))
    said = micro(micro_copy, str(rloo))
    assert "online@micro-0-online_rloo and online@micro_half-0-online_rloo would run:" in said
    assert "- In stages/methods/rloo.py, loss() changed." in said and "online@micro-0-online would" not in said
    assert "Nothing would make online@micro-0-online run." in micro(micro_copy, "online@micro-0-online")
    assert "stages, which it reads," in micro(micro_copy, "check")
    rloo.write_text(text)
    lock = Path("requirements.lock").read_text()
    Path("requirements.lock").write_text(lock.replace("scipy==", "scipy==9"))
    said = micro(micro_copy, "theory")
    assert "theory would run:\n- It computes with scipy 9" in said
    assert "claims and report would run:" not in micro(micro_copy, "stages/theory.py")
