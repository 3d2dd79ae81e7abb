"""The base policy: supervised fine-tuning on demonstrations (the paper's SFT). Trained once per setting.

In: the corpus; a ready-made model, where params name one below data/inputs/<setting>.
Out: the policy. Where policies are judged by human preferences, also ``judge``: a reward model trained on the pairs of
groups that neither the reward model under study nor any policy sees; and how well it judges, in metrics.json and
judge/held_out.parquet.
"""

from pathlib import Path

from stages.learning import judging, models, training
from stages.learning.batch import IGNORED
from stages.learning.trial import trial
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import key
from stages.worlds import corpora
from stages.worlds.inputs import inside
from stages.worlds.pairs import joined


def run(cell: str) -> None:
    """Train data/base/<setting>, or data/base/<setting>/<seed> where each seed redraws the world."""
    where, settings = asked("base", cell, "base", "compute")
    chosen, compute, of = settings.base, settings.compute, (where.setting, where.seed)
    folder = artifacts.reading(where.corpus)
    corpus = corpora.load(folder)
    ready = inside(Path(where.inputs), Path(chosen.model).name) if isinstance(chosen.model, str) else None
    if ready:
        trial(ready, len(corpus.tokenizer), corpus.world, compute)
    seed = models.prepare(compute, key("base", *of))
    scratch = artifacts.scratch("base", where, chosen, compute, artifacts.digest(folder), ready and _content(ready))

    learnt = corpus.demonstrations[~corpus.demonstrations["held_out"]]
    rows = [
        {
            "input_ids": [*prompt, *completion],
            "labels": [*(prompt if chosen.loss_on == "all" else [IGNORED] * len(prompt)), *completion],
        }
        for prompt, completion in zip(learnt["prompt_ids"], learnt["completion_ids"])
    ]
    if ready:
        policy = models.load_base(ready, len(corpus.tokenizer), corpus.world["pad"], compute)
    else:
        policy = models.new_policy(chosen.model, corpus.tokenizer, max(len(row["input_ids"]) for row in rows) + 1)
    args = training.options(
        compute, seed, scratch / "policy", chosen.batch, max_steps=chosen.steps, learning_rate=chosen.learning_rate
    )
    trainer = training.supervised(policy, corpus.tokenizer, rows, args)
    training.train(trainer, scratch / "policy", where.out)

    with artifacts.writing(where.out) as out:
        models.save(policy, corpus.tokenizer, out)
        if corpus.judge_pairs is not None:
            judge = models.new_reward(out, compute, corpus.world["pad"], key("judge head", *of))
            args = training.options(
                compute,
                models.prepare(compute, key("judge", *of)),
                scratch / "judge",
                **training.epochs(chosen.judge),
            )
            trainer = training.reward_model(judge, corpus.tokenizer, joined(corpus.judge_pairs), args)
            training.train(trainer, scratch / "judge", f"the judge in {where.out}")
            models.save(judge, corpus.tokenizer, out / "judge")
            judging.measure(judge.eval(), corpus, out)
    artifacts.forget(scratch)


def _content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model, as its path stays the same when another is imported."""
    return {path.name: artifacts.sha256(path) for path in artifacts.files(folder)}


if __name__ == "__main__":
    command(run)
