"""A stage reads only what it declares in dvc.yaml: what it asks for, what DVC watches, and what becomes due agree."""

import importlib
import inspect
import json

import pytest
from conftest import ROOT, new_project

from flows.graph import Graph
from flows.parsing import params_parsed_once
from stages.records import params, sections
from stages.records.errors import UserError


def plain(study: str) -> dict:
    """params.yaml as plain data, with only what a study needs."""
    data = params.read(ROOT / "params.yaml")
    data["study"] = data["studies"][study]
    data["settings"] = {name: data["settings"][name] for name in data["study"]["settings"]}
    data["studies"], data["claims"] = {study: data["study"]}, {}
    return json.loads(json.dumps(data))  # what YAML's anchors share is then one thing per place


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = new_project(tmp_path_factory.mktemp("declared"), "micro")
    (folder / "params.yaml").write_text(json.dumps(plain("micro")))
    return folder


@pytest.fixture(scope="module")
def asked(project, tmp_path_factory):
    """Stage -> the names that its command asks of params.yaml, as dvc.yaml writes them.

    Each command is carried out in a folder of its own that holds the params and nothing else, where it ends at the
    first artifact that it would read.
    """
    found, declared, setting = {}, params.declared, sections.of
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)  # DVC names stages by where one is
        for name, stage in Graph().stages.items():
            _, module, *words = stage.command.split()[1:]
            if module in ("stages.digests", "stages.variant"):
                continue  # they ask for none
            names = found[name] = set()
            folder = tmp_path_factory.mktemp("nothing")
            (folder / "params.yaml").write_text((project / "params.yaml").read_text())
            patch.chdir(folder)

            def ask(*wanted, names=names):
                names.update(wanted)
                return declared(*wanted)

            def ask_setting(one, *wanted, names=names):
                names.update(f"settings.{one}.{key}" for key in wanted)
                return setting(one, *wanted)

            patch.setattr(params, "declared", ask)
            patch.setattr(sections, "of", ask_setting)
            run = importlib.import_module(module).run
            if module == "stages.theory":
                patch.setattr("stages.theory.write", lambda *_: None)  # it reads no artifact, and takes long
            given = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2])}
            typed = {
                key: parameter.annotation(given[key]) for key, parameter in inspect.signature(run).parameters.items()
            }
            try:
                run(**typed)
            except UserError as error:
                assert "is missing" in str(error) or "holds no" in str(error), error
            assert names, f"{name} asked for nothing"
    return found


def watched(graph: Graph, name: str) -> set[str]:
    return {key for dependency in graph.dvc_stage(name).params for key in dependency.params}


@pytest.mark.slow
def test_what_a_stage_asks_for_is_what_dvc_yaml_declares(project, asked, monkeypatch):
    """One by one no more than that; the stages of one group together all of it."""
    monkeypatch.chdir(project)
    graph, groups = Graph(), {}
    for name, stage in graph.stages.items():
        declares, reads = watched(graph, name), asked.get(name, set())
        assert reads <= declares, f"{name} reads {reads - declares} undeclared"
        labels = stage.labels
        group = groups.setdefault(
            (stage.group, labels.get("setting"), labels.get("arm") if reads else ""), [set(), set()]
        )
        group[0] |= declares
        group[1] |= reads
    for where, (declares, reads) in groups.items():
        assert declares == reads, f"{where} declares {declares - reads} and does not read it"


@pytest.mark.slow
def test_every_leaf_of_the_params_makes_due_exactly_the_stages_that_read_it(project, asked, monkeypatch):
    monkeypatch.chdir(project)
    graph, path, data = Graph(), project / "params.yaml", plain("micro")
    stages = {name: graph.dvc_stage(name).params for name in graph.stages}
    for dependencies in stages.values():
        for dependency in dependencies:
            dependency.save()  # as it is now
    leaves = [found for found in walk(data) if found[0][0] in ("settings", "theory")]
    assert len(leaves) > 150
    for keys, value in leaves:
        holder = data
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = changed(value)
        path.write_text(json.dumps(data))
        holder[keys[-1]] = value
        leaf = ".".join(map(str, keys)) + "."
        with params_parsed_once():
            due = {name for name, dependencies in stages.items() if any(d.status() for d in dependencies)}
        reads = {name for name, names in asked.items() if any(leaf.startswith(f"{wanted}.") for wanted in names)}
        assert due == reads, leaf
    path.write_text(json.dumps(data))


def walk(data, keys=()):
    """(keys, value) of every leaf; a list is one."""
    if isinstance(data, dict):
        for key, inner in data.items():
            yield from walk(inner, (*keys, key))
    else:
        yield keys, data


def changed(value):
    return {bool: lambda: not value, str: lambda: f"{value}_", list: lambda: [*value, *value]}.get(
        type(value), lambda: value + 1
    )()


def test_asking_for_more_than_was_declared_raises(project, monkeypatch):
    monkeypatch.chdir(project)
    given = sections.of("micro", "evaluate", "sample.best_of", "arms.online")
    assert given.sample.best_of == 4 and given.evaluate.completions == 4 and list(given.arms) == ["online"]
    for section, key in ((given, "reward"), (given, "compute"), (given.sample, "completions"), (given.sample, "beta")):
        with pytest.raises(AttributeError):
            getattr(section, key)
    with pytest.raises(AttributeError):
        params.declared("study").settings["micro"]


def test_a_fault_in_what_is_not_asked_for_is_no_business_of_the_stage(project, tmp_path, monkeypatch):
    data = plain("micro")
    data["settings"]["micro"]["sample"]["temperature"] = "hot"
    (tmp_path / "params.yaml").write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    assert sections.of("micro", "sample.best_of").sample.best_of == 4
    with pytest.raises(UserError, match=r"settings\.micro\.sample\.temperature"):
        sections.of("micro", "sample")
    with pytest.raises(UserError, match=r"has no settings\.micro\.arms\.none: add"):
        sections.of("micro", "arms.none")
    with pytest.raises(UserError, match=r"no settings\.macro"):
        sections.of("macro", "sample")
