"""The answer of one setting in words: the headline, best-of-n beside it, what speaks against both, what they rest on.

Every sentence is made from the numbers and the params; none of them is left out because it is unwelcome.
"""

import textwrap
from collections.abc import Sequence
from functools import cached_property

from stages.evidence import words
from stages.evidence.statistics import Estimate
from stages.evidence.study.measured import Measured
from stages.evidence.study.truth import Truth, beats_chance, share
from stages.records import arms

FEW = 5  # seeds below which the evidence is weak


class Answer:
    """What a setting says on the question which road pays."""

    def __init__(self, measured: Measured, truth: Truth):
        self.measured, self.study, self.truth = measured, measured.study, truth
        picks = self.study.best_of
        self.best_of = f"best-of-{self.study.recipe(measured.name, picks)['of']}" if picks else ""

    @cached_property
    def lead(self) -> Estimate | None:
        """Online minus offline in true reward on test prompts, paired; None if not both exist."""
        return self.measured.difference(*self.study.contrast) if self.study.contrast else None

    @cached_property
    def untrained(self) -> Estimate | None:
        """Best-of-n of the base policy minus the trained road that it is held against, measured in the same way."""
        if not (self.study.trained and self.study.best_of):
            return None
        return self.measured.difference(self.study.best_of, self.study.trained)

    def headline(self) -> str:
        """The answer, in one short sentence."""
        if self.truth.doubt:
            return "No headline: the true reward is not shown to be better than chance"
        if self.lead is None:
            everywhere = " in every setting" if self.study.settings[1:] else ""
            return f"No pair of an online and an offline arm to compare{everywhere}"
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
            f"The {verifier} RM is not shown to be better than chance: "
            + (
                f"accuracy {share(accuracy)} on held-out pairs. "
                if accuracy
                else "it was measured on no held-out pairs. "
            )
            + "Nothing here is shown to come through it."
            for verifier, accuracy in self._at_chance.items()
        ]
        if self._few():
            found.append(f"Weak evidence: {words.count(len(self.study.seeds), 'seed')}.")
        return found

    def lines(self, width: int) -> list[str]:
        """Headlines and doubts for a picture, in short lines of at most so many characters."""
        chance = [f"{verifier} RM not shown to be better than chance" for verifier in self._at_chance]
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
        if lead.low > 0 and labels in self._at_chance:
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
        levels = self._levels(self.study.best_of, self.study.trained)
        return f"{words.upper(self.best_of)} against {self.study.trained}: {self._interval(self.untrained)}; {levels}."

    def _by_seed(self) -> str:
        """The lead of each seed beside the held-out log-loss of the reward model that ranked for it."""
        if self.lead is None or len(self.study.seeds) == 1:
            return ""
        online, offline = (self.measured.values(arm, "test", "true_reward") for arm in self.study.contrast)
        leads = [words.number(a - b, self.measured.decimals, sign=True) for a, b in zip(online, offline, strict=True)]
        labels = self._labels()[0]
        losses = self.measured.of_pairs(labels, "log_loss") if labels else [None]
        if None in losses:
            return f"By seed: {', '.join(leads)}."
        shown = (f"{lead} ({words.number(loss, 3)})" for lead, loss in zip(leads, losses, strict=True))
        return f"By seed, with the held-out log-loss of its reward model: {', '.join(shown)}."

    @cached_property
    def _at_chance(self) -> dict[str, Estimate | None]:
        """The accuracies that are not shown to be better than chance (None: not measured) of the reward models that
        the headlines rest on."""
        found = {name: self.measured.judging(name, "accuracy") for name in dict.fromkeys(self._labels()) if name}
        return {name: accuracy for name, accuracy in found.items() if not (accuracy and beats_chance(accuracy))}

    def _few(self) -> bool:
        return len(self.study.seeds) < FEW

    def _labels(self) -> Sequence[str | None]:
        """The reward model behind the trained arm of the headline (None: it needs none), then that of best-of-n."""
        shown = [arm for arm in (self.study.trained, self.study.best_of) if arm]
        return [self.study.recipe(self.measured.name, arm).get("labels") for arm in shown]

    def _recipe(self, arm: str) -> dict[str, str]:
        """What decides how an arm is trained, as text."""
        one = self.study.recipe(self.measured.name, arm)
        size = one["prompts"] if "rounds" in one else one["batch"]
        return {
            "learning rate": f"{one['learning_rate']:g}",
            "beta": f"{one['beta']:g}",
            "steps": str(one["steps"]),
            "batch": f"{size} prompts × {one['completions']}" if "method" in one else f"{size} pairs",
            "loss": one.get("method") or " + ".join(one["loss"]),
            "start": one.get("start", arms.BASE),
        }

    def _interval(self, estimate: Estimate) -> str:
        mean = words.number(estimate.mean, self.measured.decimals, sign=True)
        low, high = (words.number(end, self.measured.decimals) for end in (estimate.low, estimate.high))
        return f"{mean}, 95% interval {f'{low} to {high}' if estimate.resolved else 'none'}"

    def _levels(self, *arms: str) -> str:
        means = (self.measured.estimates[arm, "test", "true_reward"].mean for arm in arms)
        text = " against ".join(words.number(mean, self.measured.decimals) for mean in means)
        highest = self.measured.world.facts.high
        return text + ("" if highest is None else f" of {highest:g}")
