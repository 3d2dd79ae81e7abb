"""What lies in a checkpoint decides the result of a stage that goes on from it: one that is not what was saved is left
aside, so that the stage ends in the same bytes; it never fails for good, nor reads pickled weights."""

import random
import shutil
from pathlib import Path

import pytest
from soak import faults
from soak.ground import Outcomes, content, replace
from soak.harm import flip

pytest_plugins = "soak.fixtures"
pytestmark = faults.NEEDED
SCRATCH = Path(".roads/checkpoints")
WORDS, OUT = "stages.offline --cell micro-0-offline".split(), Path("data/policy/micro/0/offline")


@pytest.fixture(scope="module")
def interrupted(stage_forks, tiny_made, tmp_path_factory):
    """The tiny study, a training of which was killed at the first change after its second checkpoint."""
    project = replace(tmp_path_factory.mktemp("interrupted") / "project", tiny_made)

    def begin(action: int, at: int = 0) -> None:
        shutil.rmtree(project / OUT, ignore_errors=True)
        shutil.rmtree(project / SCRATCH, ignore_errors=True)
        stage_forks.run(project, *WORDS, action=action, at=at)

    begin(faults.COUNT)
    first = next(one.number for one in stage_forks.changes() if "checkpoint-3/" in one.path)
    begin(faults.KILL, first)
    assert len(list((project / SCRATCH).rglob("trainer_state.json"))) >= 1
    return project


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


HARMS = {
    "a flipped bit": lambda path, luck: flip(path, luck.randrange(8 * path.stat().st_size)),
    "cut": lambda path, luck: cut(path, luck.random()),
    "emptied": lambda path, luck: cut(path, 0),
    "removed": lambda path, luck: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_checkpoint_leads_to_the_same_bytes(
    harm, interrupted, stage_forks, tiny_made, tmp_path, record_property
):
    luck, outcomes, wrong, wanted = random.Random(harm), Outcomes(), [], content(tiny_made / OUT)
    for name in sorted(content(interrupted / SCRATCH)):
        project = replace(tmp_path / "project", interrupted)
        if (path := project / SCRATCH / name).stat().st_size:
            HARMS[harm](path, luck)
            code, said = stage_forks.run(project, *WORDS)
            right = code == 0 and content(project / OUT) == wanted
            outcomes["the right result" if right else f"wrong, exit code {code}"] += 1
            if not right:
                wrong.append((name, code, said.strip().splitlines()[-1:]))
    record_property("tries", outcomes.said())
    assert not wrong, "\n".join(map(str, wrong))


def test_pickled_weights_in_a_checkpoint_are_not_read(interrupted, stage_forks, tiny_made, tmp_path):
    import torch
    from safetensors.torch import load_file

    project = replace(tmp_path / "project", interrupted)
    for path in (project / SCRATCH).rglob("model.safetensors"):
        other = {name: 2 * weight for name, weight in load_file(path).items()}
        torch.save(other, path.with_name("pytorch_model.bin"))
        path.unlink()
    code, said = stage_forks.run(project, *WORDS)
    assert code == 2 or (code == 0 and content(project / OUT) == content(tiny_made / OUT)), said
