"""The micro study: the whole pipeline, small, run once through the real DVC, Prefect and MLflow for all tests."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from ruamel.yaml import YAML
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[1]
os.environ.update(DO_NOT_TRACK="true", DVC_NO_ANALYTICS="1")  # nothing that a user has not set changes a result
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "ALL_ROADS_SERVER"):
    os.environ.pop(name, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it, and what they start
import forked  # noqa: E402  # it keeps this environment

TINY = {  # a network's sizes; so wide a start that its distributions are far from uniform
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}

CPU = SimpleNamespace(  # a setting's section ``compute``
    device="cpu", dtype="float32", threads=1, device_batch=0, tokens=16384, rows=512, vocabulary=8192
)


def neox(vocabulary: int = 20, seed: int = 0):
    """A tiny GPT-NeoX, the weights of which belong to the seed; it carries ``compute``, as one that was loaded."""
    import torch  # these imports take seconds, and most tests need no network
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=vocabulary, **TINY)).eval()
    model.compute = CPU
    return model


def asking(prompts: list):
    """Prompts (token ids) as the sampler wants them, each for the first time, with their places as ids."""
    import pandas as pd

    return pd.DataFrame({"prompt_id": range(len(prompts)), "prompt_ids": prompts, "visit": 0})


def edit_params(project: Path, change) -> None:
    """Rewrite params.yaml after ``change(data)``; cells.yaml follows with the next `roads` command or ``follow``."""
    yaml = YAML()
    data = yaml.load(project / "params.yaml")
    change(data)
    yaml.dump(data, project / "params.yaml")


def follow(project: Path) -> None:
    """Write cells.yaml anew, as every `roads` command does; for what DVC is asked directly."""
    from stages.records import resolver

    resolver.write(project)


def new_project(folder: Path, study: str) -> Path:
    """A copy of the project, as git has it plus what is not ignored, with a named study as its own."""
    from stages.records import plain, reading

    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    results = ("tests/", "data/report/", "data/studies/", "data/made.json", "dvc.lock")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and (name.endswith("/.gitkeep") or not name.startswith(results)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = reading.prepare(study, ROOT)
    params["settings"] = {**plain.read(ROOT / "params.yaml")["settings"], **params["settings"]}  # other studies' too
    theory = params["theory"]  # which takes as long as a dozen of small policies, and has tests of its own
    theory |= {"seeds": 1, "trees": theory["trees"][:2], "dial": {**theory["dial"], "seeds": 10}}
    (folder / "params.yaml").write_text(plain.text(params))
    follow(folder)
    for command in ("git init -q", "git add -A", "git -c user.name=test -c user.email=test@test commit -qm start"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


def roads(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess:
    """Run the `roads` command in a project."""
    return forked.run(["flows", *words], project, {**os.environ, **env})


def pytest_collection_modifyitems(items):
    """A test that needs the micro study, or is one of `make soak`, is slow, and need not say so."""
    for item in items:
        if "micro" in item.fixturenames or item.path.parent.name == "soak":
            item.add_marker("slow")


def pytest_collection_finish():
    """Compute with one thread, as a stage's command does: two that share a core wait for each other."""
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


_fast = None  # the fast test that runs now


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    global _fast
    _fast = None if item.get_closest_marker("slow") else item.nodeid
    try:
        return (yield)
    finally:
        _fast = None


def _no_process(event: str, arguments: tuple) -> None:
    """What keeps `make check` fast: a test that is not marked as slow starts no Python, DVC or stage, only git."""
    if _fast and (event == "os.fork" or (event == "subprocess.Popen" and Path(arguments[0]).name != "git")):
        raise RuntimeError(f"{_fast} starts a process: mark it with pytest.mark.slow.")


sys.addaudithook(_no_process)


@pytest.fixture(scope="session")
def micro(tmp_path_factory, worker_id):
    """A project in which `roads run` has carried out the micro study, once for all workers. Not to be changed."""
    base = tmp_path_factory.getbasetemp()
    project = (base if worker_id == "master" else base.parent) / "micro"
    with FileLock(f"{project}.lock"):
        if not (project / "run.log").exists():
            shutil.rmtree(project, ignore_errors=True)
            project.mkdir()
            done = roads(new_project(project, "micro"), "run")
            assert done.returncode == 0, done.stdout + done.stderr
            (project / "run.log").write_text(done.stdout)
    return project


@pytest.fixture
def micro_copy(micro, tmp_path):
    """A copy of it for one test; .roads (servers' files, logs) stays behind."""
    return shutil.copytree(micro, tmp_path / "project", ignore=shutil.ignore_patterns(".roads"))
