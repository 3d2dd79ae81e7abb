"""The packages that a commit's requirements.lock names: which of them are others here, and an environment with them."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from flows.alone import alone
from flows.provenance.checkouts import surroundings
from stages.provenance.pins import read_lock
from stages.records.errors import UserError

FOLDER = Path(".roads/environments")
READY = "ready"  # in an environment that was made to its end
FACTS = "import json; from stages.records import machine; print(json.dumps(machine.facts()))"


def unlike(root: Path) -> list[str]:
    """numpy 2.1 (here 2.2): each package of which this Python has another version than the project in ``root`` names.

    What a build adds to a version ("+cpu") does not count.
    """
    found = []
    for name, pinned in _pins(root).items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = "none"
        if "/" not in pinned and here.partition("+")[0] != pinned.partition("+")[0]:
            found.append(f"{name} {pinned} (here {here})")
    return found


def python(project: Path, root: Path) -> Path:
    """The Python of an environment with what the lock in ``root`` names, in the project's .roads/environments.

    It is made as `make` does where there is none yet, and found again by the hash of the lock. Raises UserError.
    """
    lock, torch = (root / "requirements.lock").read_bytes(), _pins(root).get("torch")
    place = project / FOLDER / hashlib.sha256(f"{torch}\n".encode() + lock).hexdigest()[:16]
    with alone(place):
        if not (place / READY).exists():
            for left in (path for path in place.iterdir() if path.name != ".roads"):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            print(f"Making the environment of requirements.lock in {place} (minutes, gigabytes) ...", file=sys.stderr)
            pip = [str(place / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
            _do([sys.executable, "-m", "venv", str(place)], root)
            if torch:  # first, with what it needs: that differs between machines, and a lock cannot say so
                _do([*pip, f"torch=={torch}"], root)
            _do([*pip, "--no-deps", "-r", "requirements.lock"], root)
            (place / READY).touch()
    return place / "bin/python"


def facts(python: Path, project: Path) -> dict[str, str]:
    """What machine.facts says in another environment's Python."""
    done = subprocess.run([python, "-c", FACTS], cwd=project, env=surroundings(), capture_output=True, check=True)
    return json.loads(done.stdout)


def _pins(root: Path) -> dict[str, str]:
    """Package -> version of requirements.lock, and of torch, which may be pinned in pyproject.toml alone."""
    about = root / "pyproject.toml"
    torch = re.search(r'"torch==([^"\s;]+)', about.read_text() if about.exists() else "")
    return ({"torch": torch[1]} if torch else {}) | read_lock(root / "requirements.lock")


def _do(command: list[str], root: Path) -> None:
    done = subprocess.run(command, cwd=root, env=surroundings(), capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise UserError(f"`{' '.join(command)}` failed ({said[-1] if said else 'no output'}): mend that and run again.")
