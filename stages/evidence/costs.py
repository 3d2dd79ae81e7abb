"""What a road costs, counted from the params: optimisation steps and completions drawn, whatever the machine."""

from math import ceil
from typing import NamedTuple

from stages.evidence.cells import PICKED, Study, World

OPTIMUM = "best_of_soft"  # of the arms that pick, the one that weighs all stored completions of a prompt


class Cost(NamedTuple):
    """What an arm costs beyond the base policy and the preference pairs, which all arms share."""

    reward_steps: int  # of the reward model that it needs
    policy_steps: int  # of its policy, and of the policy that it goes on from
    drawn: int  # distinct completions that were drawn to train it
    per_answer: int  # completions drawn for each answer, once it is in use


def cost(study: Study, world: World, setting: str, arm: str) -> Cost:
    """The cost of an arm in a setting."""
    params = study.params[setting]
    reward, sample = params["reward"], params["sample"]
    to_judge = ceil(reward["epochs"] * ceil(pairs(study, world, setting) / reward["batch"]))
    if arm == "base":
        return Cost(0, 0, 0, 1)
    if arm == "local":
        return Cost(to_judge, 0, 0, 1)
    if arm in PICKED:
        return Cost(to_judge, 0, 0, sample["completions"] if arm == OPTIMUM else sample["best_of"])
    recipe, chosen = study.recipe(setting, arm)
    reward_steps = 0 if recipe.labels in (None, "true") else to_judge
    if not recipe.rounds:
        return Cost(reward_steps, chosen.steps, 0, 1)
    in_a_round = chosen.steps // recipe.rounds * chosen.prompts  # prompts asked, some of them perhaps several times
    fresh = in_a_round * (recipe.rounds - 1) * chosen.completions
    if arm in study.online_from_offline:
        steps = chosen.steps + study.recipe(setting, "offline")[1].steps
        return Cost(reward_steps, steps, fresh + in_a_round * chosen.completions, 1)
    # From the base policy the first round takes stored completions, in groups, and a prompt's again when all are used.
    turns, more = divmod(in_a_round, asked := ceil(recipe.prompts * world.train_prompts))
    groups = sample["completions"] // chosen.completions
    stored = more * min(turns + 1, groups) + (asked - more) * min(turns, groups)
    return Cost(reward_steps, chosen.steps, fresh + stored * chosen.completions, 1)


def pairs(study: Study, world: World, setting: str) -> int:
    """Preference pairs that all arms of a setting learn from: as many as params say, or as the data have."""
    wanted = study.params[setting]["preferences"]["pairs"]
    return wanted if world.pairs is None else min(wanted, world.pairs)
