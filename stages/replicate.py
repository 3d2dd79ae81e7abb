"""What a study keeps of one replicate, that is of one setting and seed: all that its report and its claims read of it.

In: the corpus, the base policy, and all evaluations, policies, judgements and verifications of the setting and seed.
Out: their small files (FILES), below the name of their kind; of an evaluation also by_prompt.parquet, the means over
the completions of each prompt of SPLITS, and first.parquet, the first completion of each test prompt; counts.json, of
train prompts and pairs; sources.json, which artifacts these are of, by the SHA-256 of their manifests.

It is small, so that git keeps it: a study is published replicate by replicate, and reported without its policies.
"""

import json
import shutil
from pathlib import Path

import pandas as pd

from stages.records import artifacts
from stages.records.artifacts import VERIFIER
from stages.records.command import command
from stages.records.numbers import refuse_infinite
from stages.records.sections import asked

FILES = {
    "corpus": ("world.json", "rules.json"),
    "base": ("metrics.json", "judge/held_out.parquet"),
    "evaluation": ("metrics.json", "prompts.parquet"),
    "policy": ("curve.parquet",),
    "judge": ("metrics.json", "prompts.parquet", VERIFIER),
    "verification": ("losses.parquet",),
}
SHARED = ("corpus", "base")  # of which a replicate has one
MEASURES = ("true_reward", "win", "kl", "length")  # of one completion, in every world; columns, where they apply
SPLITS: dict[str, list[str]] = {"test": [], "train": ["true_reward"]}  # what is kept by prompt: these measures, or all


def run(cell: str) -> None:
    """Write data/replicate/<setting>/<seed>."""
    where, _ = asked("replicate", cell)
    made = {where.corpus: ("corpus", ""), where.base: ("base", "")}
    for kind, stages in where.artifacts.items():
        made |= {f"{where.folders[kind]}/{name}": (kind, stage) for name, stage in stages.items()}
    with artifacts.writing(where.out) as out:
        gather(made, out)


def gather(made: dict[str, tuple[str, str]], out: Path) -> None:
    """Write all that is kept of artifacts, the corpus first.

    made: path -> its kind, and the stage that has made it. Raises UserError for one that is missing or was changed, and
    for a completion with a measure that is not finite.
    """
    for path, (kind, stage) in made.items():
        folder, copy = artifacts.reading(path), out / kind / ("" if kind in SHARED else Path(path).name)
        for name in (name for name in FILES[kind] if (folder / name).exists()):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, copy / name)
        if kind == "corpus":
            facts = json.loads((copy / "world.json").read_text(encoding="utf-8"))["facts"]
            measures = [*MEASURES, *(name for name, *_ in facts["columns"])]
            _write(counts(folder), out / "counts.json")
        if kind == "evaluation":
            completions = pd.read_parquet(folder / "completions.parquet")
            known = [name for name in measures if name in completions]
            refuse_infinite(completions[known], folder / "completions.parquet", stage)
            summarise(completions, known, copy)
    _write({path: artifacts.digest(path) for path in made}, out / "sources.json")


def summarise(completions: pd.DataFrame, known: list[str], out: Path) -> None:
    """Write by_prompt.parquet, of the ``known`` measures, and first.parquet of an arm's completions."""
    means = completions[known].astype(float).groupby([completions["split"], completions["prompt_id"]]).mean()
    there = means.index.get_level_values("split")
    parts = [means.loc[there == split, kept or known] for split, kept in SPLITS.items()]
    pd.concat(parts).to_parquet(out / "by_prompt.parquet")
    test = completions[completions["split"] == "test"]
    first = test.sort_values("sample", kind="stable").drop_duplicates("prompt_id")
    sizes = test.groupby("prompt_id").size()
    shown = [name for name in completions if not name.endswith("_ids")]
    first[shown].assign(completions=first["prompt_id"].map(sizes)).to_parquet(out / "first.parquet", index=False)


def counts(corpus: Path) -> dict[str, int | None]:
    """How many prompts of a corpus train, and how many labelled pairs its data bring for that; None where samples are
    labelled instead."""
    pairs = corpus / "pairs.parquet"
    return {
        "train_prompts": _train(corpus / "prompts.parquet"),
        "pairs": _train(pairs) if pairs.exists() else None,
    }


def _train(table: Path) -> int:
    return int((pd.read_parquet(table, columns=["split"])["split"] == "train").sum())


def _write(found: dict, path: Path) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    command(run)
