"""What somebody, or a disk, may do to a project, each as a function of the project and a folder outside of it.

Each returns the names of which a refusal has to have one; the right result is as good.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from soak.ground import content, judged, replace
from soak.harm import OBJECTS, edit, flip, forget, locked, objects, put, swap


def another_out(project, outside):
    return locked(project, lambda s: s["model"]["outs"][0].update(md5=s["raw"]["outs"][0]["md5"]))


def another_out_and_no_runs(project, outside):
    """The same, and what DVC knows of earlier runs is gone."""
    shutil.rmtree(project / ".dvc/cache/runs")
    forget(project, "model")
    return another_out(project, outside)


def no_such_out(project, outside):
    return locked(project, lambda s: s["model"]["outs"][0].update(md5="0" * 32 + ".dir"))


def another_input(project, outside):
    return locked(project, lambda s: s["model"]["deps"][0].update(md5="0" * 32))


def another_command(project, outside):
    return locked(project, lambda s: s["model"].update(cmd="touch stolen"))


def other_params(project, outside):
    return locked(project, lambda s: s["model"]["params"]["cells.yaml"].update({"resolved.study.seeds": [7]}))


def a_path_out_of_the_project(project, outside):
    return locked(project, lambda s: s["model"]["outs"][0].update(path=f"../{outside.name}/precious"))


def an_absolute_path(project, outside):
    return locked(project, lambda s: s["model"]["outs"][0].update(path=str(outside / "precious")))


def a_former_stage_whose_out_lies_behind_a_link(project, outside):
    (project / "data/link").symlink_to(outside)
    gone = {"cmd": "true", "outs": [{"path": "data/link/precious", "hash": "md5", "md5": "0" * 32}]}
    return locked(project, lambda s: s.update({"former": gone}))


def a_former_stage_whose_out_leads_out(project, outside):
    gone = {"cmd": "true", "outs": [{"path": f"data/../../{outside.name}/precious", "hash": "md5", "md5": "0" * 32}]}
    return locked(project, lambda s: s.update({"former": gone}))


def code_in_the_lock_file(project, outside):
    path = project / "dvc.lock"
    path.write_text(path.read_text() + f"\nx: !!python/object/apply:os.system ['touch {outside}/stolen']\n")
    return ("dvc.lock",)


def _listing(project: Path, relpath: str) -> tuple[str, ...]:
    """dvc.lock names a listing of a folder, whole by its hash, with a file at ``relpath``."""
    entries = [{"md5": put(project, b"evil\n"), "relpath": relpath}]
    oid = put(project, json.dumps(entries).encode(), ".dir")
    shutil.rmtree(project / ".dvc/cache/runs")
    forget(project, "model")
    locked(project, lambda s: s["model"]["outs"][0].update(md5=oid, size=5, nfiles=1))
    return (oid[2:],)


def a_listing_that_leads_out(project, outside):
    return _listing(project, f"../../../{outside.name}/evil")


def an_absolute_listing(project, outside):
    return _listing(project, str(outside / "evil"))


def an_input_that_leads_out(project, outside):
    oid = put(project, b"evil\n")
    (project / "data/inputs/gap.dvc").write_text(
        f"outs:\n- {{md5: {oid}, size: 5, hash: md5, path: ../../../{outside.name}/evil}}\n"
    )
    return ("data/inputs/gap.dvc",)


def an_absolute_input(project, outside):
    oid = put(project, b"evil\n")
    (project / "data/inputs/gap.dvc").write_text(f"outs:\n- {{md5: {oid}, size: 5, hash: md5, path: {outside}/evil}}\n")
    return ("data/inputs/gap.dvc",)


def an_input_behind_a_link(project, outside):
    oid = put(project, b"evil\n")
    (project / "data/inputs/link").symlink_to(outside)
    edit(
        project / "data/inputs/gap.dvc",
        lambda d: d["outs"].append({"md5": oid, "size": 5, "hash": "md5", "path": "link/evil"}),
    )
    return ("data/inputs/gap.dvc",)


def another_record_of_the_input(project, outside):
    edit(project / "data/inputs/gap.dvc", lambda d: d["outs"][0].update(md5="0" * 32 + ".dir"))
    return ("data/inputs/gap",)


def a_damaged_record_of_the_input(project, outside):
    path = project / "data/inputs/gap.dvc"
    path.write_bytes(path.read_bytes()[:30])
    return ("data/inputs/gap.dvc",)


def a_changed_input(project, outside):
    flip(project / "data/inputs/gap/a.jsonl", 100)
    forget(project, "raw")
    shutil.rmtree(project / ".dvc/cache/runs")
    for path in objects(project, ""):
        path.unlink()
    return ("data/inputs/gap",)


def swapped_objects(project, outside):
    swap(*objects(project, "")[:2])
    forget(project, "raw", "model", "report/report.html")
    return ()


def swapped_listings(project, outside):
    swap(*objects(project, ".dir")[:2])
    forget(project, "raw", "model")
    return ("data/inputs/gap",)


def swapped_runs(project, outside):
    swap(*sorted((project / ".dvc/cache/runs").glob("*/*/*"))[:2])
    forget(project, "raw", "model")
    return ()


def a_forged_run(project, outside):
    """DVC's record of an earlier run names other outs."""
    for path in (project / ".dvc/cache/runs").glob("*/*/*"):
        edit(
            path,
            lambda d: d["outs"][0].update(
                md5=objects(project, ".dir")[0].parent.name + objects(project, ".dir")[0].name
            ),
        )
    (project / "dvc.lock").unlink()
    forget(project, "raw", "model")
    return ()


