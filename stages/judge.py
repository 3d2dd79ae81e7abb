"""How well a reward model judges (the paper's hypotheses H5 and H6): labels that it has not learned from.

In: the corpus, the base policy, the pairs, the reward model, the samples and its scores of them; or, in place of pairs
and samples, an arm's evaluated completions, which lie outside of the distribution that it was trained on.
Out: metrics.json: log_loss (nats per pair), accuracy and calibration on pairs of test prompts ("pairs"), on others of
the prompts of the training pairs ("fresh"), or on pairs of the arm's own completions of test prompts ("own"); the true
reward of best-of-k among the samples ("best_of"). prompts.parquet has by test prompt what is about these.
"""

import json
import shutil

import numpy as np
import pandas as pd
from scipy.special import gammaln

from stages.learning import judging, models
from stages.learning.finite import finite
from stages.records import artifacts
from stages.records.command import command
from stages.records.sections import asked
from stages.records.seeds import key
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(cell: str) -> None:
    """Write data/judge/<setting>/<seed>/<reward model>, or <reward model>-<arm>."""
    where, settings = asked("judge", cell, "preferences.noise", "compute")
    of = (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    models.prepare(settings.compute, key("judging", *of))
    reward = artifacts.reading(f"data/reward/{where.setting}/{where.seed}/{where.verifier}")
    judge = judging.load(reward, artifacts.reading(where.base), corpus, settings.compute)
    if evaluated := artifacts.slot(where.of):
        own = judging.own_pairs(pd.read_parquet(evaluated / "completions.parquet"), settings.preferences.noise)
        metrics, by_prompt = judging.held_out(judge, corpus, {"own": own})
    else:
        held_out = {"pairs": read_pairs(*of, "test")[0], "fresh": read_pairs(*of, "fresh")[0]}
        metrics, by_prompt = judging.held_out(judge, corpus, held_out)
        by_prompt.pop("fresh", None)  # of train prompts
        samples = pd.read_parquet(artifacts.reading(f"data/sample/{where.setting}/{where.seed}") / "samples.parquet")
        scores = artifacts.reading(f"data/score/{where.setting}/{where.seed}/{where.verifier}") / "scores.parquet"
        by_prompt["best_of"] = best_of_curve(samples.assign(score=pd.read_parquet(scores)["score"]))
        metrics["best_of"] = by_prompt["best_of"].mean().to_dict()
    finite({"prompts": by_prompt, "metrics": metrics}, where.out)
    with artifacts.writing(where.out) as out:
        table = pd.concat(by_prompt.values(), axis=1) if by_prompt else pd.DataFrame()
        table.rename_axis("prompt_id").to_parquet(out / "prompts.parquet")
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        shutil.copyfile(reward / artifacts.VERIFIER, out / artifacts.VERIFIER)


def best_of_curve(samples: pd.DataFrame) -> pd.DataFrame:
    """The true reward of best-of-k by the scores, one row per test prompt and one column per k: best_of_1, best_of_2,
    best_of_4, ...

    It is averaged exactly over all subsets of k of the m samples: the sample with rank i by score (1 is the lowest) is
    the best of a subset with probability C(i - 1, k - 1) / C(m, k).
    """
    samples = samples[samples["split"] == "test"]
    m = int(samples["sample"].max()) + 1
    rewards, scores = (samples[name].to_numpy().reshape(-1, m) for name in ("true_reward", "score"))
    ranked, curve, k = np.take_along_axis(rewards, np.argsort(scores, axis=1, kind="stable"), axis=1), {}, 1
    while k <= m:
        weights = np.exp([_log_choose(i, k - 1) - _log_choose(m, k) if i >= k - 1 else -np.inf for i in range(m)])
        curve[f"best_of_{k}"] = ranked @ weights
        k *= 2
    return pd.DataFrame(curve, index=samples["prompt_id"].to_numpy()[::m])


def _log_choose(n: int, k: int) -> float:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


if __name__ == "__main__":
    command(run)
