"""Evidence of studies, as these publish it, all invented."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from stages.records import reading, seeds
from stages.records.params import Claim, Study

PROJECT = Path(__file__).parent.parent
DECLARED = SimpleNamespace(claims=reading.claims(PROJECT), studies=reading.studies(PROJECT))
UNTRAINED = ("base", "local", "best_of__global", "best_of__local", "best_of_soft")
REWARD = {"base": 2.9, "local": 2.3, "best_of__global": 5.0, "best_of__local": 3.6, "best_of_soft": 4.3}
REWARD |= {"offline": 3.4, "offline_twice": 3.5, "offline_relabelled": 3.6, "online_batch": 3.9}
REWARD |= {"online__local": 2.0, "online__oracle": 5.6}


def claim(contrast: str, expect: str = "more", margin: float = 0.2, measure: str = "true_reward", study: str = "small"):
    texts = {"hypothesis": "main", "statement": "A statement.", "unit": "of 6", "paper": "none"}
    return Claim(study=study, measure=measure, contrast=contrast, expect=expect, margin=margin, **texts)


def study(**changes) -> Study:
    """The study evidence as declared, or with other seeds or looks."""
    return DECLARED.studies["evidence"].model_copy(update={"seeds": [0, 1, 2, 3, 4], "looks": 1} | changes)


def cell(
    setting: str, seed: int, arm: str, rewards: list[float], numbers: dict | None = None, curve: dict | None = None
):
    """One cell of evidence.json."""
    return {
        "setting": setting,
        "seed": seed,
        "arm": arm,
        "path": f"data/evaluation/{setting}/{seed}/{arm}",
        "prompts": {"true_reward": rewards, "arrived": [float(r > 3) for r in rewards]},
        "numbers": {"true_reward": float(np.mean(rewards))} | (numbers or {}),
        "curve": curve,
    }


def publish(
    root: Path, study: str, cells: list[dict], verification: tuple = (), judged: list[dict] = (), by_prompt: bool = True
) -> None:
    """Write data/studies/<study>; by_prompt: whether the prompts of all seeds are the same, and shown one by one."""
    prompts = {c["setting"]: list(range(len(c["prompts"]["true_reward"]))) for c in cells}
    found = {
        "platform": {"text": "an invented machine"},
        "settings": {name: {"prompts": ids} for name, ids in prompts.items()},
        "seeds": sorted({c["seed"] for c in [*cells, *judged]}),
        "cells": cells,
        "judged": list(judged),
        "verification": list(verification),
    }
    for row in () if by_prompt else (*cells, *judged):
        row["prompts"] = {}
    paths = [row["path"] for row in [*cells, *verification]]
    paths += [c["path"].replace("evaluation", "policy") for c in cells if c["curve"]]
    paths += [path for row in judged for path in row["paths"]]
    folder = root / "data/studies" / study
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, found, {path: f"md5 {seeds.key('test', path):032x}.dir" for path in paths})


def write(folder: Path, evidence: dict, artifacts: dict[str, str]) -> None:
    """Evidence, and the hashes beside it, its own among them."""
    text = json.dumps(evidence)
    recorded = {"data/evidence.json": f"md5 {hashlib.md5(text.encode()).hexdigest()}"}
    (folder / "evidence.json").write_text(text)
    (folder / "artifacts.json").write_text(json.dumps(artifacts | recorded))


def invent(root: Path, prompts: int = 6, redraw: str = "") -> Path:
    """A project folder with the committed params and studies, and invented evidence for each study that has claims.

    redraw: what each seed draws anew, in place of what these studies say.
    """
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "params.yaml", root)
    shutil.copytree(PROJECT / "studies", root / "studies")
    for name in dict.fromkeys(c.study for c in DECLARED.claims.values()):
        declared = root / f"studies/{name}.yaml"
        drawn = redraw or DECLARED.studies[name].redraw
        declared.write_text(declared.read_text().replace("redraw: world ", f"redraw: {drawn} ", 1))
        study, cells, judged, verification = DECLARED.studies[name], [], [], []
        for setting in study.settings:
            eased = {"short": 0.15, "hidden": 0.05, "moves_1": 0.2, "pairs_16000": 0.4, "verdicts_0": 0.3}.get(
                setting, 1
            )
            of_prompt = seeds.generator("test", setting).normal(size=prompts)
            for seed in study.seeds:
                draw = seeds.generator("test", name, setting, seed)
                for arm in dict.fromkeys([*UNTRAINED, *(arm for arm in study.arms if arm != "best_of")]):
                    level = 3.4 + eased * (REWARD.get(arm, 4.6) - 3.4) + 0.1 * draw.normal()
                    rewards = np.clip(level + 0.4 * of_prompt + 0.3 * draw.normal(size=prompts), 0, 6).tolist()
                    cells.append(cell(setting, seed, arm, rewards, losses(0.64, draw), curve(arm, level, draw)))
                judged += [model(study, setting, seed, of, eased, draw) for of in ("global", "local")]
                if setting in study.verification:
                    pairs = [1000 >> halving for halving in range(5)]
                    row = {
                        "setting": setting,
                        "seed": seed,
                        "path": f"data/verification/{setting}/{seed}",
                        "pairs": pairs,
                    }
                    row["global"] = [0.6 + 0.02 * i + 0.004 * draw.normal() for i in range(5)]
                    row["local"] = [0.6 + 0.07 * eased + 0.01 * i + 0.004 * draw.normal() for i in range(5)]
                    verification.append(row)
        publish(root, name, cells, tuple(verification), judged, by_prompt=drawn != "world")
    return root


def model(study: Study, setting: str, seed: int, name: str, eased: float, draw: np.random.Generator) -> dict:
    """A reward model in evidence.json; the global one judges better, where judging is ``eased`` by much more."""
    found = losses(0.56 + (0.08 * eased if name == "local" else 0.0), draw)
    grows = 0.4 if name == "global" else 0.1
    numbers = found | {f"best_of_{2**k}": 3 + grows * k + 0.05 * draw.normal() for k in range(7)}
    for arm in study.judged_on:
        own = {"log_loss": 0.6 + 0.09 * (name == "local") + 0.01 * draw.normal(), "accuracy": 0.6, "calibration": 0.03}
        numbers |= {f"{measure}_on_{arm}": value for measure, value in own.items()}
    paths = [f"data/judge/{setting}/{seed}/{one}" for one in (name, *(f"{name}-{arm}" for arm in study.judged_on))]
    return {"setting": setting, "seed": seed, "verifier": name, "paths": paths, "prompts": {}, "numbers": numbers}


def losses(loss: float, draw: np.random.Generator) -> dict[str, float]:
    """What pairs say of whatever scores completions."""
    numbers = {}
    for prefix in ("", "fresh_"):
        found = loss + 0.005 * draw.normal()
        numbers |= {f"{prefix}log_loss": found, f"{prefix}accuracy": 1.25 - found, f"{prefix}calibration": 0.03}
    return numbers


def curve(arm: str, level: float, draw: np.random.Generator) -> dict | None:
    if arm in UNTRAINED:
        return None
    steps = np.arange(0, 401, 50)
    grown = 1 - np.exp(-steps / 120)
    kl = (grown * (1.2 if arm.startswith("offline") else 2.5) * (1 + 0.1 * draw.random())).tolist()
    return {"step": steps.tolist(), "true_reward": (2.9 + (level - 2.9) * grown).tolist(), "kl": kl}