def a_poisoned_remote(project, outside):
    """A folder as remote, in which each object holds what another should; and nothing is here."""
    with_remote(project, outside)
    shutil.copytree(project / OBJECTS, outside / "remote/files/md5")
    found = sorted(path for path in (outside / "remote/files/md5").glob("*/*") if path.suffix != ".dir")
    for one, other in zip(found[::2], found[1::2]):
        swap(one, other)
    for path in objects(project, ""):
        path.unlink()
    shutil.rmtree(project / ".dvc/cache/runs")
    forget(project, "raw", "model", "report/report.html")
    return ()


def with_remote(project, outside):
    (project / ".dvc/config.local").write_text(
        f"['remote \"r\"']\n    url = {outside}/remote\n[core]\n    remote = r\n"
    )


def no_lock(project, outside):
    (project / "dvc.lock").unlink()
    return ()


def junk_in(*names: str) -> Callable:
    """Files that are not what they were, but for their names."""

    def harm(project, outside):
        for name in names:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_bytes(b"\x00\xff{[not what was here")
        return names

    harm.__name__ = f"junk_in_{Path(names[0]).name}"
    return harm


def cut(part: float) -> Callable:
    """dvc.lock, cut."""

    def harm(project, outside):
        path = project / "dvc.lock"
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
        return ("dvc.lock",)

    harm.__name__ = f"dvc.lock_cut_at_{part:.0%}"
    return harm


LOCK = [cut(part / 100) for part in range(0, 100, 7)]
JUNK = [
    junk_in(name)
    for name in ("dvc.lock", "data/made.json", ".roads/timings.json", ".roads/lock", ".roads/origins.json",
                 ".dvc/tmp/rwlock", ".dvc/tmp/lock", ".dvc/config", "params.yaml", "dvc.yaml", "cells.yaml")
]  # fmt: skip
WRITTEN = [
    another_out, no_such_out, another_input, another_command, other_params, code_in_the_lock_file,
    another_record_of_the_input, a_damaged_record_of_the_input, no_lock,
]  # fmt: skip
OUT = [
    a_path_out_of_the_project, an_absolute_path, a_former_stage_whose_out_lies_behind_a_link,
    a_former_stage_whose_out_leads_out, a_listing_that_leads_out, an_absolute_listing, an_input_that_leads_out,
    an_absolute_input, an_input_behind_a_link,
]  # fmt: skip
BYTES = [a_changed_input, swapped_objects, swapped_listings, swapped_runs, a_forged_run, a_poisoned_remote]
QUICK = [cut(0.5), junk_in(".dvc/tmp/rwlock"), another_out, swapped_objects, a_forged_run, a_poisoned_remote]


def carry_out(attack: Callable, forks, made: Path, folder: Path) -> str:
    """What an attack on a copy of the project ``made`` comes to. Raises AssertionError for a wrong result, a refusal
    that names nothing, and for whatever is written, changed or removed outside of the project."""
    project, outside = replace(folder / "project", made), folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    names = attack(project, outside)
    before = content(outside)
    outcome = judged(forks, project, made, names)
    assert content(outside) == before, "the world outside of the project"
    assert not (project / "stolen").exists()
    return outcome
