"""The corpus: prompts in splits, demonstrations, tokenizer, and what the true reward needs to know.

In: params; for a setting whose world reads imported data, those below data/inputs/<setting>.
Out: data/corpus/<setting>, the same tables for every world (stages/worlds/corpora.py).
"""

from pathlib import Path

from stages.records import artifacts, rooms, sections
from stages.records.command import command



def run(setting: str) -> None:
    """Write data/corpus/<setting>."""
    chosen = sections.of(setting, "corpus", "compute.numerics").corpus  # this process is of these numerics
    corpus = rooms.load("worlds", chosen.world).build(chosen, Path(f"data/inputs/{setting}"), setting)
    corpus.world["name"] = chosen.world
    with artifacts.writing(f"data/corpus/{setting}") as out:
        corpus.save(out)


if __name__ == "__main__":
    command(run)
