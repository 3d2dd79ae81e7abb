"""Whether to go online, in words: the answer in one sentence, and what speaks for it.

Every sentence is made from the numbers. A measured lead decides; without one, what the published studies predict is
passed on as a prediction; without either, nothing is said but what would decide.
"""

from collections.abc import Sequence

from stages.evidence import words
from stages.evidence.advice import prediction
from stages.evidence.advice.prediction import EVEN, Shown
from stages.evidence.advice.signs import Lead, Signs
from stages.evidence.study.truth import beats_chance

MARGIN = 0.05  # how far a win rate must be able to lie above one half to be worth a longer road
Interval = tuple[float, float, float]  # mean, low, high of a win rate


def answer(lead: Lead | None, predicted: Interval | None, found: Signs, doubt: str) -> str:
    """The answer for one setting, in one sentence.

    lead: measured, where both policies were trained; predicted: by the studies; doubt: what is wrong with the true
    reward, if anything is.
    """
    if doubt:
        return "No answer: the true reward is not shown to be better than chance."
    if lead:
        return _measured(lead, found)
    if predicted is None:
        return "Not known yet: the two policies were not trained here, and there is no comparable evidence."
    said = f"where judging was this much easier, online beat offline in {percent(*predicted)} of answers"
    if predicted[1] > EVEN:
        return f"Probably: {said}."
    if predicted[2] < EVEN:
        return f"Probably not: {said}."
    return f"Not known yet: {said}, which leaves it open."


def because(found: Signs, decimals: int) -> list[str]:
    """What was measured before any policy was trained, a sentence each; decimals: of a true reward."""
    said = []
    if found.gap:
        size = _interval(*words.written(found.gap, 3))
        shown = "" if found.gap.low > 0 else "; that judging is easier than generating is not shown"
        said.append(
            f"The gap between judging and generating: the global reward model, which only judges, has a held-out "
            f"log-loss {size} nats per pair lower than the local one, which is a policy as well{shown}."
        )
    else:
        said.append(f"The gap was not measured: list {' and '.join(prediction.JUDGES)} under study.verifiers.")
    if found.accuracy and not beats_chance(found.accuracy):
        accuracy = _interval(*words.written(found.accuracy, 3))
        said.append(f"The global reward model is not shown to be better than chance: accuracy {accuracy}.")
    if found.lift:
        most = f", of {words.number(found.most, decimals, sign=True)} if the true reward picked" if found.most else ""
        said.append(
            f"Best of {found.picked} without training: picking among stored samples by the global reward model adds "
            f"{_interval(*words.written(found.lift, decimals))} to the base policy's true reward of "
            f"{words.number(found.base, decimals)}{most}."
        )
    if found.coverage:
        low, high = (f"{end:.0%}" for end in found.coverage[1:3]) if found.coverage.resolved else ("", "")
        said.append(
            f"Coverage: for {found.coverage.mean:.0%}{f' ({low} to {high})' if low else ''} of the test prompts the "
            f"{found.samples} stored samples hold a good completion, one of the best tenth of all."
        )
    return said


def expected(found: Signs, settings: Sequence[Shown], predicted: Interval | None) -> str:
    """What the published studies predict, or why they predict nothing; empty where the gap is not known."""
    if not found.gap:
        return ""
    families = prediction.families(settings)
    of = f"{words.count(len(settings), 'setting')} of {families} {'family' if families == 1 else 'families'}"
    if prediction.too_few(settings):
        least = f"{prediction.FEWEST['settings']} of {prediction.FEWEST['families']} families"
        return f"No comparable evidence: the published studies show {of}, and a prediction needs {least}."
    if predicted is None:
        gaps = [one.gap for one in settings]
        return (
            f"No comparable evidence: this gap lies outside of those that the published studies measured, "
            f"{words.number(min(gaps), 3)} to {words.number(max(gaps), 3)} nats per pair in {of}."
        )
    return (
        f"By the published studies ({of}), a setting with this gap has online ahead in {percent(*predicted)} of "
        "answers; the interval is that of one new setting."
    )


def decides(lead: Lead | None, found: Signs, seeds: int, rest: str, command: str) -> str:
    """What would decide where nothing does yet; empty where it is decided.

    seeds: that the study has; rest: how long what was not made yet takes; command: that makes it.
    """
    if not lead:
        return f"Training both policies decides it: `{command}`{f', about {rest}' if rest else ''}."
    if lead.clear and (lead.win.mean < EVEN or _judges(found)):
        return ""
    if lead.clear:
        return "A better reward model, or more held-out pairs to measure it on, would decide it."
    if lead.needed is None:
        return "More seeds, each a new sample of preferences and new policies, would say how sure this is."
    if lead.needed <= seeds:
        return "More test prompts would decide it."
    return f"If the difference is as large as it looks, {lead.needed} seeds have an even chance to show it."


def percent(mean: float, low: float, high: float) -> str:
    """A win rate and its interval."""
    return f"{mean:.0%} ({low:.0%} to {high:.0%})"


def _measured(lead: Lead, found: Signs) -> str:
    win = lead.win
    share = percent(*win[:3]) if win.resolved else f"{win.mean:.0%} (no interval)"
    said = f"online beats offline in {share} of answers"
    if not lead.clear:
        return f"Not decided: {said}."
    if win.mean < EVEN:
        return f"No: {said}."
    if win.high < EVEN + MARGIN:
        return f"Hardly: {said}, so it is ahead, but by less than {MARGIN:.0%} of them."
    if not _judges(found):
        return f"Not decided: {said}, but its reward model is not shown to be better than chance."
    return f"Yes: {said}."


def _judges(found: Signs) -> bool:
    """Whether the reward model of online is shown to be better than chance."""
    return bool(found.accuracy and beats_chance(found.accuracy))


def _interval(mean: str, interval: str) -> str:
    return f"{mean} ({interval or 'no interval'})"
