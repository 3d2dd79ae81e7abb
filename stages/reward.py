"""Training a reward model on the pairs (the paper's hypotheses H5 and H6 compare two: the same base weights, the same
pairs, the same rate, in one the form of a policy).

In: the corpus, the base policy, the pairs.
Out: what the verifier trains (stages/verifiers has one file per kind).
"""

from stages.records import artifacts, cells, rooms
from stages.records.command import command
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(cell: str) -> None:
    """Train data/reward/<setting>/<seed>/<verifier>."""
    where, settings = cells.read("reward", cell, "verifiers.{verifier}", "compute")
    options, of = settings.verifiers[where.verifier], (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    pairs, digest = read_pairs(*of, "train")
    scratch = artifacts.scratch("reward", where, options, settings.compute, artifacts.digest(base), digest)
    with artifacts.writing(f"data/reward/{where.setting}/{where.seed}/{where.verifier}") as out:
        verifier = rooms.load("verifiers", where.verifier)
        verifier.train(base, corpus, pairs, options, settings.compute, of, scratch, out)
    artifacts.forget(scratch)


if __name__ == "__main__":
    command(run)
