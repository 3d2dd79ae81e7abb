"""A small DVC project with statements, in process: what stages of shell commands would have stated of themselves."""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
from pathlib import Path

from flows.pipeline.graph import Graph
from flows.provenance import keys
from stages.provenance.statements import Declared, Statement
from stages.records.artifacts import write_file

PIPELINE = """
stages:
  base: {cmd: make base, deps: [rows.csv, data/inputs/gap], outs: [data/base]}
  policy: {cmd: make policy, deps: [data/base], params: [rate], outs: [data/policy]}
  report:
    cmd: make report
    deps: [data/policy]
    outs: [data/evidence.json, data/report/report.md: {cache: false}]
"""
FILES = {
    "rows.csv": "1,2\n",
    "params.yaml": "rate: 0.1\n",
    "dvc.yaml": PIPELINE,
    ".gitignore": ".roads/\n/runs/\n",
    "data/.gitignore": "/*\n!.gitignore\n!/inputs/\n!/studies/\n",
    "data/inputs/gap/pairs.jsonl": "{}\n",
    "data/base/model/weights": "of base\n",
    "data/base/manifest": "weights\n",
    "data/policy/weights": "of policy\n",
    "data/evidence.json": '{"lead": 1}\n',
    "data/report/report.md": "Online leads.\n",
}
STAGES = ("base", "policy", "report")


def git(*words: str) -> str:
    """What git prints; by whoever."""
    who = ("-c", "user.name=test", "-c", "user.email=test@test.invalid", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], capture_output=True, text=True, check=True).stdout.strip()


def commit(message: str = "changed") -> str:
    """Commit all that has changed."""
    git("add", "-A")
    git("commit", "-q", "-m", message)
    return git("rev-parse", "HEAD")


@contextlib.contextmanager
def made_in(folder: Path):
    """The project, all committed, as the current folder; its user has a key, beside it."""
    before, home = Path.cwd(), os.environ.get("XDG_CONFIG_HOME")
    from dvc.repo import Repo

    (folder / "project").mkdir(parents=True)
    os.chdir(folder / "project")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    git("init", "-q", "-b", "main")
    for name, text in FILES.items():
        write_file(Path(name), text)
    with Repo.init() as repo:
        repo.add("data/inputs/gap")
        record()
    commit("begun")
    keys.new(Path.cwd())
    try:
        yield Path.cwd()
    finally:
        os.chdir(before)
        os.environ.pop("XDG_CONFIG_HOME")
        os.environ |= {"XDG_CONFIG_HOME": home} if home else {}


def record() -> None:
    """Let DVC take what lies in the outs for what their stages made."""
    from dvc.repo import Repo

    with Repo() as repo:
        repo.commit(force=True)


def state(*names: str, stage: str = "") -> Path:
    """Let stages, as they are recorded, state what they have read and made; the last one's statement in the cache."""
    for name in names:
        found = Graph().record(name)
        sides: dict = {side: [entry["path"] for entry in found[side]] for side in ("deps", "outs")}
        declared = Declared(stage or name, params={"params.yaml": found["params"]}, **sides)
        Statement(declared, found["cmd"]).write()
    graph = Graph()
    return max(Path(graph.repo.cache.local_cache_dir, "statements", stage or name).glob("*"), key=os.path.getmtime)


def altered(path: Path, change, sign: bool = False) -> Path:
    """Replace a statement's file by what ``change(envelope, payload)`` makes of it, by the right name."""
    envelope = json.loads(path.read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    change(envelope, payload)
    if "payload" in envelope:
        envelope["payload"] = base64.b64encode(json.dumps(payload, sort_keys=True).encode()).decode()
    if sign:
        envelope = signed(envelope)
    path.unlink()
    return placed(path.parent, (json.dumps(envelope, sort_keys=True) + "\n").encode())


def signed(envelope: dict) -> dict:
    """The envelope with the user's signature alone."""
    from stages.provenance import signing

    return json.loads(signing.envelope(base64.b64decode(envelope["payload"]), signing.signer()))


def placed(folder: Path, content: bytes) -> Path:
    """A file of a statement's, by the SHA-256 of its content."""
    path = folder / f"{hashlib.sha256(content).hexdigest()}.json"
    write_file(path, content)
    return path
