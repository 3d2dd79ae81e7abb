"""The base policy: supervised fine-tuning on demonstrations (the paper's SFT). Trained once a setting.

In: the corpus; a ready-made model, where params name one below data/inputs/<setting>.
Out: the policy. Where policies are judged by human preferences, also ``judge``: a reward model trained on the pairs of
groups that neither the reward model under study nor any policy sees; and how well it judges, in metrics.json and
judge/held_out.parquet.
"""

from pathlib import Path

from stages.learning import judging, models, training
from stages.records import artifacts, params
from stages.records.command import command
from stages.records.errors import UserError
from stages.worlds import corpora
from stages.worlds.inputs import inside
from stages.worlds.pairs import joined


def run(setting: str) -> None:
    """Train data/base/<setting>."""
    settings = params.setting(setting, "base", "compute")
    chosen, compute = settings.base, settings.compute
    folder = artifacts.reading(f"data/corpus/{setting}")
    corpus = corpora.load(folder)
    seed = models.prepare(compute, setting, "base")
    scratch = artifacts.scratch("base", setting, chosen, compute, artifacts.digest(folder))

    rows = [
        {"input_ids": [*prompt, *completion]}
        for prompt, completion in zip(corpus.demonstrations["prompt_ids"], corpus.demonstrations["completion_ids"])
    ]
    if isinstance(chosen.model, str):
        inputs = Path(f"data/inputs/{setting}")
        if Path(chosen.model).parent != inputs:
            raise UserError(f"settings.{setting}.base.model is {chosen.model}: import it, then write {inputs}/model.")
        policy = models.load_policy(inside(inputs, Path(chosen.model).name), compute)
    else:
        policy = models.new_policy(chosen.model, corpus.tokenizer, max(len(row["input_ids"]) for row in rows) + 1)
    policy.config.pad_token_id = corpus.world["pad"]  # many a model brings none, and batches need one
    if len(corpus.tokenizer) > policy.get_input_embeddings().num_embeddings:
        policy.resize_token_embeddings(len(corpus.tokenizer))
    args = training.options(
        compute, seed, scratch / "policy", chosen.batch, max_steps=chosen.steps, learning_rate=chosen.learning_rate
    )
    training.train(training.supervised(policy, corpus.tokenizer, rows, args), scratch / "policy")

    with artifacts.writing(f"data/base/{setting}") as out:
        models.save(policy, corpus.tokenizer, out)
        if corpus.judge_pairs is not None:
            judge = models.new_reward(out, compute, corpus.world["pad"], setting, "judge")
            args = training.options(
                compute,
                seed,
                scratch / "judge",
                chosen.judge.batch,
                num_train_epochs=chosen.judge.epochs,
                learning_rate=chosen.judge.learning_rate,
            )
            training.train(
                training.reward_model(judge, corpus.tokenizer, joined(corpus.judge_pairs), args), scratch / "judge"
            )
            models.save(judge, corpus.tokenizer, out / "judge")
            judging.measure(judge.eval(), corpus, out)
    artifacts.forget(scratch)


if __name__ == "__main__":
    command(run)
