"""What runs are called in MLflow, and by which names they compare."""

from pathlib import Path

import pytest

from flows.pipeline.graph import Graph
from flows.tracking import names

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_metrics_belong_to_the_model_that_an_arm_is_or_to_the_reward_model_that_is_judged():
    """As dvc.yaml says, where an arm that nothing trains is the base policy or a reward model, or picks and is none."""
    graph = Graph(ROOT)
    about = {}
    for name, stage in graph.stages.items():
        if stage.labels.get("setting") == "gap" and stage.labels.get("seed") == "0":
            described = {"meta": stage.meta, "deps": [{"path": d.def_path} for d in graph.dvc_stage(name).deps]}
            if names.is_worth(described) or "measures" in stage.meta:
                about[name] = names.about(described)
                assert names.is_worth(described) == (stage.group != "judge")
    arms = ("offline", "online_batch", "online")
    assert about == {
        "evaluate@gap-0-base": ("data/base/gap", None),
        "evaluate@gap-0-local": ("data/reward/gap/0/local", None),
        **{f"evaluate@gap-0-{arm}": (f"data/policy/gap/0/{arm}", None) for arm in arms},
        **{f"pick@gap-0-{arm}": (None, None) for arm in ("best_of__global", "best_of__local", "best_of_soft")},
        **{f"judge@gap-0-{kind}": (None, f"data/reward/gap/0/{kind}") for kind in ("global", "local")},
    }
    paths = ["data/policy/gap_half/0/offline_relabelled", "data/base/gap_half", "data/reward/gap_half/0/local"]
    assert [names.model(path) for path in paths] == [
        "gap_half-policy-offline_relabelled", "gap_half-base", "gap_half-reward-local"
    ]  # fmt: skip


def test_runs_have_the_params_of_their_own_setting():
    """Under the same names for all settings; the report reads all settings, and has what is of none alone."""
    meta = {"task": "evaluate", "setting": "gap", "seed": 0, "verifier": "global", "device": "gpu"}
    params = {
        "cells.verification.gap-0-global": {"corpus": "data/corpus/gap"},
        "resolved.settings.gap.verifiers.global": {"epochs": 3},
        "resolved.settings.gap.verification": {"halvings": 4},
    }
    assert names.params({"meta": meta, "params": params}) == {
        "setting": "gap", "seed": "0", "verifier": "global", "epochs": 3, "verification.halvings": 4
    }  # fmt: skip
    settings = {"gap": {"curve": {"points": 12}}}
    report = {"resolved": {"settings": settings, "study": {"seeds": [0]}}, "cells.pick": {}, "theory.seeds": 5}
    assert names.params({"meta": {"task": "report"}, "params": report}) == {"theory.seeds": 5}


def test_an_arm_shows_what_counts_for_it():
    """What it was trained with, under the same names where it is trained and where it is measured."""
    arm = {"start": "base", "loss": ["sigmoid", "sft"], "labels": "local", "rounds": 4, "steps": 400}
    arm |= {"learning_rate": 1e-3, "beta": 1.5, "completions": 8}
    own = {"setting": "gap", "seed": "0", "arm": "online_rounds4", **arm, "loss": "sigmoid+sft"}
    meta = {"setting": "gap", "seed": 0, "arm": "online_rounds4"}
    for section, content in (("curve", {"points": 12}), ("evaluate", {"completions": 16, "temperature": 1.0})):
        params = {"resolved.settings.gap.arms.online_rounds4": arm, f"resolved.settings.gap.{section}": content}
        shown = {f"{section}.{name}": value for name, value in content.items()}
        assert names.params({"meta": meta, "params": params}) == own | shown
