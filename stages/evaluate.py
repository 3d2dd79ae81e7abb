"""What a policy is worth: fresh completions on every split, scored by the true reward.

In: the corpus, the base policy (for KL), a policy or the samples that best-of-n picks from, both reward models and
held-out pairs.
Out: completions.parquet, one row a completion; metrics.json: means for each split; the held-out preference loss of the
reward model that the arm is or carries, on the prompts of the training pairs ("fresh") and on test prompts ("pairs");
that of both reward models on pairs of the policy's own completions ("own_..."); the curve of best-of-n. What of these
is about test prompts is also in prompts.parquet, by prompt.
"""

import json
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import gammaln, softmax

from stages.learning import likelihood, models, scoring
from stages.learning.finite import finite
from stages.learning.judging import held_out, implicit, own_pairs, scalar
from stages.learning.sampling import draw
from stages.records import artifacts, sections
from stages.records.command import command
from stages.records.seeds import Uniforms, key
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs

SPLITS = ("train", "validation", "test")
STORED = {"best_of": "score", "best_of_local": "local_score", "best_of_soft": "score"}  # arms without a policy
UNTRAINED = ("base", "local")  # arms with a policy that no stage of theirs trains


def run(setting: str, seed: int, arm: str) -> None:
    """Write data/evaluation/<setting>/<seed>/<arm>."""
    settings, beta = asked(setting, arm)
    chosen, compute = settings.evaluate, settings.compute
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    models.prepare(compute, key("evaluating", setting, seed))
    score = scoring.scorer(corpus, base, compute)
    reference = models.load_policy(base, compute)
    verifiers = {name: artifacts.reading(f"data/reward/{setting}/{seed}/{name}") for name in ("global", "local")}
    judges = {
        "global": scalar(models.load_reward(verifiers["global"], compute)),
        "local": implicit(models.load_policy(verifiers["local"], compute), reference, settings.reward.local_beta),
    }
    fresh, test = (read_pairs(setting, seed, split)[0] for split in ("fresh", "test"))

    prompts = pd.concat(
        [corpus.prompts[corpus.prompts["split"] == split].iloc[: chosen.prompts or None] for split in SPLITS]
    )
    if arm in STORED:
        samples = pd.read_parquet(artifacts.reading(f"data/sample/{setting}/{seed}") / "samples.parquet")
        samples = samples[samples["prompt_id"].isin(prompts["prompt_id"])]
        rows, completions, divergence = pick(prompts, samples, arm, settings.sample, setting, seed)
        judge = judges["local" if arm == "best_of_local" else "global"]
        metrics, by_prompt = held_out({"fresh": (judge, fresh), "pairs": (judge, test)})
        if arm != "best_of_soft":
            by_prompt["best_of"] = best_of_curve(prompts, samples, STORED[arm], score)
            metrics["best_of"] = by_prompt["best_of"].mean().to_dict()
    else:
        trained = Path(f"data/policy/{setting}/{seed}/{arm}")
        folder = {"base": base, "local": verifiers["local"]}.get(arm) or artifacts.reading(trained)
        policy = models.load_policy(folder, compute)
        rows = prompts.loc[prompts.index.repeat(chosen.completions)].reset_index(drop=True)
        rows["sample"] = np.tile(np.arange(chosen.completions), len(prompts))
        luck = Uniforms("evaluation", setting, seed)
        drawn = draw(policy, prompts.assign(visit=0), chosen.completions, corpus.world, chosen.temperature, luck)
        completions = [c for several in drawn for c in several]
        divergence = likelihood.kl(policy, reference, rows["prompt_ids"], completions)
        own = own_pairs(rows, completions, score, settings.preferences.noise)
        judged_pairs = {f"own_{name}": (judge, own) for name, judge in judges.items()}
        if arm != "base":
            judge = judges["local"] if arm == "local" else implicit(policy, reference, beta)
            judged_pairs |= {"fresh": (judge, fresh), "pairs": (judge, test)}
        metrics, by_prompt = held_out(judged_pairs)

    table = judged(rows, completions, divergence, corpus, score)
    for split, of_split in table.groupby("split", sort=False):
        named = {"win": "win_rate"}
        means = of_split.drop(columns=["prompt_id", "sample"]).mean(numeric_only=True).rename(named)
        metrics[split] = {name: float(value) for name, value in means.items()}
    finite({"completions": table, "prompts": by_prompt, "metrics": metrics}, f"data/evaluation/{setting}/{seed}/{arm}")
    with artifacts.writing(f"data/evaluation/{setting}/{seed}/{arm}") as out:
        table.to_parquet(out / "completions.parquet", index=False)
        prompts_table(by_prompt).to_parquet(out / "prompts.parquet")
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


def asked(setting: str, arm: str) -> tuple:
    """The params that the arm's stage declares in dvc.yaml, and the beta of a trained policy's implicit reward, else
    None."""
    common = ("evaluate", "compute", "reward.local_beta")
    if arm in STORED:
        return sections.of(setting, *common, "sample.best_of", "sample.beta"), None
    if arm in UNTRAINED:
        return sections.of(setting, *common, "preferences.noise"), None
    recipe = sections.of(setting, f"arms.{arm}").arms[arm]
    road = "online" if recipe.rounds else "offline"
    settings = sections.of(setting, *common, "preferences.noise", f"{road}.beta")
    return settings, recipe.beta or getattr(settings, road).beta


