"""What lies in the project, as MLflow is to know it: the artifacts at a path, the models in them, results, files."""

import hashlib
import json
from pathlib import Path

from flows.tracking import names
from stages.records import artifacts


class Contents:
    """Of a project's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashes: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def results(self, stage: dict) -> dict[str, object]:
        """The leaves of a stage's metrics.json."""
        results = {}
        for out in stage["outs"]:
            path = self.root / out["path"]
            path = path if path.name == "metrics.json" else path / "metrics.json"
            results |= names.flat(json.loads(path.read_text())) if path.is_file() else {}
        return results

    def of(self, path: str, md5: str | None = None) -> list[tuple[str, str]]:
        """(path, SHA-256) of each artifact at or below ``path``; of anything else, its own path and content.

        With DVC's ``md5`` of it, the answer is remembered.
        """
        if (path, md5) in self._hashes:
            return self._hashes[path, md5]
        here = self.root / path
        found = [here] if here.is_file() else sorted(m.parent for m in here.rglob(artifacts.MANIFEST))
        if not found and here.is_dir() and artifacts.files(here):
            found = [here]
        hashes = [(str(p.relative_to(self.root)), _sha256(p)) for p in found]
        if md5:
            self._hashes[path, md5] = hashes
        return hashes

    def models(self, path: str) -> list[str]:
        """The model folders in an artifact: itself, and what it holds (as the base of a text world holds its judge)."""
        here = self.root / path
        if not here.is_dir() or path.startswith("data/inputs"):
            return []
        folders = [here, *here.glob("*/")]
        models = [f for f in folders if (f / "config.json").is_file() and any(f.glob("*.safetensors"))]
        return [str(f.relative_to(self.root)) for f in models]

    def written(self, stage: dict) -> list[Path]:
        """The outs that are files, as a report is; data and models are folders, and stay with DVC."""
        return [path for out in stage["outs"] if (path := self.root / out["path"]).is_file()]


def _sha256(path: Path) -> str:
    """Of a file its bytes, of an artifact its manifest, of any other folder the manifest that it would have."""
    if path.is_file():
        return artifacts.sha256(path)
    if (path / artifacts.MANIFEST).is_file():
        return artifacts.digest(path)
    listed = {str(p.relative_to(path)): artifacts.sha256(p) for p in artifacts.files(path)}
    return hashlib.sha256((json.dumps(listed, indent=1) + "\n").encode()).hexdigest()
