"""What a road costs, counted from the params: optimisation steps and completions drawn, whatever the machine."""

from math import ceil
from statistics import mean
from typing import NamedTuple

from stages.evidence.study.cells import Study, World
from stages.records import arms


class Cost(NamedTuple):
    """What an arm costs beyond the base policy and the preference pairs, which all arms share."""

    reward_steps: int  # of the reward models that it needs, and that the policies need which it goes on from
    policy_steps: int  # of its policy, and of the policies that it goes on from
    drawn: int  # distinct completions that were drawn to train it; the mean over worlds, where seeds have their own
    per_answer: int  # completions drawn for each answer, once it is in use


def cost(study: Study, world: World, setting: str, arm: str) -> Cost:
    """The cost of an arm in a setting."""
    params, one = study.params[setting], study.recipe(setting, arm)
    *line, start = arms.line(arm, params["arms"], params)
    models = {start, *(params["arms"][name].get("labels") for name in line)} & params["verifiers"].keys()
    judges = sum(_steps(params["verifiers"][name], pairs(study, world, setting)) for name in models)
    if "pick" in one:
        return Cost(judges, 0, 0, one.get("of", params["sample"]["completions"]))
    before = cost(study, world, setting, line[1]) if line[1:] else Cost(0, 0, 0, 1)
    if study.kind(arm) not in arms.TRAINED:
        return Cost(judges, before.policy_steps, before.drawn, 1)
    steps = before.policy_steps + one["steps"]
    if "rounds" not in one:
        return Cost(judges, steps, before.drawn, 1)
    in_a_round = one["steps"] // one["rounds"] * one["prompts"]  # prompts asked, some of them perhaps several times
    fresh = in_a_round * (one["rounds"] - 1) * one["completions"] + before.drawn
    if line[1:] or start != arms.BASE:
        return Cost(judges, steps, fresh + in_a_round * one["completions"], 1)
    # From the base policy the first round takes stored completions, in groups, and a prompt's again when all are used.
    groups = params["sample"]["completions"] // one["completions"]
    stored = [_stored(in_a_round, ceil(one.get("share", 1.0) * prompts), groups) for prompts in world.train_prompts]
    return Cost(judges, steps, fresh + round(mean(stored) * one["completions"]), 1)


def _stored(turns: int, prompts: int, groups: int) -> int:
    """How many stored groups of completions so many turns take, if each prompt has ``groups``."""
    each, more = divmod(turns, prompts)
    return more * min(each + 1, groups) + (prompts - more) * min(each, groups)


def _steps(options: dict, pairs: int) -> int:
    """Optimisation steps of a reward model; none of one that is not trained."""
    return ceil(options["epochs"] * ceil(pairs / options["batch"])) if "epochs" in options else 0


def pairs(study: Study, world: World, setting: str) -> int:
    """Preference pairs that all arms of a setting learn from: as many as params say, or as the data have."""
    wanted = study.params[setting]["preferences"]["pairs"]
    return wanted if world.pairs is None else min(wanted, world.pairs)
