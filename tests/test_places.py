"""A project may lie anywhere, behind a proxy, on a machine without git."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small

from flows import services
from flows.tracking import store
from flows.workspace import configure

pytestmark = pytest.mark.slow

project = small.project
ODD = Path("w #1") / "a, b" / "50% x?" / 'ümlaut "q"' / "%41"


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """The small project below folders whose names mean something to the formats that they are written in."""
    root = tmp_path / ODD
    root.parent.mkdir(parents=True)
    monkeypatch.chdir(small.new_project(root, small.PIPELINE))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def test_a_named_study_below_odd_folders_stays_inside_the_project(odd, tmp_path):
    """Its cache, MLflow's and Prefect's databases; MLflow has its stages, by the run and by `roads log`."""
    words = ["--study", "three_seeds"]
    code, said = small.roads("run", *words, "--stages", "base")
    assert code == 0 and "warning" not in said, said
    assert (odd / ".roads/prefect/prefect.db").stat().st_size > 100_000
    assert (odd / "mlflow.db").stat().st_size > 100_000 and list((odd / ".dvc/cache/files/md5").glob("??/*"))
    code, said = small.roads("status", *words)
    assert code == 0 and "base@" not in said, said
    code, said = small.roads("log", *words)
    assert code == 0 and said.startswith("Logged 0 of the 2 stages"), said
    inside = {path for path in tmp_path.rglob("*") if odd in path.parents or path in (odd, *odd.parents)}
    assert {*tmp_path.rglob("*")} == inside


def test_what_a_workspace_has_configured_stays_and_the_projects_remotes_reach_it(odd):
    from dvc.config import Config

    workspace = odd / "runs" / "three_seeds"
    (workspace / ".dvc").mkdir(parents=True)
    shutil.copy(odd / ".dvc" / "config", workspace / ".dvc" / "config")
    configure(odd, workspace)
    small.dvc("remote", "add", "--local", "own", "/own, #1", folder=workspace)
    small.dvc("remote", "add", "shared", "../store", folder=odd)
    small.dvc("config", "--local", "cache.type", "hardlink,copy", folder=odd)
    shutil.copy(odd / ".dvc" / "config", workspace / ".dvc" / "config")
    for _ in range(2):
        configure(odd, workspace)
        config = Config(str(workspace / ".dvc"))
        assert config["remote"]["own"]["url"] == "/own, #1"
        assert config["remote"]["shared"]["url"] == str(odd.parent / "store")
        assert config["cache"]["type"] == ["hardlink", "copy"]
        assert config["cache"]["dir"] == str(odd / ".dvc" / "cache") and config["core"]["no_scm"]
        written = (workspace / ".dvc" / "config.local").stat().st_mtime_ns
    configure(odd, workspace)
    assert (workspace / ".dvc" / "config.local").stat().st_mtime_ns == written


def test_a_proxy_gets_no_request_to_a_server_on_this_machine(project):
    """Prefect is asked directly: the run has it, and does not wait for a minute. Nothing listens at the proxy."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"), "http://127.0.0.1:9")
    code, said = small.roads("run", "--stages", "base", **proxies, no_proxy="example.org")
    assert code == 0 and "warning" not in said, said
    assert (project / ".roads" / "prefect" / "prefect.db").exists()
    assert services.direct({"NO_PROXY": "*"})["no_proxy"] == "*"
    assert services.direct({"no_proxy": "a.org"})["NO_PROXY"] == "a.org,127.0.0.1,localhost,::1"


def test_without_git_everything_works_that_does_not_need_it(project, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "mkdir", "dirname", "cat", "sleep"):
        (tools / name).symlink_to(shutil.which(name))
    environment = {**small.environment(**small.NO_PREFECT), "PATH": str(tools)}
    (project / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    for words in (["run"], ["run", "--study", "three_seeds"], ["status", "--study", "three_seeds"]):
        command = [sys.executable, "-m", "flows", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "flows", "import", "tldr", "rows.jsonl"], env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 2) and done.stderr.count("\n") <= 1, done.stderr


def test_a_process_that_holds_the_database_is_waited_for_with_an_end(project, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.5)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    held = "import fcntl, time; f = open('.roads/mlflow.lock', 'w'); fcntl.flock(f, 2); print(1, flush=True)"
    Path(".roads").mkdir(exist_ok=True)
    other = subprocess.Popen([sys.executable, "-c", f"{held}; time.sleep(99)"], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline()
        with pytest.raises(TimeoutError, match="another process has held"):
            store.connect(".")
    finally:
        other.kill()
        other.wait()
