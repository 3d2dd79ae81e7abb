"""The cells of a study: one for each stage instance, with the paths that it reads; dvc.yaml makes its stages of them.

A setting's corpus is that of the furthest setting that it extends with the same section ``corpus``, and its base policy
that of the furthest with the same corpus, base and compute, so that nobody lists who shares with whom.
"""

import itertools
from collections.abc import Iterator

from stages import worlds
from stages.records import arms
from stages.records.arms import NONE

STAGES = (
    "corpus base pool preferences reward sample score judge offline online pick evaluate verification replicate "
    "report".split()
)
FOLDERS = {  # what a replicate is made of, and the stages whose outs lie there
    "evaluation": ("pick", "evaluate"),
    "policy": ("offline", "online"),
    "judge": ("judge",),
    "verification": ("verification",),
}
SLOTS = ("inputs", "start", "labels", "sample", "of", *FOLDERS, "replicate", "published")  # what a cell may lack: files
# below NONE
OF = ("setting", "seed", "verifier", "arm", "judged")  # whose a cell is; none of setting or seed: of all


def cells_of(study: dict, settings: dict, lines: dict[str, list[str]]) -> dict[str, dict]:
    """Stage -> name of a cell -> whose it is, the paths that it reads, and the file with the digests of its code.

    ``settings``: resolved, with complete arms; ``lines``: each of the study's, and what it extends, nearest first.
    """
    cells: dict[str, dict] = {stage: {} for stage in STAGES}
    published = f"data/studies/{study['name']}/replicates"
    found = {}  # setting-seed -> what the study keeps of it
    for name, seed in itertools.product(study["settings"], study["seeds"]):
        if (of := f"{name}-{seed}") in study["restored"]:
            found[of] = f"{published}/{of}"
            continue
        made: dict[str, dict] = {kind: {} for kind in FOLDERS}  # name -> stage
        for stage, cell, *modules in _replicate(study, settings, lines[name], seed):
            named = "-".join(str(cell[key]) for key in OF if cell.get(key) is not None)
            cells[stage][named] = {**cell, "code": f"data/digests/{'.'.join([stage, *modules])}.json"}
            for kind in (kind for kind, stages in FOLDERS.items() if stage in stages):
                what = "-".join(cell[key] for key in OF[2:] if cell.get(key) is not None)
                made[kind][what] = f"{stage}@{named}"
        folders = {kind: f"data/{kind}/{name}/{seed}" if made[kind] else f"{NONE}{kind}" for kind in FOLDERS}
        found[of] = f"data/replicate/{name}/{seed}"
        shared = {key: cell[key] for key in ("corpus", "base")}
        cell = {"setting": name, "seed": seed, **shared, "folders": folders, "artifacts": made, "out": found[of]}
        cells["replicate"][of] = cell | {"code": "data/digests/replicate.json"}
    cells["report"]["study"] = {
        "replicate": "data/replicate" if cells["replicate"] else f"{NONE}replicate",
        "published": published if study["restored"] else f"{NONE}published",
        "replicates": found,
        "code": "data/digests/report.json",
    }
    return cells


def verifiers(listed: list[str], setting: dict) -> list[str]:
    """The reward models that a study needs in a setting: those that it lists, and those that the arms name."""
    named = [arm.get(key) for arm in setting["arms"].values() for key in ("labels", "start")]
    return list(dict.fromkeys([*listed, *(one for one in named if one in setting["verifiers"])]))


def _replicate(study: dict, settings: dict, line: list[str], seed: int) -> Iterator[tuple]:
    """Stage, cell, and modules of rooms whose code counts beside the stage's own, of what a setting and seed need."""
    name, found = line[0], settings[line[0]]
    ours = {"setting": name, "seed": seed}

    def owner(*sections: str) -> str:
        alike = itertools.takewhile(lambda one: all(settings[one][s] == found[s] for s in sections), line)
        return list(alike)[-1]

    def at(what: str, *rest: str) -> str:
        return "/".join(["data", what, name, str(seed), *rest])

    def file(verifier: str) -> str:
        return f"verifiers-{found['verifiers'][verifier].get('verifier', verifier)}"

    of_corpus, of_base = owner("corpus"), owner("corpus", "base", "compute")
    kind, model = found["corpus"]["world"], found["base"]["model"]
    drawn, place = (seed, [str(seed)]) if study["redraw"] == "world" else (None, [])
    world = {"corpus": "/".join(["data/corpus", of_corpus, *place]), "base": "/".join(["data/base", of_base, *place])}
    inputs = f"data/inputs/{of_corpus}" if kind in worlds.IMPORTED else f"{NONE}inputs"
    imported = f"{NONE}inputs" if isinstance(model, dict) else "/".join(model.split("/")[:3])
    kind = f"worlds-{kind}"
    yield "corpus", {"setting": of_corpus, "seed": drawn, "inputs": inputs, "out": world["corpus"]}, kind
    cell = {"setting": of_base, "seed": drawn, "inputs": imported, "corpus": world["corpus"], "out": world["base"]}
    yield "base", cell, kind
    design = f"designs-{found['preferences']['design']}"
    yield "pool", ours | world, kind, design
    yield "preferences", ours | {"corpus": world["corpus"]}, design
    yield "sample", ours | world, kind

    for one in verifiers(study["verifiers"], found):
        cell = {**ours, "verifier": one, **world}
        yield "reward", cell, file(one)
        yield "score", cell, kind, file(one)
        yield "judge", cell | {"judged": None, "of": f"{NONE}of", "out": at("judge", one)}, kind, file(one)
        for arm in study["judged_on"]:
            own = {"judged": arm, "of": at("evaluation", arm), "out": at("judge", f"{one}-{arm}")}
            yield "judge", cell | own, kind, file(one)
        if name in study["verification"] and one in study["verifiers"]:
            yield "verification", cell, kind, file(one)

    for one, arm in found["arms"].items():
        cell, stage, paths = {**ours, "arm": one, **world}, arms.kind(arm), arms.reads(one, found["arms"], found, at)
        labeller = [file(arm["labels"])] if "labels" in arm and stage in arms.TRAINED else []
        method = [f"methods-{arm['method']}"] if "method" in arm else []
        if stage != "none":
            yield stage, cell | paths, kind, *labeller, *method
        if stage != "pick":
            yield "evaluate", cell | {"policy": paths.get("policy", at("policy", one))}, kind
