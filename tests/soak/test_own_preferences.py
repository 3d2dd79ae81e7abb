"""Own preferences, from import to report: labels by a coin make no headline, whatever the arms came to."""

import json

import numpy as np
import pandas as pd
from conftest import edit_params, new_project, roads


def test_preferences_by_a_coin_make_no_headline(tmp_path):
    rng = np.random.default_rng(1)
    words = "stone river cloud bread lamp chair road table stair glass winter summer".split()

    def sentences(length: int, ending: str) -> list[str]:
        return [" ".join(rng.choice(words, length)) + f" {ending}{number}" for number in range(300)]

    rows = pd.DataFrame({"prompt": sentences(6, "q"), "chosen": sentences(4, "a"), "rejected": sentences(4, "b")})
    turned = rng.random(len(rows)) < 0.5
    rows.loc[turned, ["chosen", "rejected"]] = rows.loc[turned, ["rejected", "chosen"]].to_numpy()
    rows.to_json(tmp_path / "coin.jsonl", orient="records", lines=True)
    project = new_project(tmp_path / "project", "ukp")

    def shrink(data):
        chosen = data["settings"]["ukp"]
        chosen["corpus"].update(tokenizer=300, judge=0.3, validation=0.15, test=0.15, max_prompt=48, max_completion=32)
        for key in ("group", "group_until"):
            del chosen["corpus"][key]
        chosen["base"].update(model={"hidden_size": 32, "layers": 1, "heads": 2}, steps=10)
        chosen["base"]["judge"] = {"learning_rate": 1.0e-3, "epochs": 1, "batch": 16}
        chosen["preferences"].update(pairs=80, held_out=40)
        chosen["sample"].update(completions=4)
        chosen["evaluate"].update(completions=2, prompts=10)
        chosen["curve"].update(points=1)
        chosen["offline"].update(steps=4)
        chosen["online"].update(steps=4, prompts=4, completions=2)
        chosen["arms"]["best_of"]["of"] = 4
        chosen["arms"]["online"]["rounds"] = 4
        data["settings"] = {"ukp": chosen}

    edit_params(project, shrink)
    imported = roads(project, "import", "ukp", str(tmp_path / "coin.jsonl"))
    assert imported.returncode == 0, imported.stderr
    done = roads(project, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (project / "data/report/report.md").read_text()
    judge = json.loads((project / "data/base/ukp/metrics.json").read_text())["judge"]
    assert "**ukp**: No headline: the true reward is not shown to be better than chance." in text
    assert f"{judge['pairs']} pairs on {judge['prompts']} other prompts" in text and judge["pairs"] > 50
    assert f"trained on {judge['trained_on']} pairs" in text
