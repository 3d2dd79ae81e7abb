"""`roads tune`: trials on a seed that no result uses, the winners by validation prompts, and where they are written."""

import json
import shutil

import pytest
from conftest import ROOT

from flows import tuning
from stages.records import artifacts, plain, reading, resolver
from stages.records.errors import UserError


@pytest.fixture
def project(tmp_path):
    """The project's params and studies."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    return tmp_path


def evaluated(workspace, setting, rewards: dict[str, float], seed: int = 100) -> None:
    """Evaluations with these true rewards on validation prompts, and greater ones on test prompts for the worst."""
    for arm, reward in rewards.items():
        with artifacts.writing(workspace / f"data/evaluation/{setting}/{seed}/{arm}") as out:
            metrics = {"validation": {"true_reward": reward}, "test": {"true_reward": -reward}}
            (out / "metrics.json").write_text(json.dumps(metrics))


def test_trials_are_a_study_around_what_the_study_has_on_another_seed(project):
    assert tuning.declare("ukp", project) == "ukp_tuning"
    found = resolver.resolve(reading.prepare("ukp_tuning", project))["resolved"]
    arms = found["settings"]["ukp"]["arms"]
    assert found["study"]["seeds"] == [100] and found["study"]["verifiers"] == ["global"]
    assert len(arms) == 12 and {one.partition("__")[0] for one in arms} == {"offline", "online"}
    assert {arm["learning_rate"] for arm in arms.values()} == {3.3e-5, 1e-4, 3e-4}
    assert {arm["beta"] for arm in arms.values()} == {0.5, 1.5}
    others = plain.read(project / "studies/ukp_tuning.yaml")["settings"]["ukp"]
    own = plain.read(project / "studies/ukp.yaml")["settings"]["ukp"]
    assert {key: value for key, value in others.items() if key != "arms"} == {
        key: value for key, value in own.items() if key != "arms"
    }


def test_what_a_person_put_into_the_grids_stays(project):
    tuning.declare("ukp", project)
    path = project / "studies/ukp_tuning.yaml"
    path.write_text(path.read_text().replace("beta: [0.5, 1.5]", "beta: [0.1, 0.5]"))
    before = path.read_text()
    assert tuning.declare("ukp", project) == "ukp_tuning" and path.read_text() == before


def test_validation_prompts_decide_and_the_winner_is_written_where_the_constant_stands(project):
    tuning.declare("ukp", project)
    arms = resolver.resolve(reading.prepare("ukp_tuning", project))["resolved"]["settings"]["ukp"]["arms"]
    rewards = {arm: 0.1 for arm in arms} | {"offline__3p3e5_1p5": 0.7, "online__1e4_0p5": 0.9}
    assert set(rewards) == set(arms)
    evaluated(project / "runs/ukp_tuning", "ukp", rewards)
    found = tuning.winners("ukp", project / "runs/ukp_tuning", project)
    assert {one.arm: (one.learning_rate, one.beta, one.edge) for one in found} == {
        "offline": (3.3e-5, 1.5, ["learning_rate"]),
        "online": (1e-4, 0.5, []),
    }
    text = (project / "studies/ukp.yaml").read_text()
    tuning.write("ukp", found, project)
    settings = reading.check(reading.prepare("ukp", project), "ukp").settings["ukp"]
    assert (settings.offline.learning_rate, settings.offline.beta) == (3.3e-5, 1.5)
    assert settings.arms["offline"].learning_rate == 3.3e-5 and settings.arms["online"].beta == 0.5
    after = (project / "studies/ukp.yaml").read_text()
    changed = [line for line, new in zip(text.splitlines(), after.splitlines(), strict=True) if line != new]
    assert len(changed) == 2 and after.count("#") == text.count("#"), "every other line and every comment stays"
    said = tuning.told(found, "ukp_tuning")
    assert "the best of 6 trials; learning_rate at the edge" in said[1] + said[0] and "studies/ukp_tuning" in said[-1]


def test_an_arm_that_says_its_own_constants_gets_them(project):
    path = project / "studies/ukp.yaml"
    path.write_text(path.read_text().replace("offline: {loss: [sigmoid]}", "offline: {loss: [sigmoid], beta: 2.0}"))
    winner = tuning.Winner("ukp", "offline", "offline", 2e-4, 4.0, 0.5, 6, [])
    tuning.write("ukp", [winner], project)
    setting = plain.read(path)["settings"]["ukp"]
    assert setting["arms"]["offline"] == {"loss": ["sigmoid"], "beta": 4.0}
    assert setting["offline"]["learning_rate"] == 2e-4 and setting["offline"]["beta"] == 0.5


def test_a_trial_that_was_changed_or_is_missing_is_refused(project):
    tuning.declare("ukp", project)
    with pytest.raises(UserError, match="is missing"):
        tuning.winners("ukp", project / "runs/ukp_tuning", project)


def test_without_two_arms_to_compare_there_is_nothing_to_tune(project):
    path = project / "studies/ukp.yaml"
    path.write_text(path.read_text().replace("offline, online_batch, online]", "offline]"))
    with pytest.raises(UserError, match="compares no online arm"):
        tuning.declare("ukp", project)
    assert not (project / "studies/ukp_tuning.yaml").exists()
