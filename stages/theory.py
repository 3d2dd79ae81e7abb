"""The paper's theorems and the exact dial, on policies small enough to enumerate.

In: params alone. Out: theorems.parquet, one row per theorem and case with its numerical error; dial.parquet, the soft
regret of both roads against the dimension of the reward class; summary.json, the extremes and means of both.
"""

import json
from pathlib import Path

import pandas as pd

from stages.exact.dial import turn
from stages.exact.theorems import cases
from stages.records import artifacts, plain
from stages.records.command import command
from stages.records.params import Theory
from stages.records.schema import checked

GAPS = {"not isomorphic"}  # what must not vanish; the error of everything else must


def run() -> None:
    """Write data/theory."""
    write(checked(Theory, plain.read(plain.PARAMS)["theory"], f"{plain.PARAMS}: theory"), "data/theory")


def write(theory, folder: str | Path) -> None:
    """The artifact of a ``theory`` section of params, in ``folder``."""
    theorems, dial = cases(theory), turn(theory.dial)
    with artifacts.writing(folder) as out:
        theorems.to_parquet(out / "theorems.parquet", index=False)
        dial.to_parquet(out / "dial.parquet", index=False)
        (out / "summary.json").write_text(json.dumps(summary(theorems, dial), indent=1) + "\n")


def summary(theorems: pd.DataFrame, dial: pd.DataFrame) -> dict:
    """Per theorem the number of cases and the largest error, or the smallest and mean gap; the dial's means over seeds
    by votes, pairs and dimension, and how far the roads are apart where the reward class is full."""
    found = {}
    for theorem, error in theorems.groupby("theorem")["error"]:
        extremes = {"smallest": error.min(), "mean": error.mean()} if theorem in GAPS else {"largest": error.max()}
        found[theorem] = {"cases": len(error), **{name: float(value) for name, value in extremes.items()}}
    means = dial.groupby(["votes", "pairs", "dimension"])[["two_stage", "offline"]].mean().reset_index()
    full = dial[dial["dimension"] == dial["dimension"].max()]
    return {
        "theorems": found,
        "dial": means.to_dict(orient="records"),
        "apart_at_largest_dimension": float((full["two_stage"] - full["offline"]).abs().max()),
    }


if __name__ == "__main__":
    command(run)
