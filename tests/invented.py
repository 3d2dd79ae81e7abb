"""Evidence of studies, as those of the first plan have published it, all invented.

Their claims name arms as they were called then (FORMER), and an arm carries the numbers of the reward model behind it.
"""

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
UNTRAINED = ("base", "best_of", "best_of_local", "best_of_soft", "local")
FORMER = {"online__local": "online_local", "online__oracle": "online_true"}
REWARD = {"base": 2.9, "best_of": 5.0, "best_of_local": 3.6, "best_of_soft": 4.3, "local": 2.3, "offline": 3.4}
REWARD |= {
    "offline_twice": 3.5,
    "offline_relabelled": 3.6,
    "online_batch": 3.9,
    "online_local": 2.0,
    "online_true": 5.6,
}


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


def publish(root: Path, study: str, cells: list[dict], verification: tuple = (), judged: list[dict] = ()) -> None:
    """Write data/studies/<study>; judged: its reward models, where it has them apart from its arms."""
    prompts = {c["setting"]: list(range(len(c["prompts"]["true_reward"]))) for c in cells}
    found = {
        "platform": {"text": "an invented machine"},
        "settings": {name: {"prompts": ids} for name, ids in prompts.items()},
        "seeds": sorted({c["seed"] for c in [*cells, *judged]}),
        "cells": cells,
        "verification": list(verification),
    }
    found |= {"judged": judged} if judged else {}
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


def invent(root: Path, prompts: int = 6) -> Path:
    """A project folder with the committed params and studies, and invented evidence for each study that has claims."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "params.yaml", root)
    shutil.copytree(PROJECT / "studies", root / "studies")
    for name in dict.fromkeys(c.study for c in DECLARED.claims.values()):
        study, cells, verification = DECLARED.studies[name], [], []
        for setting in study.settings:
            eased = {"short": 0.15, "hidden": 0.05, "moves_1": 0.2, "pairs_16000": 0.4, "verdicts_0": 0.3}.get(
                setting, 1
            )
            of_prompt = seeds.generator("test", setting).normal(size=prompts)
            for seed in study.seeds:
                draw = seeds.generator("test", name, setting, seed)
                for arm in dict.fromkeys([*UNTRAINED, *(FORMER.get(arm, arm) for arm in study.arms)]):
                    level = 3.4 + eased * (REWARD.get(arm, 4.6) - 3.4) + 0.1 * draw.normal()
                    rewards = np.clip(level + 0.4 * of_prompt + 0.3 * draw.normal(size=prompts), 0, 6).tolist()
                    cells.append(cell(setting, seed, arm, rewards, losses(arm, eased, draw), curve(arm, level, draw)))
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
        publish(root, name, cells, tuple(verification))
    return root


def losses(arm: str, eased: float, draw: np.random.Generator) -> dict[str, float]:
    numbers = {}
    for prefix in ("", "fresh_"):
        loss = 0.56 + (0.08 * eased if arm != "best_of" else 0.0) + 0.005 * draw.normal()
        numbers |= {f"{prefix}log_loss": loss, f"{prefix}accuracy": 1.25 - loss, f"{prefix}calibration": 0.03}
    for name, loss in (("global", 0.6), ("local", 0.69)):
        own = {"log_loss": loss + 0.01 * draw.normal(), "accuracy": 1.25 - loss, "calibration": 0.03}
        numbers |= {f"own_{name}_{measure}": value for measure, value in own.items()}
    return numbers | {
        f"best_of_{2**k}": 3 + (0.4 if arm == "best_of" else 0.1) * k + 0.05 * draw.normal() for k in range(7)
    }


def curve(arm: str, level: float, draw: np.random.Generator) -> dict | None:
    if arm in UNTRAINED:
        return None
    steps = np.arange(0, 401, 50)
    grown = 1 - np.exp(-steps / 120)
    kl = (grown * (1.2 if arm.startswith("offline") else 2.5) * (1 + 0.1 * draw.random())).tolist()
    return {"step": steps.tolist(), "true_reward": (2.9 + (level - 2.9) * grown).tolist(), "kl": kl}
