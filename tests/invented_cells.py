"""The artifacts that a report reads, all invented."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from stages import replicate, report
from stages.evidence.study import theorems
from stages.records import arms, artifacts, plain, reading, resolver, rooms, seeds

PROJECT = Path(__file__).parent.parent
SKILL = {"base": 0.3, "local": 0.4, "offline": 0.45, "online_batch": 0.5, "online": 0.75, "online_after": 0.8}
SKILL |= {"best_of__global": 0.8}
LOSS = {"global": 0.56, "local": 0.65, "oracle": 0.5}  # held-out log-loss (nats per pair); of any other judge 0.65
LINES = {"global": "a scalar head on the base policy", "local": "a policy", "oracle": "the true reward itself"}
REAL = {"roads": "gap", "text": "tldr", "judge": "ukp"}  # kind of world -> a setting of the project that has it
TOWNS = ["Arbon", "Belt", "Corin", "Dale", "Esk", "Fenn", "Gorse", "Holt"]
QUICK = ["base", "local", "best_of", "best_of_soft", "offline", "online_batch", "online"]


def evaluation(setting: str, seed: int, arm: str, kind: str, prompts: int, samples: int, trained: bool) -> tuple:
    """An invented evaluation: (metrics, completions, numbers by test prompt) that agree with each other."""
    draw = seeds.generator("test", setting, seed, arm)
    skill = SKILL.get(arm, 0.5) + 0.05 * draw.standard_normal()
    rows = []
    for split, first in (("train", 0), ("validation", 1000), ("test", 2000)):
        for prompt in range(first, first + prompts):
            for sample in range(samples):
                arrived = draw.random() < skill
                words = [TOWNS[i] for i in draw.integers(0, len(TOWNS), 4)]
                row = {"prompt_id": prompt, "split": split, "sample": sample}
                row |= {"prompt": f"from Arbon to Holt #{prompt} :", "completion": " ".join(words), "reference": ""}
                row |= {"win": float(draw.random() < skill), "length": 4}
                row |= {"kl": 0.0 if arm == "base" else 2 * skill * draw.random()}
                if kind == "roads":
                    row |= {"true_reward": 6.0 if arrived else 3.0 * (draw.random() < 0.7), "arrived": arrived}
                else:
                    text = "my <b>cat</b> ate | the couch & I want to know what to do about it"
                    row |= {"true_reward": 0.3 * skill * draw.random(), "completion": text, "reference": "my cat"}
                    row |= {"prompt": "SUBREDDIT: r/pets\nPOST: " + 40 * "long ago " + "\nTL;DR:"}
                rows.append(row)
    table = pd.DataFrame(rows)
    metrics, by_prompt = {}, pd.DataFrame()
    for split, part in table.groupby("split"):
        found = {"true_reward": part.true_reward, "win_rate": part.win, "kl": part.kl, "length": part.length}
        metrics[split] = {name: float(column.mean()) for name, column in found.items()}
        if kind == "roads":
            metrics[split]["arrived"] = float(part.arrived.mean())
        else:
            metrics[split]["rouge_l"] = metrics[split]["true_reward"] / 2  # not in completions.parquet
    if trained:
        found, by_prompt = held_out(LOSS.get(arm, 0.65) + 0.01 * draw.random(), prompts)
        metrics |= {"pairs": found, "fresh": found}
    return metrics, table, by_prompt


def held_out(loss: float, prompts: int) -> tuple[dict, pd.DataFrame]:
    """(verdicts on held-out pairs, log_loss and accuracy of each test prompt, which differ and have these means)."""
    metrics = {"log_loss": loss, "accuracy": 1.25 - loss, "calibration": 0.02}
    about = np.resize([-0.05, 0.0, 0.05], prompts)
    found = {name: metrics[name] + about - about.mean() for name in ("log_loss", "accuracy")}
    return metrics, pd.DataFrame(found, index=pd.RangeIndex(2000, 2000 + prompts, name="prompt_id"))


def judged(setting: str, seed: int, verifier: str, prompts: int, *arm: str) -> tuple[dict, pd.DataFrame]:
    """What the stage judge says, invented: (metrics, numbers by test prompt)."""
    draw = seeds.generator("test", "judge", setting, seed, verifier, *arm)
    metrics, by_prompt = held_out(LOSS.get(verifier, 0.6) + 0.01 * draw.random() + 0.05 * len(arm), prompts)
    if arm:
        return {"own": metrics}, by_prompt
    curve = {f"best_of_{n}": 3 + (1.1 - LOSS[verifier]) * math.log2(n) + 0.1 * draw.random() for n in (1, 2, 4, 8, 16)}
    return {"pairs": metrics, "fresh": metrics, "best_of": curve}, by_prompt.assign(**curve)


def facts(kind: str) -> dict:
    """What a world of a kind says of itself to a report."""
    chosen = reading.setting(REAL[kind], PROJECT).corpus
    return asdict(rooms.load("worlds", chosen.world).facts(chosen))


def params(study: dict, kinds: dict[str, str], recipes: dict[str, dict] | None = None) -> dict:
    """params.yaml of a study, whose settings (name -> kind of world) are as gap in the study evidence; recipes: arms
    that this lacks."""
    data = reading.prepare("evidence", PROJECT)
    gap = resolver.over(data["settings"]["gap"], {"arms": recipes or {}})
    usual = {"redraw": "preferences", "verifiers": ["global", "local"], "arms": QUICK}
    return data | {"study": {"name": "invented", **usual, **study}, "settings": {name: gap for name in kinds}}


def build(
    root: Path,
    study: dict,
    kinds: dict[str, str],
    prompts: int = 6,
    samples: int = 3,
    recipes: dict[str, dict] | None = None,
) -> Path:
    """A project folder with params.yaml, cells.yaml and the artifacts of a study, all invented; of settings without a
    kind only the first two."""
    data = params(study, {**dict.fromkeys(study["settings"]), **kinds}, recipes)
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(plain.text(data))
    resolver.write(root)
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
        with artifacts.writing(root / "data/base" / setting) as folder:
            (folder / "metrics.json").write_text("{}")
        for seed in study["seeds"]:
            add_cells(root, data, setting, seed, kind, prompts, samples)
    return root


def add_cells(root: Path, data: dict, setting: str, seed: int, kind: str, prompts: int, samples: int) -> None:
    """The cells of one setting and seed of a study; data: the content of its params.yaml."""
    found = resolver.resolve(data)
    for arm, recipe in found["resolved"]["settings"][setting]["arms"].items():
        trained = arms.kind(recipe) in arms.TRAINED
        metrics, table, by_prompt = evaluation(setting, seed, arm, kind, prompts, samples, trained)
        with artifacts.writing(root / "data/evaluation" / setting / str(seed) / arm) as folder:
            (folder / "metrics.json").write_text(json.dumps(metrics))
            table.to_parquet(folder / "completions.parquet")
            by_prompt.to_parquet(folder / "prompts.parquet")
        if trained:
            steps = np.linspace(0, 94 if arm == "offline" else 400, 9)
            top = metrics["validation"]["true_reward"]
            curve = pd.DataFrame({"step": steps.astype(int), "true_reward": top - 0.3 * top * np.exp(-steps / 80)})
            curve["kl"] = metrics["validation"]["kl"] * (1 - np.exp(-steps / 120))
            with artifacts.writing(root / "data/policy" / setting / str(seed) / arm) as folder:
                curve.to_parquet(folder / "curve.parquet")
    for cell in found["cells"]["judge"].values():
        if (cell["setting"], cell["seed"]) == (setting, seed):
            own = [cell["judged"]] if cell["judged"] else []
            metrics, by_prompt = judged(setting, seed, cell["verifier"], prompts, *own)
            with artifacts.writing(root / cell["out"]) as folder:
                (folder / "metrics.json").write_text(json.dumps(metrics))
                by_prompt.to_parquet(folder / "prompts.parquet")
                (folder / artifacts.VERIFIER).write_text(json.dumps({"line": LINES[cell["verifier"]]}))
    for cell in found["cells"]["verification"].values():
        if (cell["setting"], cell["seed"]) == (setting, seed):
            losses = {"pairs": [1000, 500, 250], "log_loss": LOSS[cell["verifier"]] + 0.02 * np.arange(3)}
            with artifacts.writing(root / "data/verification" / setting / str(seed) / cell["verifier"]) as folder:
                pd.DataFrame(losses).to_parquet(folder / "losses.parquet")


def gather() -> None:
    """Run the stage replicate for all cells of the current folder, as DVC would."""
    for cell in plain.fast(resolver.CELLS)["cells"]["replicate"]:
        replicate.run(cell)


def tell() -> None:
    """The same, and the stage report."""
    gather()
    report.run()
