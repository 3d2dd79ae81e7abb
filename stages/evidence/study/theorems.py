"""The theory page: each theorem with its numerical error, and the exact dial as a figure."""

import json
import math
from pathlib import Path

import pandas as pd
from scipy.stats import t

from stages.evidence.figures import plots

STATEMENTS = {  # theorem -> what it says
    "projection, argmax": "Soft RL returns exp(r / β) π_ref / Z, the reverse-KL projection",
    "projection, identity": "E[r] − β KL(π ‖ π_ref) = β log Z − β KL(π ‖ P*)",
    "isomorphic": "Two stages equal offline maximum likelihood when reward and policy classes are isomorphic, for any "
    "data, also with a reference, also for a mis-specified class",
    "not isomorphic": "With a larger reward class they differ (total variation; no error, but the gap allowed)",
    "simple reward class": "Two stages with a simple reward class: maximum likelihood over the policies optimal for it",
    "SPIN game": "The SPIN-like game has the optimum of SFT",
}
SMOOTHING = 10.0  # virtual votes of the curves that are drawn; dial.parquet has the others


class Theory:
    """What the theory stage found, as the templates want it (``folder``: its verified artifact)."""

    def __init__(self, folder: Path):
        self.summary = json.loads((folder / "summary.json").read_text())
        self.points = pd.read_parquet(folder / "dial.parquet").query("votes == @SMOOTHING")

    def rows(self) -> list[tuple[str, int, str]]:
        """(statement, cases, bound of the errors or mean gap) of each theorem."""
        found = self.summary["theorems"]
        return [
            (
                statement,
                found[name]["cases"],
                below(found[name]["largest"]) if "largest" in found[name] else f"mean {found[name]['mean']:.2f}",
            )
            for name, statement in STATEMENTS.items()
        ]

    def dial(self) -> str:
        """The figure: how much less soft regret two stages have than offline, against the reward's dimension."""
        lead = self.points.assign(lead=self.points["offline"] - self.points["two_stage"])
        by_point = lead.groupby(["pairs", "dimension"])["lead"].agg(["mean", "sem"]).reset_index()
        lines = {
            f"{pairs} pairs": (rows["dimension"], rows["mean"], rows["sem"] * t.ppf(0.975, self.seeds - 1))
            for pairs, rows in by_point.groupby("pairs")
        }
        return plots.dial(lines, "dimension of the reward class (26: all rewards)", "lead in soft regret (nats)")

    @property
    def seeds(self) -> int:
        """Seeds behind each point of the dial."""
        return self.points["seed"].nunique()


def below(error: float) -> str:
    """The power of ten that an error lies below: its digits are roundings, which differ from one CPU to the next."""
    return f"< 1e{math.floor(math.log10(error)) + 1}" if error else "0"