def judged(
    rows: pd.DataFrame, completions: list, divergence: np.ndarray, corpus, score: scoring.Scorer
) -> pd.DataFrame:
    """One row a completion: who asked, what came, what it is worth. ``win`` is against the prompt's reference (a draw
    counts half); where the reward is the overlap with that reference, there is nothing to win."""
    found = score(rows, completions)
    table = rows[["prompt_id", "split", "sample", "prompt", "reference"]].assign(
        completion=corpus.tokenizer.batch_decode(completions, skip_special_tokens=True),
        length=[float(len(c)) for c in completions],
        kl=divergence,
    )
    if corpus.world["reward"] != "rouge_l":
        theirs = score(rows, rows["reference_ids"].tolist())["true_reward"]
        table["win"] = (np.sign(found["true_reward"] - theirs) + 1) / 2
    return pd.concat([table, found.astype(float)], axis=1)


def prompts_table(by_prompt: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Index prompt_id, of test prompts; columns log_loss and accuracy (of "pairs"), own_global_log_loss, ...,
    best_of_1, best_of_2, ..."""
    tables = [
        found.add_prefix("" if name == "pairs" else f"{name}_") for name, found in by_prompt.items() if name != "fresh"
    ]
    return pd.concat(tables, axis=1).rename_axis("prompt_id") if tables else pd.DataFrame()


def pick(prompts: pd.DataFrame, samples: pd.DataFrame, arm: str, chosen, *of: object):
    """(rows, completions, KL to base) of an arm that trains nothing but picks from the m stored samples of a prompt.

    best_of, best_of_local: the best of each group of n by a reward model; its KL is the bound log n - (n - 1) / n.
    best_of_soft: m / n drawn with probability proportional to exp(score / beta), the reward model's soft optimum
    (paper, section 1.1) without an optimiser; its KL is that of these weights to uniform ones. Random numbers belong
    to ``of`` (setting and seed) and the prompt.
    """
    n, m = chosen.best_of, int(samples["sample"].max()) + 1
    scores = samples[STORED[arm]].to_numpy().reshape(-1, m)
    if arm == "best_of_soft":
        weights = softmax(scores / chosen.beta, axis=1)
        ids = samples["prompt_id"].to_numpy().reshape(-1, m)[:, 0]
        luck = Uniforms("soft optimum", *of)(ids, np.zeros_like(ids), m // n, 1)[:, :, 0]
        drawn = [np.searchsorted(row, of_prompt, side="right") for row, of_prompt in zip(weights.cumsum(axis=1), luck)]
        drawn = np.minimum(drawn, m - 1)  # type: ignore[assignment]  # a cumulative sum may end a hair below 1
        divergence = np.repeat((weights * np.log(np.maximum(weights * m, 1e-300))).sum(axis=1), m // n)
    else:
        drawn = scores[:, : m // n * n].reshape(-1, m // n, n).argmax(axis=2) + np.arange(m // n) * n
        divergence = np.full(len(scores) * (m // n), log(n) - (n - 1) / n)
    places = (np.arange(len(scores))[:, None] * m + np.asarray(drawn)).reshape(-1)
    picked = samples.iloc[places]
    rows = prompts.set_index("prompt_id").loc[picked["prompt_id"]].reset_index()
    rows["sample"] = np.tile(np.arange(m // n), len(scores))
    return rows, [list(map(int, ids)) for ids in picked["completion_ids"]], divergence


def best_of_curve(prompts: pd.DataFrame, samples: pd.DataFrame, column: str, score: scoring.Scorer) -> pd.DataFrame:
    """The true reward of best-of-k by a reward model, one row a test prompt and one column each k = "1", "2", "4", ...

    It is averaged exactly over all subsets of k of the m samples: the sample with rank i by score (1 is the lowest) is
    the best of a subset with probability C(i - 1, k - 1) / C(m, k).
    """
    samples = samples[samples["split"] == "test"]
    m = int(samples["sample"].max()) + 1
    rows = prompts.set_index("prompt_id").loc[samples["prompt_id"]].reset_index()
    rewards = score(rows, samples["completion_ids"].tolist())["true_reward"].to_numpy().reshape(-1, m)
    order = np.argsort(samples[column].to_numpy().reshape(-1, m), axis=1, kind="stable")
    ranked, curve, k = np.take_along_axis(rewards, order, axis=1), {}, 1
    while k <= m:
        weights = np.exp([_log_choose(i, k - 1) - _log_choose(m, k) if i >= k - 1 else -np.inf for i in range(m)])
        curve[str(k)] = ranked @ weights
        k *= 2
    return pd.DataFrame(curve, index=samples["prompt_id"].to_numpy()[::m])


def _log_choose(n: int, k: int) -> float:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


if __name__ == "__main__":
    command(run)
