"""The corpus: prompts in splits, demonstrations, tokenizer, and what the true reward needs to know.

In: params; for a text setting, the data below data/inputs/<setting>.
Out: data/corpus/<setting>, the same tables for every kind of world (stages/worlds/corpora.py).
"""

from pathlib import Path

from stages.records import artifacts, sections
from stages.records.command import command
from stages.worlds import roads, text


def run(setting: str) -> None:
    """Write data/corpus/<setting>."""
    chosen = sections.of(setting, "corpus", "compute.numerics").corpus  # this process is of these numerics
    if chosen.world == "roads":
        corpus = roads.build(chosen, setting)
    else:
        corpus = text.build(chosen, Path(f"data/inputs/{setting}"), setting)
    with artifacts.writing(f"data/corpus/{setting}") as out:
        corpus.save(out)


if __name__ == "__main__":
    command(run)
