"""What stands for the true reward of a setting, and whether a headline may rest on it."""

from dataclasses import dataclass

import pandas as pd

from stages.evidence import statistics
from stages.evidence.statistics import Estimate
from stages.evidence.study.cells import World
from stages.evidence.words import count, written

CHANCE = 0.5  # accuracy of a coin on pairs


@dataclass(frozen=True)
class Truth:
    """One sentence on what the true reward is, and how good; ``doubt`` says why no headline may rest on it, and what
    to do (empty where one may)."""

    sentence: str
    doubt: str = ""


def truth(setting: str, world: World, judge: tuple[dict, pd.DataFrame] | None) -> Truth:
    """What the true reward of a setting is; judge: what cells.read_judge found, where the true reward is a judge."""
    if judge is None:
        return Truth(f"The true reward is {world.facts.truth}.")
    numbers, by_prompt = judge
    what = (
        "The true reward is the score of a judge, a reward model made from the same base policy and trained on "
        f"{count(numbers['trained_on'], 'pair')} of the data's own, which no other reward model and no policy learns "
        "its preferences from"
    )
    mend = (
        f"Give the judge more pairs (import more, or raise settings.{setting}.corpus.judge) or a better model "
        f"(settings.{setting}.base)."
    )
    if not numbers["pairs"]:
        lack = "its accuracy is not known, as the data have no pairs on validation or test prompts"
        return Truth(f"{what}; {lack}.", f"How good the judge is could not be measured. {mend}")
    accuracy = statistics.accuracy(by_prompt["accuracy"].to_numpy()[None])
    pairs = f"{count(numbers['pairs'], 'pair')} on {count(numbers['prompts'], 'other prompt')}"
    good = f"{what}. It agrees with the label of {share(accuracy)} of {pairs}, which nothing was trained on."
    if beats_chance(accuracy):
        return Truth(good)
    return Truth(
        good, f"The judge is not shown to be better than chance: its accuracy is {share(accuracy)}, on {pairs}. {mend}"
    )


def beats_chance(accuracy: Estimate) -> bool:
    """Whether an accuracy on pairs is shown to be better than a coin's."""
    return accuracy.resolved and accuracy.low > CHANCE


def share(accuracy: Estimate) -> str:
    """An accuracy as the report writes it, with its interval."""
    mean, interval = written(accuracy, 3)
    return f"{mean} ({interval or 'no interval'})"
