"""The studies of the second plan have exactly the values of the first one, whose params.yaml is still there.

For as long as it is: this file goes when that does. That claims stay what they are is also in test_declared.py.
"""

import pytest
from conftest import ROOT
from test_resolver import study

from stages.evidence import contrasts
from stages.evidence.cells import ALWAYS
from stages.records import params, plain, reading, resolver

FORMER = params.load(ROOT / "params.yaml")
NAMES = {
    "best_of": "best_of__global",
    "best_of_local": "best_of__local",
}  # of arms, where they are called otherwise now
NAMES |= {"online_local": "online__local", "online_true": "online__oracle"}
LABELS = {None: None, "reward": "global", "local": "local", "true": "oracle"}
NEW = {  # what params did not say, and what was a constant in the code or is the beginning of something
    "compute": {"tokens": 16384, "rows": 512, "vocabulary": 8192},
    "corpus": {"held_out": 0.02, "draw": 0},
    "base": {"loss_on": "all"},
    "preferences": {"design": "plain", "options": {}, "pool": 0},
    "curve": {"completions": 256, "tokens": 4096},
}


def of_arm(study: str, former: str, setting: str) -> str:
    """What an arm of the first plan is called."""
    former = NAMES.get(former, former)
    if study != "tuning" or former in ("base", "local", "best_of_soft", "best_of__global", "best_of__local"):
        return former
    if former == "offline":  # now the trial with the same values
        return {"gap": "offline__1e4_1p5", "short": "offline__1e4_5", "hidden": "offline__3e4_1p5"}[setting]
    kind = former.rsplit("_", 2)[0]
    return f"{NAMES.get(kind, kind)}__{former.removeprefix(f'{kind}_')}"


def of_setting(former, study: str, name: str, named: list[str]) -> dict:
    """A setting of the first plan as the new schema has it: by section the values, by arm the recipe."""
    data = former.model_dump()
    reward = {key: value for key, value in data["reward"].items() if key != "local_beta"}
    found = {key: data[key] for key in ("compute", "corpus", "base", "preferences", "evaluate")}
    found["verifiers"] = {
        "global": reward | {"verifier": "global"},
        "local": reward | {"beta": data["reward"]["local_beta"], "verifier": "local"},
        "oracle": {"verifier": "oracle"},
    }
    found["sample"] = {key: data["sample"][key] for key in ("completions", "temperature")}
    assert data["offline"]["points"] == data["online"]["points"]
    found["curve"] = {"points": data["offline"]["points"]}
    if name == "gap_again":
        found["corpus"] = data["corpus"] | {"draw": 1}
    found = {key: NEW.get(key, {}) | value for key, value in found.items()}
    found["verification"] = data["verification"]
    best, soft = data["sample"]["best_of"], data["sample"]["beta"]
    recipes = {
        "base": {"start": "base"},
        "local": {"start": "local"},
        "best_of__global": {"pick": "best", "of": best, "labels": "global"},
        "best_of__local": {"pick": "best", "of": best, "labels": "local"},
        "best_of_soft": {"pick": "soft", "beta": soft, "labels": "global"},
    }
    for arm in named:
        given = former.arms[arm]
        road = given.over(former.online if given.rounds else former.offline).model_dump(exclude={"points"})
        recipe = {
            "start": "offline" if arm.startswith("online_after") else "base",
            "labels": LABELS[given.labels],
            **road,
        }
        method = getattr(given, "method", None) or ("rloo" if given.loss == ["rloo"] else None)
        recipe |= {"method": method} if method else {"loss": given.loss}
        recipe |= {"rounds": given.rounds, "share": given.prompts} if given.rounds else {}
        if recipe["start"] == "offline":
            recipe["start"] = of_arm(study, "offline", name)
        recipes[of_arm(study, arm, name)] = recipe
    found["arms"] = {arm: {k: v for k, v in recipe.items() if v is not None} for arm, recipe in recipes.items()}
    return found


@pytest.mark.parametrize("name", ["quick", *FORMER.studies])
def test_every_study_has_exactly_the_values_of_the_first_plan(name):
    former, now = FORMER.study if name == "quick" else FORMER.studies[name], reading.check(study(name), name)
    assert (now.study.name, now.study.redraw, now.study.verifiers) == (name, "preferences", ["global", "local"])
    for key in ("settings", "seeds", "looks", "verification"):
        assert getattr(now.study, key) == getattr(former, key), key
    assert now.theory == FORMER.theory
    for setting in former.settings:
        wanted = of_setting(FORMER.settings[setting], name, setting, former.arms)
        found = now.settings[setting].model_dump()
        shown = {key: found[key] for key in wanted if key != "arms"}
        assert shown == {key: wanted[key] for key in shown}
        recipes = {one: arm.model_dump(exclude_defaults=True) for one, arm in now.settings[setting].arms.items()}
        assert recipes.keys() == wanted["arms"].keys()
        for one, recipe in wanted["arms"].items():
            plainly = {k: v for k, v in recipe.items() if (k, v) not in (("start", "base"), ("share", 1.0))}
            assert recipes[one] == plainly, (setting, one)


def test_arms_that_every_study_had_are_still_there():
    for name in ("quick", *FORMER.studies):
        former = FORMER.study if name == "quick" else FORMER.studies[name]
        resolved = resolver.resolve(study(name))["resolved"]["settings"]
        for setting in former.settings:
            assert set(resolved[setting]["arms"]) == {of_arm(name, arm, setting) for arm in [*ALWAYS, *former.arms]}


def test_corpora_and_base_policies_are_shared_as_before():
    for name in ("quick", *FORMER.studies):
        former = FORMER.study if name == "quick" else FORMER.studies[name]
        cells = resolver.resolve(study(name))["cells"]
        assert {cell["setting"] for cell in cells["corpus"].values()} == set(former.worlds)
        assert cells["base"].keys() == cells["corpus"].keys() == set(former.worlds)
        for cell in cells["pool"].values():
            owner = former.variants.get(cell["setting"], cell["setting"])
            assert (cell["corpus"], cell["base"]) == (f"data/corpus/{owner}", f"data/base/{owner}")


def test_the_claims_are_word_for_word_those_of_the_first_plan():
    now = reading.claims(ROOT)
    assert len(now) == 29 and now == FORMER.claims
    for name, claim in FORMER.claims.items():
        assert contrasts.identity_of(now[name]) == contrasts.identity_of(claim)
        assert name in plain.read(ROOT / f"studies/{claim.study}.yaml")["claims"]
    assert set(reading.studies(ROOT)) == set(FORMER.studies)
