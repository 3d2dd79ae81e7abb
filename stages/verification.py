"""The generation-verification gap, measured: how many pairs each kind of reward model needs (the paper's H6).

In: the base policy, the pairs.
Out: losses.parquet, one row for each number of pairs, which halves until ``halvings`` are done: the held-out log-loss
(nats a pair) of the global and of the local reward model trained on the first so many pairs. Where the verifier is the
simpler object, the global one reaches the other's loss with fewer pairs.
"""

import pandas as pd

from stages.learning import models, verifiers
from stages.learning.judging import held_out, implicit, scalar
from stages.records import artifacts, sections
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(setting: str, seed: int) -> None:
    """Write data/evaluation/<setting>/<seed>/verification."""
    settings = sections.of(setting, "verification", "reward", "compute")
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    test, _ = read_pairs(setting, seed, "test")
    reference = models.load_policy(base, settings.compute)

    rows = []
    for count in [len(pairs) >> halving for halving in range(settings.verification.halvings + 1)]:
        inputs = (settings.reward, settings.compute, artifacts.digest(base), digest)
        scratch = artifacts.scratch("verification", setting, seed, count, *inputs)
        of = (setting, seed, "verification", count)
        trained = verifiers.train(base, corpus, pairs[:count], settings, of, scratch)
        artifacts.forget(scratch)
        judges = {
            "global": scalar(trained["global"]),
            "local": implicit(trained["local"], reference, settings.reward.local_beta),
        }
        found, _ = held_out({name: (judge, test) for name, judge in judges.items()})
        rows.append({"pairs": count, **{name: found[name]["log_loss"] for name in judges}})
    with artifacts.writing(f"data/evaluation/{setting}/{seed}/verification") as out:
        pd.DataFrame(rows).to_parquet(out / "losses.parquet", index=False)


if __name__ == "__main__":
    command(run)
