"""Sampling from the base policy (the paper: one batch of n completions a prompt), scored by both reward models.

In: the base policy, the global and the local reward model.
Out: samples.parquet: for every prompt ``completions`` completions with their scores. Best-of-n picks from those of
validation and test prompts; online arms that start from the base policy take those of train prompts as first round.
"""

import pandas as pd

from stages.learning import judging, models
from stages.learning.sampling import draw
from stages.records import artifacts, sections
from stages.records.command import command
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora


def run(setting: str, seed: int) -> None:
    """Write data/sample/<setting>/<seed>."""
    settings = sections.of(setting, "sample", "compute", "reward.local_beta")
    chosen = settings.sample
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    verifiers = {name: artifacts.reading(f"data/reward/{setting}/{seed}/{name}") for name in ("global", "local")}
    models.prepare(settings.compute, key("sampling", setting, seed))

    policy = models.load_policy(base, settings.compute)
    prompts = corpus.prompts.assign(visit=0)
    luck = Uniforms("samples", setting, seed)
    drawn = draw(policy, prompts, chosen.completions, corpus.world, chosen.temperature, luck)
    completions = [c for several in drawn for c in several]
    rows = prompts.loc[prompts.index.repeat(chosen.completions)]
    ids = rows["prompt_ids"].tolist()
    judge = judging.scalar(models.load_reward(verifiers["global"], settings.compute))
    local = models.load_policy(verifiers["local"], settings.compute)
    local_judge = judging.implicit(local, policy, settings.reward.local_beta)
    samples = pd.DataFrame(
        {
            "prompt_id": rows["prompt_id"].to_numpy(),
            "split": rows["split"].to_numpy(),
            "sample": list(range(chosen.completions)) * len(prompts),
            "completion_ids": completions,
            "completion": corpus.tokenizer.batch_decode(completions, skip_special_tokens=True),
            "score": judge(ids, completions),
            "local_score": local_judge(ids, completions),
        }
    )
    with artifacts.writing(f"data/sample/{setting}/{seed}") as out:
        samples.to_parquet(out / "samples.parquet", index=False)


if __name__ == "__main__":
    command(run)
