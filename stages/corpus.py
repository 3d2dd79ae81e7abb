"""The corpus: prompts in splits, demonstrations, tokenizer, and what the true reward needs to know.

In: params; for a setting whose world reads imported data, those below data/inputs/<setting>.
Out: data/corpus/<setting>, the same tables for every world (stages/worlds/corpora.py).
"""

from pathlib import Path

from stages.records import artifacts, rooms
from stages.records.command import command
from stages.records.sections import asked
from stages.worlds import corpora


def run(cell: str) -> None:
    """Write data/corpus/<setting>, or data/corpus/<setting>/<seed> where each seed redraws the world."""
    where, settings = asked("corpus", cell, "corpus", "compute.numerics")  # this process is of these numerics
    chosen, of = settings.corpus, corpora.drawn(where, settings.corpus)
    corpus = rooms.load("worlds", chosen.world).build(chosen, Path(where.inputs), of)
    corpus.world["name"] = chosen.world
    corpora.hold_out(corpus, chosen.held_out, of)
    with artifacts.writing(where.out) as out:
        corpus.save(out)


if __name__ == "__main__":
    command(run)
