"""Arms: what kind one is, the arms of a grid, what it says where it says nothing, and what its stage reads.

An arm is an entry below ``settings.NAME.arms``, said once: ``start`` (base, another arm, or a verifier that is a
policy), ``labels`` (a verifier), ``rounds``, and one of ``loss`` (names of TRL's losses), ``method`` (a file of
stages/methods) and ``pick`` (a choice among stored samples). Plain data; what values are allowed is said in schema.py.
"""

import itertools
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from stages.records.errors import UserError

BASE = "base"  # the policy that an arm starts from if it names none
TRAINED = ("offline", "online")
NONE = "data/none/"  # + name of a dependency that a cell does not need: files of the stage check
At = Callable[..., str]  # at("policy", "online"): the path of an artifact of one setting and seed


def kind(arm: dict) -> str:
    """The stage that makes what an arm is: online, offline or pick; none where it is the policy that it starts from."""
    if "pick" in arm or "rounds" in arm:
        return "pick" if "pick" in arm else "online"
    return "offline" if "loss" in arm or "method" in arm else "none"


def spread(name: str, arm: dict, where: str = "arms") -> dict[str, dict]:
    """The arms of a grid: online__local for ``grid: {labels: [local]}``, offline__3e5_1p5 for a rate and a beta.

    An arm without a grid is itself. Raises UserError for a key without values, and for values of one name.
    """
    grid, plain = arm.get("grid", {}), {key: value for key, value in arm.items() if key != "grid"}
    for key, values in grid.items():
        if not values:
            raise UserError(f"{where}.{name}.grid.{key} is empty: give it values, or take it out.")
    found: dict[str, dict] = {}
    for values in itertools.product(*grid.values()):
        one = "__".join([name, *(["_".join(map(word, values))] if grid else [])])
        if one in found:
            raise UserError(f"{where}.{name}.grid makes two arms named {one}: take one of the two values out.")
        found[one] = plain | dict(zip(grid, values))
    return found


def word(value: object) -> str:
    """A value within a name: 0.00003 is 3e5, 1.5 is 1p5, local is local."""
    if isinstance(value, list):
        return "_".join(map(word, value))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if not 0 < value < 0.01:
        return f"{value:.10g}".replace(".", "p")
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{-int(exponent)}".replace(".", "p")


def complete(arm: dict, setting: dict) -> dict:
    """An arm with what its setting says where it says nothing: the section offline, or online where it has rounds."""
    if kind(arm) == "pick":
        return dict(arm)
    return {"start": BASE, **(setting[kind(arm)] if kind(arm) in TRAINED else {}), **arm}


def listed(names: list[str], setting: dict, where: str) -> dict[str, dict]:
    """The arms of a setting that a study names, complete, in its order; the name of a grid stands for all of its arms.

    ``where``: what the setting is called in a sentence. Raises UserError for a name that there is not (with the nearest
    that there is), for two arms of one name, and for a start that the study lacks.
    """
    every: dict[str, dict] = {}
    groups = {one: spread(one, arm, f"{where}.arms") for one, arm in setting["arms"].items()}
    for group in groups.values():
        for twin in group.keys() & every.keys():
            raise UserError(f"{where}.arms has two arms named {twin}, at least one of them from a grid: rename one.")
        every |= {one: complete(arm, setting) for one, arm in group.items()}
    chosen = [one for name in names for one in groups.get(name, [name])]
    for one in chosen:
        known(one, every, "study.arms", f"{where}.arms")
        if chosen.count(one) > 1:
            raise UserError(f"study.arms names {one} twice, by itself or by a grid: take one out.")
        if "labels" in every[one]:
            known(every[one]["labels"], setting["verifiers"], f"{where}.arms.{one}.labels", f"{where}.verifiers")
    for one in chosen:
        for start in line(one, every, setting, where)[1:-1]:
            if start not in chosen:
                raise UserError(
                    f"{where}.arms.{one} starts from {start}, which this study lacks: add it to study.arms."
                )
    return {one: every[one] for one in chosen}


def known(name: str, names: Iterable[str], where: str, what: str) -> None:
    """Raise UserError, with the nearest of ``names``, if ``name`` is none of them."""
    if name not in (names := list(names)):
        nearest = get_close_matches(str(name), names, n=1, cutoff=0.0)
        rest = f"; the nearest is {nearest[0]}" if nearest else ""
        raise UserError(f"{where} names {name}, which is not among {what}{rest}: correct the name, or add it there.")


def line(name: str, arms: dict[str, dict], setting: dict, where: str = "arms") -> list[str]:
    """An arm, what it starts from, and so on to the base policy or a verifier; an arm that picks starts from none ("").

    Raises UserError for a start that there is not, that only picks, or that leads back.
    """
    found, verifiers = [name], setting["verifiers"]
    while "start" in (arm := arms[found[-1]]):
        start, at = arm["start"], f"{where}.arms.{found[-1]}.start"
        if start == BASE or start in verifiers:
            return [*found, start]
        known(start, [BASE, *verifiers, *arms], at, f"base, {where}.verifiers and the arms")
        if start in found:
            raise UserError(f"{at} leads back to {start}, which starts from it: let one of them start from base.")
        if kind(arms[start]) == "pick":
            raise UserError(f"{at} names {start}, which picks and is no policy: name an arm that is one.")
        found.append(start)
    return [*found, ""]


def reads(name: str, arms: dict[str, dict], setting: dict, at: At) -> dict[str, str]:
    """What the stage of an arm reads beside corpus, base policy and pairs: the paths by the names that dvc.yaml has.

    The base policy is no start of its own, as every cell names it; what an arm does not need stands below NONE.
    """
    arm, found = arms[name], line(name, arms, setting)
    labels = at("reward", arm["labels"]) if "labels" in arm else f"{NONE}labels"
    if kind(arm) == "none":
        return {"policy": _policy(found, arms, at)}
    if kind(arm) == "pick":
        return {"score": at("score", arm["labels"])}
    if kind(arm) == "offline":
        return {"start": _policy(found[1:], arms, at), "labels": labels}
    stored = at("sample") if found[1] == BASE else f"{NONE}sample"  # from the base policy first on what is in store
    return {"start": _policy(found[1:], arms, at), "labels": labels, "sample": stored}


def _policy(found: list[str], arms: dict[str, dict], at: At) -> str:
    """The path of the first policy of a line."""
    *own, last = found
    trained = [one for one in own if kind(arms[one]) in TRAINED]
    return at("policy", trained[0]) if trained else f"{NONE}start" if last == BASE else at("reward", last)
