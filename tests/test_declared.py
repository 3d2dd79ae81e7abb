"""What `roads claims` says by git of when claims were declared: each story in a small repository of its own."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from invented import PROJECT
from repository import CUES, LEAD, Repository, begun, claiming, with_results

from flows.provenance import claims
from stages.records import reading
from stages.records.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path):
    return begun(tmp_path)


@pytest.fixture
def claimed(repository):
    return claiming(repository)


@pytest.fixture
def in_time(repository):
    return with_results(repository)


def test_a_claim_before_its_results_is_in_time_and_in_other_words_still_is(in_time):
    row = in_time.row()
    assert (row.says, row.wrong, in_time.wrong()) == ("in time", "", "")
    assert row.declared.startswith(in_time.declared) and row.results.startswith(in_time.shown)
    assert row.seeds == [(2, row.results)]
    words = {"statement": "Online liegt vorn.", "hypothesis": "H1", "unit": "Punkte", "paper": "keine Zahl"}
    contrast = " -cues_simple_shared.offline+\n 1 * cues_simple_shared.online.true_reward "
    in_time.declare(vorsprung={**LEAD, **words, "contrast": contrast, "margin": 2e-1})
    in_time.commit("translated")
    row = in_time.row("vorsprung")
    assert row.says == "in time" and row.declared.startswith(in_time.declared) and in_time.wrong() == ""


def test_a_claim_after_its_results_is_late_unless_it_says_so_itself(repository):
    repository.declare()
    repository.publish()
    shown = repository.commit("results")
    repository.declare(lead=LEAD)
    row = repository.row()
    assert row.says == "late" and row.declared.startswith("now") and row.results.startswith(shown)
    declared = repository.commit("declared")
    row = repository.row()
    assert row.says == "late" and row.declared.startswith(declared)
    assert f"lead is late: declared {declared}" in row.wrong and "`family: late`" in row.wrong
    page = repository.page()
    assert "counts for nothing as it stands" in page and row.wrong.partition(".")[0] in page and "1 late" in page
    with pytest.raises(UserError, match=r"lead is late: .*`family: late`"):
        claims.refuse(repository.folder)
    repository.declare(lead={**LEAD, "family": "late"})
    assert repository.row().says == "late" and repository.wrong() == ""
    claims.refuse(repository.folder)
    assert "counts for nothing" not in repository.page() and "family late" in repository.page()


def test_the_same_commit_is_not_before(repository):
    repository.declare(lead=LEAD)
    repository.publish()
    assert repository.row().says == "late"  # as it would be, once both are committed
    repository.commit("both")
    assert repository.row().says == "late"


@pytest.mark.parametrize(
    "change",
    [
        {"contrast": "cues_simple_shared.online - cues_simple_shared.base"},
        {"expect": "no_more"},
        {"margin": 0.1},
        {"measure": "arrived"},
    ],
)
def test_what_decides_a_claim_cannot_be_changed_after_its_results(in_time, change):
    in_time.publish(arms=("online", "offline", "base"))
    in_time.commit("all arms")
    in_time.declare(lead={**LEAD, **change})
    changed = in_time.commit("changed")
    assert in_time.row().says == "late"
    assert f"and was taken out or changed {changed}" in in_time.wrong() and "lead is late" in in_time.wrong()


def test_before_its_results_a_claim_may_change_and_the_change_counts(repository):
    repository.declare(lead={**LEAD, "margin": 0.3})
    repository.commit("declared")
    repository.declare(lead=LEAD)
    second = repository.commit("declared with another margin")
    assert repository.row().says == "no results yet" and repository.wrong() == ""
    repository.publish()
    assert repository.row().says == "in time"  # the results are not committed yet
    repository.commit("results")
    row = repository.row()
    assert row.says == "in time" and row.declared.startswith(second) and repository.wrong() == ""


def test_a_claim_that_was_withdrawn_when_its_results_came_is_late(repository):
    repository.declare(lead=LEAD)
    repository.commit("declared")
    repository.declare()
    repository.commit("withdrawn")
    repository.publish()
    repository.commit("results")
    repository.declare(lead=LEAD)
    again = repository.commit("declared again")
    row = repository.row()
    assert row.says == "late" and row.declared.startswith(again)


def test_a_claim_that_is_not_committed_yet_says_so(repository):
    repository.declare(lead=LEAD)
    row = repository.row()
    assert (row.says, row.wrong, row.results) == ("not committed yet", "", "") and repository.wrong() == ""


def test_results_that_were_taken_away_have_been_seen(repository):
    repository.declare()
    repository.publish()
    repository.commit("results")
    shutil.rmtree(repository.folder / "data/studies")
    repository.declare(lead=LEAD)
    repository.commit("declared on a clean slate")
    assert repository.row().says == "late"
    repository.publish()
    repository.commit("results again")
    assert repository.row().says == "late"


def test_a_study_under_another_name_has_been_seen_by_its_artifacts(in_time):
    (in_time.folder / "data/studies/cues").rename(in_time.folder / "data/studies/kept")  # out of the way for now
    (in_time.folder / "studies/cues.yaml").unlink()
    in_time.declare(study="hints", lead=LEAD)
    in_time.commit("renamed")
    assert in_time.row().says == "no results yet"
    in_time.publish(study="hints")
    in_time.commit("published under the other name")
    row = in_time.row()
    assert row.says == "late" and row.results.startswith(in_time.shown)
    assert "taken out" not in in_time.wrong(), "the claim is there, about a study of another name"


def test_the_same_artifacts_in_dvc_lock_have_been_seen(repository):
    repository.declare()
    repository.publish()
    lock = (repository.folder / "data/studies/cues/artifacts.json").read_text().replace('"', "").replace("md5 ", "")
    shutil.rmtree(repository.folder / "data/studies")
    seen = repository.commit("the quick study", **{"dvc.lock": lock})
    repository.declare(lead=LEAD)
    repository.commit("declared")
    repository.publish()
    repository.commit("results")
    row = repository.row()
    assert row.says == "late" and row.results.startswith(seen)


def test_a_new_arm_of_a_study_that_was_published_is_still_to_be_seen(in_time):
    new = {**LEAD, "contrast": "cues_simple_shared.online - cues_simple_shared.best_of__global"}
    in_time.declare(lead=LEAD, new=new)
    declared = in_time.commit("a claim on an arm that no result shows")
    in_time.publish(arms=("online", "offline", "best_of__global"))
    in_time.commit("results")
    row = in_time.row("new")
    assert row.says == "in time" and row.declared.startswith(declared) and in_time.row().says == "in time"


def test_a_claim_may_name_what_its_study_has_published_and_what_it_is_going_to_have(in_time):
    """Arms and reward models; of an arm that it had under another name once, under that name."""
    in_time.publish(arms=("online", "offline", "best_of_local"))
    shared = "cues_simple_shared"
    terms = {"old": "best_of_local", "new": "best_of__global", "model": "global.log_loss", "typo": "best_of_global"}
    declared = {name: {**LEAD, "contrast": f"{shared}.online - {shared}.{term}"} for name, term in terms.items()}
    with pytest.raises(UserError, match=r"studies/cues.yaml: claims.typo.contrast names best_of_global, which is no"):
        in_time.declare(lead=LEAD, **declared)
        claims.account(in_time.folder)
    del declared["typo"]
    in_time.declare(lead=LEAD, **declared)
    says = {row.name: row.says for row in claims.account(in_time.folder).rows}
    assert says == {"lead": "in time", "old": "late", "new": "not committed yet", "model": "not committed yet"}


def test_results_that_cannot_be_read_are_named(in_time):
    (in_time.folder / "data/studies/cues/evidence.json").write_text("{")
    with pytest.raises(UserError, match=r"data/studies/cues/evidence.json cannot be read: bring it back from git"):
        claims.account(in_time.folder)


@pytest.mark.parametrize("merged_first", [True, False])
def test_on_branches_only_what_led_to_the_results_counts(repository, merged_first):
    repository.declare()
    repository.commit("no claim")
    repository.git("checkout", "-q", "-b", "side")
    repository.declare(lead=LEAD)
    repository.commit("declared on a branch")
    repository.git("checkout", "-q", "main")
    if merged_first:
        repository.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    repository.publish()
    repository.commit("results")
    if not merged_first:
        repository.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    assert repository.row().says == ("in time" if merged_first else "late")


def test_where_a_study_ran_is_no_result(in_time):
    """Its evidence had the key `platform` in former times; that it goes is no publication."""
    path = in_time.folder / "data/studies/cues/evidence.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"platform": {"text": "a host"}}))
    in_time.commit("with the host")
    path.write_text(json.dumps({key: value for key, value in found.items() if key != "platform"}))
    in_time.commit("without")
    assert len(in_time.row().seeds) == 1 and in_time.wrong() == ""


def test_a_family_is_not_left_once_the_results_are_known(in_time):
    in_time.declare(lead={**LEAD, "family": "alone"})
    in_time.commit("a family of its own")
    assert "lead was in the family declared when its results came" in in_time.wrong()
    in_time.declare(lead={**LEAD, "family": "late"})  # says less than it might
    assert in_time.wrong() == ""


def test_without_the_whole_history_no_claim_is_in_time(in_time, tmp_path):
    in_time.git("clone", "-q", "--depth", "1", in_time.folder.as_uri(), str(tmp_path / "shallow"))
    found = claims.account(tmp_path / "shallow")
    assert [row.says for row in found.rows] == ["not known"] and "git fetch --unshallow" in "\n".join(found.wrong)
    shutil.rmtree(in_time.folder / ".git")
    assert in_time.row().says == "not known" and "not a git repository" in in_time.wrong()
    in_time.begin()
    in_time.commit("all in one commit")
    assert in_time.row().says == "not known" and "the history begins with their results" in in_time.wrong()


def test_without_git_the_claims_are_still_told(in_time, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert in_time.row().says == "not known" and "lead" in in_time.wrong()


def test_in_a_folder_of_a_repository_paths_with_spaces_and_umlauts_are_read(tmp_path):
    above = Repository(tmp_path)
    inner = tmp_path / "ein Ordner, für alles"
    inner.mkdir()
    inside = Repository.__new__(Repository)
    inside.folder = inner
    inside.declare(lead=LEAD)
    declared = above.commit("declared")
    inside.publish()
    above.commit("results")
    row = inside.row()
    assert row.says == "in time" and row.declared.startswith(declared)


def test_the_command_has_a_table_and_an_exit_code(in_time):
    (in_time.folder / "dvc.yaml").touch()

    def told() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flows", "claims"]
        env = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=in_time.folder, env=env, capture_output=True, text=True)

    done = told()
    assert done.returncode == 0 and done.stdout.endswith("1 claim: 1 in time.\n"), done.stdout + done.stderr
    line = re.search(r"^lead  .*$", done.stdout, re.M)[0]
    assert "not decided yet" in line and in_time.declared in line and in_time.shown in line and "in time" in line
    in_time.declare(lead=LEAD, second={**LEAD, "margin": 0.1})
    done = told()
    assert done.returncode == 1 and "second is late: declared now (not committed)" in done.stdout, done.stderr


def test_a_run_that_decides_claims_writes_the_page(micro):
    """There no study with claims has run."""
    page = (micro / claims.PAGE).read_text()
    assert "no results yet" in page and page.count("no results yet</td>") == len(reading.claims(PROJECT))
    assert "http" not in page and "<script" not in page
    assert "warning" not in (micro / "run.log").read_text()


def test_a_claim_is_late_from_the_first_replicate_on_that_shows_it(repository):
    repository.declare()
    repository.replicate("cues_simple_shared", 0, "offline")
    repository.commit("one arm")
    repository.declare(lead=LEAD)
    repository.commit("declared in time")
    shown = repository.show("both arms", 1)
    row = repository.row()
    assert row.says == "in time" and row.results.startswith(shown)
    repository.declare(lead=LEAD, other={**LEAD, "margin": 0.3})
    repository.commit("after a look at the first replicate")
    assert repository.row("other").says == "late" and "other is late" in repository.wrong()


def test_what_a_study_had_shown_of_other_seeds_is_no_result_of_those_that_it_has_now(in_time):
    in_time.declare(lead={**LEAD, "margin": 0.1}, text=CUES.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [20, 21]"))
    declared = in_time.commit("other seeds, and another margin")
    assert in_time.row().says == "no results yet" and in_time.wrong() == ""
    in_time.publish(seeds=(20, 21))
    in_time.commit("their results")
    row = in_time.row()
    assert row.says == "in time" and row.declared.startswith(declared) and in_time.wrong() == ""
    assert row.seeds == [(2, row.results)], "one look, as nobody had seen these"
    assert f"published with other seeds before (2 seeds {in_time.shown}" in claims.account(in_time.folder).notes[-1]
    in_time.declare(lead={**LEAD, "margin": 0.1}, text=CUES.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [1, 20, 21]"))
    assert in_time.row().says == "late", "a seed of before is among them"


BOTH = {**LEAD, "contrast": f"{LEAD['contrast']} - cues_complex_shared.online + cues_complex_shared.offline"}


def test_of_a_contrast_over_settings_each_setting_shows_part(repository):
    repository.declare(lead=BOTH)
    repository.commit("declared")
    repository.show("one of the settings")
    repository.declare(lead={**BOTH, "expect": "no_more", "margin": 0.5})
    repository.commit("turned round")
    repository.show("the other one", setting="cues_complex_shared")
    assert repository.row().says == "late"


def test_replicates_that_are_made_anew_are_a_look_and_more_of_them_are_none(claimed):
    for seed in (0, 1):
        claimed.show(f"seed {seed}", seed)
    assert claimed.wrong() == ""
    again = claimed.show("other numbers", 1, draw=1)
    assert f"p counts 1 look at lead, but git has 2 versions of the deciding numbers (replicates made anew {again}" in (
        claimed.wrong()
    )
    claimed.publish()
    claimed.commit("all of it")
    assert "set study.looks to 2" in claimed.wrong()


def test_seeds_that_were_seen_stay(claimed):
    shown = claimed.show("seed 0")
    claimed.declare(lead=LEAD, text=CUES.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [2, 3, 4]"))
    claimed.commit("without the first seeds")
    assert f"were there beside others ({shown}" in claimed.wrong() and "put the seeds back" in claimed.wrong()
    claimed.declare(lead=LEAD, text=CUES.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [20, 21]"))
    assert claimed.wrong() == "" and "replicates of other seeds" in claims.account(claimed.folder).notes[-1]


def test_the_files_of_a_replicate_show_it_before_its_record_does(claimed):
    folder = claimed.folder / "data/studies/cues/replicates/cues_simple_shared-0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(
        json.dumps({f"evaluation/{arm}/metrics.json": "" for arm in ("online", "offline")})
    )
    claimed.commit("the folder alone")
    claimed.declare(lead={**LEAD, "margin": 0.3})
    claimed.commit("changed")
    claimed.show("its record")
    assert claimed.row().says == "late"


def test_a_record_that_is_removed_and_brought_back_hides_nothing(claimed):
    claimed.show("seed 0")
    shutil.rmtree(claimed.folder / "data/studies")
    claimed.declare(lead={**LEAD, "family": "other"})
    claimed.commit("without it, in another family")
    claimed.show("again")
    assert "lead was in the family declared when its results came" in claimed.wrong()
    shutil.rmtree(claimed.folder / "data/studies")
    claimed.declare()
    claimed.commit("without both")
    claimed.show("once more")
    assert "lead (" in claimed.wrong() and "was taken out or changed" in claimed.wrong()


def test_what_params_yaml_says_of_a_study_with_a_file_of_its_own_is_nothing(in_time):
    path = in_time.folder / "params.yaml"
    path.write_text(path.read_text() + "studies: {cues: {seeds: [99]}}\nclaims: {}\n")
    in_time.declare(lead={**LEAD, "margin": 0.3})
    in_time.commit("late, and hidden")
    assert in_time.row().says == "late"


def test_no_claim_of_this_project_is_late_in_secret():
    found = claims.account(PROJECT)
    assert len(found.rows) > 30 and found.wrong == []
