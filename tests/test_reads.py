"""A stage reads only what it declares in dvc.yaml: what it asks for, what DVC watches, and what becomes due agree."""

import importlib
import json
import shutil

import pytest
from conftest import follow, new_project

from flows.pipeline.graph import Graph
from stages.records import plain, sections
from stages.records.errors import UserError

WITHOUT = {"check": [], "theory": ["theory"], "claims": []}  # stages without a cell, and what they read of params.yaml


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the micro study, whose folder has the cells and no artifact."""
    return new_project(tmp_path_factory.mktemp("declared"), "micro")


@pytest.fixture
def cells(project, tmp_path, monkeypatch):
    """A folder with its cells.yaml and nothing else, to be changed."""
    shutil.copy(project / "cells.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cells.yaml"


@pytest.fixture(scope="module")
def asked(project):
    """Stage -> what its command asks of params.yaml and cells.yaml, as dvc.yaml writes it.

    Each command is carried out in the project, where it ends at the first artifact that it would read.
    """
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for name, stage in Graph().stages.items():
            if not stage.command:
                continue
            _, module, *words = stage.command.split()[1:]
            found[name] = set(WITHOUT.get(stage.group, []))
            if stage.group in WITHOUT:
                continue
            ours = importlib.import_module(module)
            if stage.group == "report":  # it is about all of the study
                found[name] |= {"resolved", "cells.report"}
                continue

            def ask(kind, cell, *wanted, found=found, name=name):
                given, settings = sections.asked(kind, cell, *wanted)
                above = f"resolved.settings.{given.setting}."
                found[name] |= {f"cells.{kind}.{cell}", *(f"{above}{one.format(**vars(given))}" for one in wanted)}
                return given, settings

            patch.setattr(ours, "asked", ask)
            patch.setattr("stages.records.artifacts.writing", nothing_is_written)
            with pytest.raises(UserError, match=r"is missing|holds no|Nothing is written"):
                ours.run(words[1])
            assert found[name], f"{name} asked for nothing"
    return found


def nothing_is_written(*_):
    raise UserError("Nothing is written by this test.")


def watched(graph: Graph, name: str) -> set[str]:
    return {key for dependency in graph.dvc_stage(name).params for key in dependency.params}


@pytest.mark.slow
def test_what_a_stage_asks_for_is_what_dvc_yaml_declares(project, asked, monkeypatch):
    """And the numerics of its setting, by which its process computes, whether it asks or not."""
    monkeypatch.chdir(project)
    graph = Graph()
    for name, reads in asked.items():
        setting = graph.stages[name].labels.get("setting")
        kernels = {f"resolved.settings.{setting}.compute.numerics"} if setting else set()
        declares = watched(graph, name)
        assert reads <= declares and declares - reads <= kernels, name
        covered = kernels & declares or f"resolved.settings.{setting}.compute" in declares
        assert covered or not setting, f"{name} does not watch by which numerics it computes"


@pytest.mark.slow
def test_every_leaf_makes_due_exactly_the_stages_that_read_it(project, asked, monkeypatch):
    monkeypatch.chdir(project)
    graph = Graph()
    stages = {name: graph.dvc_stage(name).params for name in asked}
    for dependency in (dependency for several in stages.values() for dependency in several):
        dependency.save()  # as it is now
    settings = {name: graph.stages[name].labels.get("setting") for name in asked}
    reads = {name: {*names, f"resolved.settings.{settings[name]}.compute.numerics"} for name, names in asked.items()}
    for file, parts in (("cells.yaml", ("resolved", "cells")), ("params.yaml", ("theory",))):
        path, text = project / file, (project / file).read_text()
        data = plain.read(path)
        leaves = [found for found in walk(data) if found[0][0] in parts]
        assert len(leaves) > (400 if file == "cells.yaml" else 20)
        for keys, value in leaves:
            holder = data
            for key in keys[:-1]:
                holder = holder[key]
            holder[keys[-1]] = changed(value)
            path.write_text(json.dumps(data))
            holder[keys[-1]] = value
            leaf = ".".join(map(str, keys)) + "."
            due = {name for name, several in stages.items() if any(one.status() for one in several)}
            assert due == {name for name, names in reads.items() if any(leaf.startswith(f"{one}.") for one in names)}, (
                leaf
            )
        path.write_text(text)


@pytest.mark.slow
def test_a_key_of_params_makes_due_whoever_reads_what_follows_from_it(project, tmp_path, monkeypatch):
    """An arm that says nothing of its rate has that of its setting, and so has the setting that extends this one."""
    folder = shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(folder)
    graph = Graph()
    stages = {name: graph.dvc_stage(name).params for name, one in graph.stages.items() if one.command}
    for dependency in (dependency for several in stages.values() for dependency in several):
        dependency.save()
    data = plain.read(folder / "params.yaml")
    data["settings"]["micro"]["offline"]["learning_rate"] = 0.007
    data["settings"]["micro"]["arms"]["online_batch"]["beta"] = 3.5
    (folder / "params.yaml").write_text(plain.text(data))
    follow(folder)
    due = {name for name, several in stages.items() if any(one.status() for one in several)}
    arms = {"offline": "offline", "offline_relabelled": "offline", "online_batch": "online"}
    of_arms = {f"{kind}@{setting}-0-{arm}" for setting in ("micro", "micro_half") for arm, kind in arms.items()}
    judged = {f"evaluate@{setting}-0-{arm}" for setting in ("micro", "micro_half") for arm in arms}
    assert due == of_arms | judged | {"report"}


def walk(data, keys=()):
    """(keys, value) of every leaf; a list is one."""
    if isinstance(data, dict):
        for key, inner in data.items():
            yield from walk(inner, (*keys, key))
    else:
        yield keys, data


def changed(value):
    return {bool: lambda: not value, str: lambda: f"{value}_", list: lambda: [*value, 9], type(None): lambda: "_"}.get(
        type(value), lambda: value + 1
    )()


@pytest.mark.slow
def test_asking_for_more_than_was_declared_raises(cells):
    where, given = sections.asked("online", "micro-0-online", "evaluate", "sample.temperature", "arms.{arm}")
    assert (where.setting, where.seed, where.arm) == ("micro", 0, "online")
    assert given.sample.temperature == 1 and given.evaluate.completions == 4 and list(given.arms) == ["online"]
    for section, key in ((given, "verifiers"), (given, "compute"), (given.sample, "completions"), (where, "of")):
        with pytest.raises(AttributeError):
            getattr(section, key)


@pytest.mark.slow
def test_a_fault_in_what_is_not_asked_for_is_no_business_of_the_stage(cells):
    data = plain.fast(cells)
    data["resolved"]["settings"]["micro"]["sample"]["temperature"] = "hot"
    cells.write_text(plain.text(data))
    assert sections.asked("sample", "micro-0", "sample.completions")[1].sample.completions == 8
    with pytest.raises(UserError, match=r"cells\.yaml: resolved\.settings\.micro\.sample\.temperature: .*'hot'"):
        sections.asked("sample", "micro-0", "sample")
    with pytest.raises(UserError, match=r"has no resolved\.settings\.micro\.arms\.none: add"):
        sections.asked("sample", "micro-0", "arms.none")
    with pytest.raises(UserError, match=r"--cell names macro-0, .*; the nearest is micro-0"):
        sections.asked("sample", "macro-0", "sample")
