"""Processor time of a road: of the stages that it waits for, and not known where one of them does not say."""

from types import SimpleNamespace

import pytest

from flows.provenance.spent import Spent


def said(makes: str, *reads: str, seconds: float | None = 1.0) -> SimpleNamespace:
    return SimpleNamespace(outs={makes: None}, inputs=dict.fromkeys([*reads, "stages/x.py"]), seconds=seconds)


@pytest.fixture
def study():
    base, samples, model = "data/base/gap/1/m", "data/sample/gap/1/s", "data/reward/gap/1/global/m"
    return {
        "check": said("data/digests/x.json", seconds=9.0),
        "base@gap-1": said(base, "data/digests/x.json", "data/inputs/gap/d", seconds=100.0),
        "sample@gap-1": said(samples, base, seconds=2.0),
        "reward@gap-1-global": said(model, base, seconds=4.0),
        "online@gap-1-online": said("data/policy/gap/1/online/m", base, samples, model, seconds=16.0),
        "evaluate@gap-1-online": said("data/evaluation/gap/1/online/m", "data/policy/gap/1/online/m", seconds=32.0),
        "evaluate@gap-1-base": said("data/evaluation/gap/1/base/m", base, seconds=32.0),
        "judge@gap-1-online": said("data/judge/gap/1/online/m", model, seconds=64.0),  # of a reward model of this name
    }


def test_a_road_waits_for_what_it_reads_and_each_stage_counts_once(study):
    spent = Spent(study)
    assert spent.seconds("gap", 1, "online") == 22.0 and spent.seconds("gap", 1, "base") == 0.0


@pytest.mark.parametrize("lost", ["sample@gap-1", "reward@gap-1-global", "base@gap-1", "evaluate@gap-1-base"])
def test_without_the_statement_of_a_stage_it_is_not_known(study, lost):
    del study[lost]
    spent = Spent(study)
    of = "base" if lost == "evaluate@gap-1-base" else "online"
    assert spent.seconds("gap", 1, of) is None and spent.seconds("gap", 2, of) is None
    study["sample@gap-1"] = said("data/sample/gap/1/s", seconds=None)
    assert Spent(study).seconds("gap", 1, "online") is None
