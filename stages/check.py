"""The first stage, on which all others depend: cells follow from the params, packages are those of the lock.

In: params.yaml, cells.yaml, requirements.lock, the code. Out: for each stage, and what its cells have chosen, the
digest of its code, so that it reruns when that changes; an empty file for each dependency that not every cell has.
"""

from pathlib import Path

from stages.provenance import digests
from stages.provenance.pins import check_installed
from stages.records import plain, reading, resolver
from stages.records.arms import NONE
from stages.records.artifacts import write_file
from stages.records.cells import SLOTS
from stages.records.command import command


def run() -> None:
    """Write data/digests and data/none; what they hold already stays untouched.

    Raises UserError for what params.yaml may not say, where cells.yaml does not follow from it, for source that is not
    valid Python, for what requirements.lock lacks, and for what is not installed as it says.
    """
    reading.load()
    resolver.refuse()
    check_installed(Path("requirements.lock"))
    cells = plain.fast(resolver.CELLS)["cells"]
    found = digests.digests(digests.named(cells, Path()), Path())
    wanted = {digests.FOLDER / f"{name}.json": digests.text(digest) for name, digest in found.items()}
    wanted |= {Path(f"{NONE}{slot}"): "" for slot in SLOTS}
    for path in (path for folder in {path.parent for path in wanted} if folder.exists() for path in folder.iterdir()):
        if path not in wanted:
            path.unlink()
    for path, content in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            write_file(path, content)


if __name__ == "__main__":
    command(run)
