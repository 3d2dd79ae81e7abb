"""A named study has a folder of its own, so that studies never overwrite each other's dvc.lock and results.

runs/NAME mirrors the project's files, with the study of studies/NAME.yaml as its params.yaml, and shares the DVC
cache, so that what one study has made is restored in another, not made again.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flows.alone import Busy, alone
from flows.pipeline.restoring import remove
from flows.places import MIRRORED, RUNS
from stages.provenance.git import SOURCE, git, source
from stages.records import plain, reading

OWN = {"params.yaml", "cells.yaml", "dvc.lock", ".dvc/config.local"}  # differ from the project's


def enter(name: str) -> None:
    """Bring the workspace of a study up to date with the project and make it the current folder.

    What is shared stays with the project: MLflow's and Prefect's databases. Raises UserError for an unknown study.
    """
    from flows.provenance.replicates import restorable

    project = Path.cwd()
    workspace, given = project / RUNS / name, reading.prepare(name, project)
    lock = workspace / "dvc.lock"
    made = lock.read_text(encoding="utf-8") if lock.exists() else ""
    published = restorable(name, given, project)
    params = params_of(name, given, [of for of in published if f"\n  replicate@{of}:\n" not in made])
    with contextlib.suppress(Busy), alone(workspace):  # while a run works there, it stays as the run began
        commit, clean = source(project)
        mirror(project, workspace)
        write_if_new(workspace / SOURCE, f"{commit} {'clean' if clean else 'changed'}\n")
        configure(project, workspace)
        write_if_new(workspace / plain.PARAMS, params)
    from flows.tracking.store import address

    os.environ.setdefault("PREFECT_HOME", str(project / ".roads" / "prefect"))
    os.chdir(workspace)
    os.environ["MLFLOW_TRACKING_URI"] = address(project)


def params_of(name: str, params: dict[str, Any], restored: Sequence[str] = ()) -> str:
    """params.yaml of a study's workspace, as text.

    params: of reading.prepare; ``restored``: the replicates that are taken as they were published
    (flows/provenance/replicates.py).
    """
    header = f"# Written from params.yaml and {reading.STUDIES}/{name}.yaml of the project: change those.\n"
    if restored:
        params = {**params, "study": {**params["study"], "restored": list(restored)}}
    return plain.text(params, header)


def mirror(project: Path, workspace: Path) -> None:
    """Copy the project's files that have changed, and remove the copies of those that are gone."""
    names = {name for name in files(project) if name not in OWN and is_source(name)}
    listing = workspace / MIRRORED
    for gone in set(listing.read_text().splitlines() if listing.exists() else []) - names:
        (workspace / gone).unlink(missing_ok=True)
        if gone.endswith(".dvc"):  # what it brought goes with it
            remove((workspace / gone).with_suffix(""))
    for name in names:
        source, copy = project / name, workspace / name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    write_if_new(listing, "".join(f"{name}\n" for name in sorted(names)))


def files(project: Path) -> Iterable[str]:
    """The project's own files: what git tracks or would; without git, all but hidden ones and what DVC tracks."""
    listed = git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed is not None:
        return [name for name in os.fsdecode(listed).split("\0") if name and (project / name).is_file()]
    found = {p.relative_to(project) for p in project.rglob("*") if p.is_file()}
    hidden = {p for p in found if any(part.startswith(".") for part in p.parts[:-1])}
    tracked = {p.with_suffix("") for p in found if p.suffix == ".dvc"}
    imported = {p for p in found if tracked.intersection([p, *p.parents])}
    return [str(p) for p in found - hidden - imported | {Path(".dvc/config")}]


def is_source(name: str) -> bool:
    """Whether a file of the project is none of a study's results; what studies have published is read by all."""
    parts = Path(name).parts
    if parts[0] == RUNS:
        return False
    return parts[0] != "data" or parts[1] in ("inputs", "studies") or parts[-1] == ".gitignore"


def configure(project: Path, workspace: Path) -> None:
    """Share the project's DVC cache, links and remotes; what the workspace itself has configured besides stays.

    no_scm: to git the workspace is ignored, and DVC refuses an ignored dvc.yaml. What the project gives relative to
    its own folder comes out relative to the workspace's.
    """
    from configobj import ConfigObj
    from dvc.config import Config, _pack_named
    from dvc.config_schema import RelPath
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        cache, theirs = repo.cache.local_cache_dir, Config(str(project / ".dvc"), validate=False)
    own = Config(str(workspace / ".dvc"), validate=False)
    wanted = own.load_one("local")
    given = {"remote": {**theirs.load_one("repo")["remote"]}}
    for level in (given, theirs.load_one("local")):
        for section, values in level.items():
            for name, value in values.items():
                merged = {**wanted[section].get(name, {}), **value} if isinstance(value, dict) else value
                wanted[section][name] = merged
    wanted["core"]["no_scm"] = "true"
    wanted["cache"]["dir"] = RelPath(cache)
    text = io.BytesIO()
    # as DVC writes it, but for other letters than a to z
    ConfigObj(_pack_named(Config._save_paths(wanted, own.files["local"])), encoding="utf-8").write(text)
    write_if_new(Path(own.files["local"]), text.getvalue().decode())


def write_if_new(path: Path, text: str) -> None:
    """Leave a file that is as it should be alone: DVC would hash it again."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
