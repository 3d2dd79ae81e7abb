"""The generation-verification gap, measured: how many pairs a kind of reward model needs (the paper's H6).

In: the corpus, the base policy, the pairs.
Out: losses.parquet, one row for each number of pairs, which halves until ``halvings`` are done: the held-out log_loss
(nats per pair) of the reward model trained on the first so many pairs. Where the verifier is the simpler object, the
global one reaches the other's loss with fewer pairs.
"""

import pandas as pd

from stages.learning import judging
from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.errors import UserError
from stages.records.sections import asked
from stages.worlds import corpora
from stages.worlds.pairs import read_pairs


def run(cell: str) -> None:
    """Write data/verification/<setting>/<seed>/<verifier>."""
    where, settings = asked("verification", cell, "verifiers.{verifier}", "verification", "compute")
    options, compute, of = getattr(settings.verifiers, where.verifier), settings.compute, (where.setting, where.seed)
    pairs, digest = read_pairs(*of, "train")
    test, _ = read_pairs(*of, "test")
    counts = [len(pairs) >> halving for halving in range(settings.verification.halvings + 1)]
    if not counts[-1]:
        raise UserError(
            f"settings.{where.setting}.verification.halvings = {len(counts) - 1} leaves none of the {len(pairs)} pairs "
            "that its data bring to learn from: lower it."
        )
    corpus = corpora.load(artifacts.reading(where.corpus))
    base = artifacts.reading(where.base)
    verifier = rooms.load("verifiers", options.verifier)

    rows = []
    for count in counts:
        scratch = artifacts.scratch("verification", where, count, options, compute, artifacts.digest(base), digest)
        trained = scratch / "trained"
        trained.mkdir(parents=True, exist_ok=True)
        verifier.train(base, corpus, pairs[:count], options, compute, (*of, "verification", count), scratch, trained)
        judge = verifier.judge(trained, base, corpus, options, compute)
        found, _ = judging.held_out(judge, corpus, {"pairs": test})
        rows.append({"pairs": count, "log_loss": found["pairs"]["log_loss"]})
        artifacts.forget(scratch)
    with artifacts.writing(f"data/verification/{where.setting}/{where.seed}/{where.verifier}") as out:
        pd.DataFrame(rows).to_parquet(out / "losses.parquet", index=False)


if __name__ == "__main__":
    command(run)
