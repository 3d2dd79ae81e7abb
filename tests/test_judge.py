"""The judge, the true reward of a data set of preferences: how good it is, on pairs that nothing learned from."""

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ROOT, follow

from stages.evidence.study import cells
from stages.evidence.study.cells import World
from stages.evidence.study.truth import truth
from stages.worlds.facts import Facts

pytestmark = pytest.mark.slow

ROWS, PREFERRED, NOT_PREFERRED = 240, "well", "badly"
JUDGE = {"learning_rate": 3.0e-3, "epochs": 4, "batch": 16}


def preferences(labels_mean_something: bool) -> pd.DataFrame:
    """Pairs of answers of which one has the word PREFERRED; which of them is chosen follows it, or a coin."""
    rng = np.random.default_rng(0)
    fill = ["stone", "river", "cloud", "bread", "lamp", "chair"]
    sides = [[f"{word} {rng.choice(fill)}" for _ in range(ROWS)] for word in (PREFERRED, NOT_PREFERRED)]
    turned = rng.random(ROWS) < (0 if labels_mean_something else 0.5)
    chosen, rejected = np.where(turned, sides[1], sides[0]), np.where(turned, sides[0], sides[1])
    prompts = [f"question {number} about {rng.choice(fill)} :" for number in range(ROWS)]
    return pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected})


@pytest.fixture(scope="module", params=[True, False], ids=["labels that mean something", "labels by a coin"])
def trained(request, tmp_path_factory):
    """(a project whose judge was trained by the stages corpus and base, whether its labels mean something)."""
    from stages import base, corpus, replicate
    from stages.records import artifacts, plain, reading

    root, data = tmp_path_factory.mktemp("judged"), reading.prepare("ukp", ROOT)
    chosen = data["settings"]["ukp"]
    chosen["corpus"].update(tokenizer=300, judge=0.4, validation=0.2, test=0.2, max_prompt=16, max_completion=8)
    for key in ("group", "group_until"):
        del chosen["corpus"][key]
    chosen["base"].update(model={"hidden_size": 32, "layers": 1, "heads": 2}, steps=5, judge=JUDGE)
    (root / "params.yaml").write_text(plain.text(data))
    follow(root)
    inputs = root / "data/inputs/ukp/preferences"
    inputs.mkdir(parents=True)
    preferences(request.param).to_parquet(inputs / "train.parquet", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        corpus.run("ukp")
        base.run("ukp")
        for seed in data["study"]["seeds"]:
            with artifacts.writing(f"data/replicate/ukp/{seed}") as out:
                replicate.gather({"data/corpus/ukp": ("corpus", ""), "data/base/ukp": ("base", "")}, out)
    return root, request.param


def test_the_judge_is_measured_on_pairs_that_nothing_learned_from(trained, monkeypatch):
    from stages.learning import likelihood, models
    from stages.worlds import corpora

    root, _ = trained
    monkeypatch.chdir(root)
    corpus = corpora.load(root / "data/corpus/ukp")
    numbers, by_prompt = cells.read_judge(cells.read_study(), "ukp")
    unseen = corpus.pairs.query("split != 'train'").reset_index(drop=True)
    assert numbers["trained_on"] == len(corpus.judge_pairs)
    assert numbers["pairs"] == len(unseen) and numbers["prompts"] == len(by_prompt) == unseen["prompt_id"].nunique()
    learned = set(corpus.judge_pairs["prompt_id"]) | set(corpus.pairs.query("split == 'train'")["prompt_id"])
    assert not learned & set(by_prompt.index)

    judge = models.load_reward(root / "data/base/ukp/judge", CPU)
    ours, theirs = (
        likelihood.scores(judge, unseen["prompt_ids"], unseen[side]) for side in ("chosen_ids", "rejected_ids")
    )
    right = pd.Series(np.where(ours == theirs, 0.5, ours > theirs), unseen["prompt_id"].to_numpy())
    assert numbers["accuracy"] == pytest.approx(right.mean())
    assert by_prompt["accuracy"].to_dict() == pytest.approx(right.groupby(level=0).mean().to_dict())


def test_it_is_believed_only_if_it_is_shown_to_be_better_than_chance(trained, monkeypatch):
    root, means_something = trained
    monkeypatch.chdir(root)
    study = cells.read_study()
    judge = cells.read_judge(study, "ukp")
    said, (numbers, _) = truth("ukp", cells.read_world(study, "ukp"), judge), judge
    assert f"trained on {numbers['trained_on']} pairs" in said.sentence
    assert f"of {numbers['pairs']} pairs on {numbers['prompts']} other prompts" in said.sentence
    assert f"{numbers['accuracy']:.3f} (" in said.sentence
    assert bool(said.doubt) != means_something
    if said.doubt:
        assert "not shown to be better than chance" in said.doubt and "settings.ukp.corpus.judge" in said.doubt


def test_a_judge_that_could_not_be_measured_is_not_believed():
    found = truth("mine", World(Facts(title="Any", truth=None), [1], 1, []), ({"trained_on": 9, "pairs": 0}, None))
    assert "not known" in found.sentence and "could not be measured" in found.doubt


@pytest.mark.parametrize(("prompts", "shown"), [(1, False), (2, False), (5, False), (6, True), (50, True)])
def test_a_judge_that_is_right_on_few_prompts_is_not_shown_to_be_better_than_a_coin(prompts, shown):
    """A coin is right on all of 5 prompts one time in 32: the labels do not vary, which is no certainty."""
    world = World(Facts(title="Any", truth=None), [5], 5, [])
    numbers = {"trained_on": 9, "pairs": prompts, "prompts": prompts}
    found = truth("mine", world, (numbers, pd.DataFrame({"accuracy": np.ones(prompts)})))
    assert (found.doubt == "") == shown, found
