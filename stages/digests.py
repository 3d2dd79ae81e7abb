"""For each stage the digest of all code that it can reach, and the versions of the packages that it computes with.

Every other stage depends on its own small file here, so an edit reruns the stages that it can change and no others.
"""

import json
from pathlib import Path

from stages.records.code import LOADED, MAIN, Code
from stages.records.command import command
from stages.records.pins import check_installed, packages


def run() -> None:
    """Write data/digests/<stage>.json for each stage: {"code": {piece: SHA-256}, "packages": {name: version}}.

    Raises UserError for source that is not valid Python, for what requirements.lock lacks, and for what is not
    installed as it says.
    """
    check_installed(Path("requirements.lock"))
    folder = Path("data/digests")
    folder.mkdir(parents=True, exist_ok=True)
    found = digests(Path("."))
    for path in folder.glob("*.json"):
        if path.stem not in found:
            path.unlink()
    for stage, record in found.items():
        text = json.dumps(record, indent=1, sort_keys=True) + "\n"
        (folder / f"{stage}.json").write_text(text, encoding="utf-8", newline="\n")


def digests(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """For each stage below ``root``/stages what ``run`` writes.

    A stage is a module directly in stages/, except this one, that hands its ``run`` on in its ``__main__`` block.
    """
    code = Code(root)
    found = {}
    for name, module in code.modules.items():
        is_stage = name.count(".") == 1 and any(chain == ("run",) for s in module.main for chain in module.chains(s))
        if not is_stage or name == "stages.digests":
            continue
        pieces = code.reach({(name, LOADED), (name, MAIN), (name, "run")})
        hashes = {(f"{m}.{n}" if m in code.modules else m): code.follow((m, n))[1] for m, n in pieces}
        found[name.removeprefix("stages.")] = {
            "code": {piece: digest for piece, digest in sorted(hashes.items()) if digest},
            "packages": packages({dotted for module, dotted in pieces if not module}, code.versions),
        }
    return found


if __name__ == "__main__":
    command(run)
