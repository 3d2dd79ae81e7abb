"""The base policy: supervised fine-tuning on demonstrations (the paper's SFT). Trained once a setting.

In: the corpus; a ready-made model, where params name one below data/inputs/<setting>.
Out: the policy. Where policies are judged by human preferences, also ``judge``: a reward model trained on the pairs of
groups that neither the reward model under study nor any policy sees; and how well it judges, in metrics.json and
judge/held_out.parquet.
"""

from pathlib import Path

from stages.learning import judging, models, training
from stages.learning.trial import trial
from stages.records import artifacts, sections
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.seeds import key
from stages.worlds import corpora
from stages.worlds.inputs import inside
from stages.worlds.pairs import joined


def run(setting: str) -> None:
    """Train data/base/<setting>."""
    settings = sections.of(setting, "base", "compute")
    chosen, compute = settings.base, settings.compute
    folder = artifacts.reading(f"data/corpus/{setting}")
    corpus = corpora.load(folder)
    ready = _ready_made(chosen.model, setting) if isinstance(chosen.model, str) else None
    if ready:
        trial(ready, len(corpus.tokenizer), corpus.world, compute)
    seed = models.prepare(compute, key("base", setting))
    scratch = artifacts.scratch("base", setting, chosen, compute, artifacts.digest(folder), ready and _content(ready))

    rows = [
        {"input_ids": [*prompt, *completion]}
        for prompt, completion in zip(corpus.demonstrations["prompt_ids"], corpus.demonstrations["completion_ids"])
    ]
    if ready:
        policy = models.load_base(ready, len(corpus.tokenizer), corpus.world["pad"], compute)
    else:
        policy = models.new_policy(chosen.model, corpus.tokenizer, max(len(row["input_ids"]) for row in rows) + 1)
    args = training.options(
        compute, seed, scratch / "policy", chosen.batch, max_steps=chosen.steps, learning_rate=chosen.learning_rate
    )
    trainer = training.supervised(policy, corpus.tokenizer, rows, args)
    training.train(trainer, scratch / "policy", f"data/base/{setting}")

    with artifacts.writing(f"data/base/{setting}") as out:
        models.save(policy, corpus.tokenizer, out)
        if corpus.judge_pairs is not None:
            judge = models.new_reward(out, compute, corpus.world["pad"], key("judge head", setting))
            args = training.options(
                compute,
                models.prepare(compute, key("judge", setting)),
                scratch / "judge",
                chosen.judge.batch,
                num_train_epochs=chosen.judge.epochs,
                learning_rate=chosen.judge.learning_rate,
            )
            trainer = training.reward_model(judge, corpus.tokenizer, joined(corpus.judge_pairs), args)
            training.train(trainer, scratch / "judge", f"the judge in data/base/{setting}")
            models.save(judge, corpus.tokenizer, out / "judge")
            judging.measure(judge.eval(), corpus, out)
    artifacts.forget(scratch)


def _content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model, as its path stays the same when another is imported."""
    return {path.name: artifacts.sha256(path) for path in artifacts.files(folder)}


def _ready_made(model: str, setting: str) -> Path:
    """The folder of an imported model. Raises UserError if it is not below the setting's inputs."""
    inputs = Path(f"data/inputs/{setting}")
    if Path(model).parent != inputs:
        raise UserError(f"settings.{setting}.base.model is {model}: import it, then write {inputs}/model.")
    return inside(inputs, Path(model).name)


if __name__ == "__main__":
    command(run)
