"""Training a reward model on the pairs (the paper's hypotheses H5 and H6 compare two: the same base weights, the same
pairs, the same rate, in one the form of a policy).

In: the corpus, the base policy, the pairs.
Out: what the verifier trains (stages/verifiers has one file per kind).
"""

import json

from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.sections import asked
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(cell: str) -> None:
    """Train data/reward/<setting>/<seed>/<verifier>."""
    where, settings = asked("reward", cell, "verifiers.{verifier}", "compute")
    options, of = getattr(settings.verifiers, where.verifier), (where.setting, where.seed)
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    pairs, digest = read_pairs(*of, "train")
    scratch = artifacts.scratch("reward", where, options, settings.compute, artifacts.digest(base), digest)
    with artifacts.writing(f"data/reward/{where.setting}/{where.seed}/{where.verifier}") as out:
        verifier = rooms.load("verifiers", options.verifier)
        verifier.train(base, corpus, pairs, options, settings.compute, of, scratch, out)
        own = options.model_dump(exclude={"verifier"})
        said = {"verifier": options.verifier, "options": own, "line": verifier.LINE}
        (out / artifacts.VERIFIER).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    artifacts.forget(scratch)


if __name__ == "__main__":
    command(run)
