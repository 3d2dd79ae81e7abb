"""SIGKILL, a full disk and a broken one at every change that a stage makes to a file, below libc: faults.py.

However it ends, an artifact is whole or not taken for one, and the next try makes what it should, hash for hash. Only
the renaming of safetensors' own temporary file passes the shim by, as its Rust makes that call itself; it lies within
a folder that is not yet an artifact.
"""

import random
import shutil
from pathlib import Path

import pytest
from soak import faults
from soak.ground import Outcomes, content, replace

from stages.records.artifacts import reading
from stages.records.errors import UserError

pytest_plugins = "soak.fixtures"

pytestmark = faults.NEEDED
STAGES = {  # command -> out; without checkpoints and with them
    "stages.corpus --cell micro": "data/corpus/micro",
    "stages.pool --cell micro-0": "data/pool/micro/0",
    "stages.theory": "data/theory",
    "stages.base --cell micro": "data/base/micro",
    "stages.reward --cell micro-0-global": "data/reward/micro/0/global",
    "stages.offline --cell micro-0-offline": "data/policy/micro/0/offline",
    "stages.online --cell micro-0-online": "data/policy/micro/0/online",
    "stages.online --cell micro-0-online_rloo": "data/policy/micro/0/online_rloo",
}
FEW = 24  # changes at which each fault comes, of a stage that makes more
TWICE = 6  # times that a stage is killed, and killed again at the beginning of its next run


def is_whole(out: Path) -> bool:
    try:
        return bool(reading(out))
    except UserError:
        return False


@pytest.mark.parametrize("action", [faults.KILL, faults.FULL, faults.BROKEN], ids=faults.WORDS.values())
@pytest.mark.parametrize("command", STAGES)
def test_a_stage_makes_the_same_bytes_after_any_fault(
    command, action, stage_forks, tiny_made, tmp_path, record_property
):
    words, out, luck, outcomes, wrong = command.split(), STAGES[command], random.Random(command), Outcomes(), []
    project, wanted, forks = replace(tmp_path / "project", tiny_made), content(tiny_made / out), stage_forks

    def begin() -> None:
        shutil.rmtree(project / out, ignore_errors=True)
        shutil.rmtree(project / ".roads/checkpoints", ignore_errors=True)

    def finish(what: object) -> None:
        if (project / out).exists() and content(project / out) != wanted and is_whole(project / out):
            wrong.append(("taken for whole", what))
        code, said = forks.run(project, *words)
        if code != 0 or content(project / out) != wanted or list((project / out).parent.glob("*.partial")):
            wrong.append(("not made as it should be", what, said[-2000:]))

    begin()
    counting = faults.COUNT if action == faults.KILL else action  # a disk has fewer chances than a kill
    assert forks.run(project, *words, action=counting)[0] == 0
    changes = forks.changes()
    for at in faults.chosen(changes, luck, FEW):
        begin()
        code, said = forks.run(project, *words, action=action, at=at)
        hit = next((change for change in forks.changes() if change.hit), None)
        last = "".join(said.strip().splitlines()[-1:])
        outcomes[f"exit code {code}" if code >= 0 else "killed"] += 1
        if code not in faults.EXPECTED[action] or (code > 0 and not last.startswith("error: ")):
            wrong.append((f"exit code {code}", at, hit, last))
        finish((command, at, hit, last))
    for _ in range(TWICE if action == faults.KILL and "checkpoints" in str(changes) else 0):
        begin()
        forks.run(project, *words, action=action, at=luck.randint(len(changes) // 3, len(changes)))
        second = luck.randint(1, 20)
        forks.run(project, *words, action=action, at=second)
        outcomes["killed twice"] += 1
        finish((command, "killed again at", second))
    record_property("tries", outcomes.said())
    assert not wrong, "\n".join(map(str, wrong))
