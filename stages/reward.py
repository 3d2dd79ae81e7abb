"""The two verifiers (the paper's hypotheses H5 and H6): the same base weights, the same pairs, the same rate.

In: the base policy, the pairs.
Out: ``global``, a reward model with a scalar head; ``local``, a policy whose implicit reward is one.
"""

from stages.learning import models, verifiers
from stages.records import artifacts, sections
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(setting: str, seed: int) -> None:
    """Train data/reward/<setting>/<seed>/global and local."""
    settings = sections.of(setting, "reward", "compute")
    corpus = corpora.load(artifacts.reading(f"data/corpus/{setting}"))
    base = artifacts.reading(f"data/base/{setting}")
    pairs, digest = read_pairs(setting, seed, "train")
    scratch = artifacts.scratch(
        "reward", setting, seed, settings.reward, settings.compute, artifacts.digest(base), digest
    )
    for name, model in verifiers.train(base, corpus, pairs, settings, (setting, seed), scratch).items():
        with artifacts.writing(f"data/reward/{setting}/{seed}/{name}") as out:
            models.save(model, corpus.tokenizer, out)
    artifacts.forget(scratch)


if __name__ == "__main__":
    command(run)
