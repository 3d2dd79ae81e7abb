"""The artifacts that a report reads, all invented."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from stages.evidence import cells, theorems
from stages.records import artifacts, params, rooms, seeds

PROJECT = Path(__file__).parent.parent
SKILL = {"base": 0.3, "best_of": 0.8, "local": 0.4, "offline": 0.45, "online_batch": 0.5, "online": 0.75, "after": 0.8}
TRAINED = ("offline", "offline_relabelled", "online", "online_from_offline")  # kinds of arms
REAL = {"roads": "gap", "text": "tldr", "judge": "ukp"}  # kind of world -> a setting of the project that has it
TOWNS = ["Arbon", "Belt", "Corin", "Dale", "Esk", "Fenn", "Gorse", "Holt"]


def evaluation(setting: str, seed: int, arm: str, kind: str, prompts: int, samples: int) -> tuple[dict, pd.DataFrame]:
    """An invented evaluation: (metrics, completions) that agree with each other."""
    draw = seeds.generator("test", setting, seed, arm)
    skill = SKILL.get(arm, 0.5) + 0.05 * draw.standard_normal()
    rows = []
    for split, first in (("train", 0), ("validation", 1000), ("test", 2000)):
        for prompt in range(first, first + prompts):
            for sample in range(samples):
                arrived = draw.random() < skill
                words = [TOWNS[i] for i in draw.integers(0, len(TOWNS), 4)]
                row = {
                    "prompt_id": prompt,
                    "split": split,
                    "sample": sample,
                    "prompt": f"from Arbon to Holt #{prompt} :",
                }
                row |= {
                    "completion": " ".join(words),
                    "reference": "",
                    "win": float(draw.random() < skill),
                    "length": 4,
                }
                row |= {"kl": 0.0 if arm == "base" else 2 * skill * draw.random()}
                if kind == "roads":
                    row |= {"true_reward": 6.0 if arrived else 3.0 * (draw.random() < 0.7), "arrived": arrived}
                else:
                    text = "my <b>cat</b> ate | the couch & I want to know what to do about it"
                    row |= {"true_reward": 0.3 * skill * draw.random(), "completion": text}
                    row |= {
                        "prompt": "SUBREDDIT: r/pets\nPOST: " + 40 * "long ago " + "\nTL;DR:",
                        "reference": "my cat",
                    }
                rows.append(row)
    table = pd.DataFrame(rows)
    metrics = {}
    for split, part in table.groupby("split"):
        found = {"true_reward": part.true_reward, "win_rate": part.win, "kl": part.kl, "length": part.length}
        metrics[split] = {name: float(column.mean()) for name, column in found.items()}
        if kind == "roads":
            metrics[split]["arrived"] = float(part.arrived.mean())
        else:
            metrics[split]["rouge_l"] = metrics[split]["true_reward"] / 2  # not in completions.parquet
    if arm != "base":
        loss = 0.56 if arm == "best_of" else 0.65
        metrics["pairs"] = {"log_loss": loss + 0.01 * draw.random(), "accuracy": 1.2 - loss, "calibration": 0.02}
    if arm in ("best_of", "best_of_local"):
        metrics["best_of"] = {str(n): 3 + 0.5 * math.log2(n) + 0.1 * draw.random() for n in (1, 2, 4, 8, 16)}
    return metrics, table


def facts(kind: str) -> dict:
    """What a world of a kind says of itself to a report."""
    chosen = params.load(PROJECT / "params.yaml").settings[REAL[kind]].corpus
    return asdict(rooms.load("worlds", chosen.world).facts(chosen))


def build(root: Path, study: dict, kinds: dict[str, str], prompts: int = 6, samples: int = 3) -> Path:
    """A project folder with params.yaml and the artifacts of a study, all invented."""
    data = YAML(typ="safe", pure=True).load((PROJECT / "params.yaml").read_text())
    arms = {key: [] for key in (*TRAINED, "verification")}
    data["study"] = {"worlds": study["settings"], "variants": {}} | arms | study
    recipe = data["settings"]["gap"]["arms"]["online"]
    named = {arm: recipe for arm in study.get("online", []) + study.get("online_from_offline", [])}
    data["settings"] |= {
        name: data["settings"]["gap"] | {"arms": named | data["settings"]["gap"]["arms"]} for name in kinds
    }
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(data, file)
    points = [
        {"votes": 10.0, "pairs": n, "dimension": d, "seed": seed, "two_stage": d / n, "offline": 3 / n}
        for n in (50, 200)
        for d in (1, 2, 3)
        for seed in (0, 1)
    ]
    with artifacts.writing(root / "data/theory") as folder:
        pd.DataFrame(points).to_parquet(folder / "dial.parquet")
        found = {name: {"cases": 3, "largest": 1e-12} for name in theorems.STATEMENTS}
        found["not isomorphic"] = {"cases": 3, "mean": 0.52, "smallest": 0.01}
        (folder / "summary.json").write_text(json.dumps({"theorems": found}))
    for setting, kind in kinds.items():
        with artifacts.writing(root / "data/corpus" / setting) as folder:
            (folder / "world.json").write_text(json.dumps({"facts": facts(kind)}))
            splits = [split for split in ("train", "validation", "test") for _ in range(prompts)]
            pd.DataFrame({"split": splits}).to_parquet(folder / "prompts.parquet")
        for seed in study["seeds"]:
            add_cells(root, study, setting, seed, kind, prompts, samples)
    return root


def add_cells(root: Path, study: dict, setting: str, seed: int, kind: str, prompts: int, samples: int) -> None:
    """The cells of one setting and seed."""
    trained = [arm for kind in TRAINED for arm in study.get(kind, [])]
    for arm in [*cells.ALWAYS, *trained]:
        metrics, table = evaluation(setting, seed, arm, kind, prompts, samples)
        with artifacts.writing(root / "data/evaluation" / setting / str(seed) / arm) as folder:
            (folder / "metrics.json").write_text(json.dumps(metrics))
            table.to_parquet(folder / "completions.parquet")
            asked = sorted(set(table.loc[table["split"] == "test", "prompt_id"]))
            losses = {name: metrics["pairs"][name] for name in ("log_loss", "accuracy")} if arm != "base" else {}
            about = np.resize([-0.05, 0.0, 0.05], len(asked))  # prompts differ
            losses = {name: value + about - about.mean() for name, value in losses.items()}
            pd.DataFrame(losses, index=pd.Index(asked, name="prompt_id")).to_parquet(folder / "prompts.parquet")
        if arm in trained:
            steps = np.linspace(0, 94 if arm == "offline" else 400, 9)
            top = metrics["validation"]["true_reward"]
            start = top * 0.7
            curve = pd.DataFrame({"step": steps.astype(int), "true_reward": top - (top - start) * np.exp(-steps / 80)})
            curve["kl"] = metrics["validation"]["kl"] * (1 - np.exp(-steps / 120))
            with artifacts.writing(root / "data/policy" / setting / str(seed) / arm) as folder:
                curve.to_parquet(folder / "curve.parquet")
