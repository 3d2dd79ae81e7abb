"""A mistake is one sentence and exit code 2, before anything has run."""

import pytest
from conftest import edit_params, new_project, roads

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return new_project(tmp_path_factory.mktemp("cli"), "micro")


@pytest.mark.parametrize(
    "words, says",
    [
        (["run", "--settings", "gapp"], "gapp"),
        (["run", "--seeds", "7"], "7"),
        (["run", "--stages", "onlin"], "onlin"),
        (["run", "--study", "big"], "names big, which is not among the files of studies/"),
        (["study", "tunning"], "the nearest is tuning"),
        (["run", "--study", "tldr"], "roads import tldr"),
        (["run", "--study", "pythia"], "roads import pythia"),
        (["import", "nowhere", "x.jsonl"], "nowhere"),
        (["import", "tldr", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(project, words, says):
    done = roads(project, *words)
    assert done.returncode == 2, done.stdout + done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(last) == 1 and says in last[0], done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (project / "data/base").exists()


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda data: data["settings"]["micro"]["online"].update(stepz=3), "settings.micro.online.stepz"),
        (lambda data: data["settings"]["gap"]["base"].update(learning_rate=float("nan")), "base.learning_rate"),
        (lambda data: data["study"].update(settings=["nano"]), "study.settings names nano"),
        (lambda data: data["settings"]["micro_half"].update(extends="nano"), "settings.micro_half.extends names nano"),
        (lambda data: data["study"]["arms"].append("onlin"), "the nearest is online"),
        (lambda data: data["settings"]["micro"]["online"].update(completions=9), "exceeds settings.micro.sample.compl"),
    ],
)
def test_wrong_params_stop_every_command(tmp_path, change, says):
    wrong = new_project(tmp_path / "wrong", "micro")
    edit_params(wrong, change)
    for words in (["run"], ["run", "--dry"]):
        done = roads(wrong, *words)
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (wrong / "data/digests").exists() and not (wrong / "dvc.lock").exists()
