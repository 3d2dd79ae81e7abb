"""The answer of one setting in words: the headline, best-of-n beside it, what speaks against both, what they rest on.

Every sentence is made from the numbers and the params; none of them is left out because it is unwelcome.
"""

import textwrap
from collections.abc import Sequence
from functools import cached_property

from stages.evidence import words
from stages.evidence.measured import CARRIES, Measured
from stages.evidence.plots import VERIFIERS
from stages.evidence.statistics import Estimate
from stages.evidence.truth import Truth, beats_chance, share

FEW = 5  # seeds below which the evidence is weak


class Answer:
    """What a setting says on the question which road pays."""

    def __init__(self, measured: Measured, truth: Truth):
        self.measured, self.study, self.truth = measured, measured.study, truth
        self.best_of = f"best-of-{self.study.params[measured.name]['sample']['best_of']}"

    @cached_property
    def lead(self) -> Estimate | None:
        """Online minus offline in true reward on test prompts, paired on seed and prompt; None if not both exist."""
        return self.measured.difference(*self.study.contrast, "lead") if self.study.contrast else None

    @cached_property
    def untrained(self) -> Estimate | None:
        """Best-of-n of the base policy minus the trained road that it is held against, measured in the same way."""
        if not (trained := self.study.trained):
            return None
        return self.measured.difference("best_of", trained, "lead", "best_of", trained)

    def headline(self) -> str:
        """The answer, in one short sentence."""
        if self.truth.doubt:
            return "No headline: the true reward is not shown to be better than chance"
        if self.lead is None:
            return "No pair of an online and an offline arm to compare"
        return self._compared(*self.study.contrast, self.lead, self._labels()[0])

    def without_training(self) -> str:
        """How best-of-n of the base policy, which trains no policy, compares; empty where there is nothing to say."""
        if self.truth.doubt or self.untrained is None:
            return ""
        name = f"{self.best_of} without training a policy"
        return self._compared(name, self.study.trained, self.untrained, self._labels()[-1])

    def doubts(self) -> list[str]:
        """What a reader must know before believing the headlines: shown beside them."""
        found = [self.truth.doubt] if self.truth.doubt else []
        found += [
            f"The {VERIFIERS[arm]} is not shown to be better than chance: "
            + (
                f"accuracy {share(accuracy)} on held-out pairs. "
                if accuracy
                else "it was measured on no held-out pairs. "
            )
            + "Nothing here is shown to come through it."
            for arm, accuracy in self._at_chance.items()
        ]
        if self._few():
            found.append(f"Weak evidence: {words.count(len(self.study.seeds), 'seed')}.")
        return found

    def lines(self, width: int) -> list[str]:
        """Headlines and doubts for a picture, in short lines of at most so many characters."""
        chance = [f"{VERIFIERS[arm]} not shown to be better than chance" for arm in self._at_chance]
        few = [f"weak evidence: {words.count(len(self.study.seeds), 'seed')}"] if self._few() else []
        said = [self.headline(), self.without_training(), "; ".join(chance + few)]
        return [line for text in said if text for line in textwrap.wrap(words.upper(text), width)]

    def details(self) -> list[str]:
        """What the headlines rest on: intervals, levels, the KL of both arms, each seed, how both were trained."""
        if self.truth.doubt:
            return []
        return list(filter(None, (self._of_lead(), self._of_untrained(), self._by_seed(), self.recipes())))

    def recipes(self) -> str:
        """In what the training of the two compared arms differs, and in what it does not."""
        if self.lead is None:
            return ""
        ours, theirs = (self._recipe(arm) for arm in self.study.contrast)
        apart = [f"{name} {ours[name]} against {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        equal = [f"{name} {ours[name]}" for name in ours if ours[name] == theirs[name]]
        online, offline = self.study.contrast
        said = f"{words.upper(online)} and {offline} were trained with "
        if not apart:
            return f"{said}the same {', '.join(equal)}."
        return f"{said}{', '.join(apart)}" + (f"; both with {', '.join(equal)}." if equal else ".")

    def _compared(self, first: str, second: str, lead: Estimate, labels: str | None) -> str:
        """One sentence on a lead of the first, which owes it to what ``labels`` names: none is claimed for chance."""
        size = words.number(abs(lead.mean), self.measured.decimals)
        if lead.low > 0 and CARRIES.get(labels) in self._at_chance:
            doubt = "its reward model is not shown to be better than chance"
            return f"{first} is ahead of {second} by {size}, but no lead is claimed: {doubt}"
        if lead.low > 0:
            return f"{first} leads {second} by {size}"
        if lead.high < 0:
            return f"{first} trails {second} by {size}"
        reason = "the interval includes 0" if lead.resolved else "no interval: nothing varied"
        sign = words.number(lead.mean, self.measured.decimals, sign=True)
        return f"No clear lead of {first} over {second}: {sign}, {reason}"

    def _of_lead(self) -> str:
        if self.lead is None:
            return ""
        text = f"In true reward: {self._interval(self.lead)}; {self._levels(*self.study.contrast)}."
        kl = [self.measured.estimates.get((arm, "test", "kl")) for arm in self.study.contrast]
        if None not in kl:
            text += " KL to base {} against {}, not matched.".format(*(words.number(e.mean, 2) for e in kl))
        return text

    def _of_untrained(self) -> str:
        if self.untrained is None:
            return ""
        levels = self._levels("best_of", self.study.trained)
        return f"{words.upper(self.best_of)} against {self.study.trained}: {self._interval(self.untrained)}; {levels}."

    def _by_seed(self) -> str:
        """The lead of each seed beside the held-out log-loss of the reward model that ranked for it."""
        if self.lead is None or len(self.study.seeds) == 1:
            return ""
        online, offline = (self.measured.values(arm, "test", "true_reward") for arm in self.study.contrast)
        leads = [words.number(a - b, self.measured.decimals, sign=True) for a, b in zip(online, offline, strict=True)]
        carries = CARRIES.get(self._labels()[0])
        losses = self.measured.values(carries, "pairs", "log_loss") if carries else [None]
        if None in losses:
            return f"By seed: {', '.join(leads)}."
        shown = (f"{lead} ({words.number(loss, 3)})" for lead, loss in zip(leads, losses, strict=True))
        return f"By seed, with the held-out log-loss of its reward model: {', '.join(shown)}."

    @cached_property
    def _at_chance(self) -> dict[str, Estimate | None]:
        """The accuracies that are not shown to be better than chance (None: not measured) of the reward models that
        the headlines rest on, by the arm that carries their numbers."""
        carry = [CARRIES[labels] for labels in dict.fromkeys(self._labels()) if labels in CARRIES]
        found = {arm: self.measured.judging(arm, "accuracy") for arm in carry}
        return {arm: accuracy for arm, accuracy in found.items() if not (accuracy and beats_chance(accuracy))}

    def _few(self) -> bool:
        return len(self.study.seeds) < FEW

    def _labels(self) -> Sequence[str | None]:
        """Who ranks for the online arm of the headline, then who does for best-of-n."""
        trained = self.study.trained
        return ([self.study.recipe(self.measured.name, trained)[0].labels] if trained else []) + ["reward"]

    def _recipe(self, arm: str) -> dict[str, str]:
        """What decides how an arm is trained, as text."""
        recipe, chosen = self.study.recipe(self.measured.name, arm)
        size = chosen.prompts if recipe.rounds else chosen.batch
        from_offline = arm in self.study.online_from_offline
        return {
            "learning rate": f"{chosen.learning_rate:g}",
            "beta": f"{chosen.beta:g}",
            "steps": str(chosen.steps),
            "batch": f"{size} prompts × {chosen.completions}" if recipe.method else f"{size} pairs",
            "loss": recipe.method or " + ".join(recipe.loss),
            "start": "offline" if from_offline else "base",
        }

    def _interval(self, estimate: Estimate) -> str:
        mean = words.number(estimate.mean, self.measured.decimals, sign=True)
        low, high = (words.number(end, self.measured.decimals) for end in (estimate.low, estimate.high))
        return f"{mean}, 95% interval {f'{low} to {high}' if estimate.resolved else 'none'}"

    def _levels(self, *arms: str) -> str:
        means = (self.measured.estimates[arm, "test", "true_reward"].mean for arm in arms)
        text = " against ".join(words.number(mean, self.measured.decimals) for mean in means)
        return text + (" of 6" if self.measured.kind == "roads" else "")
