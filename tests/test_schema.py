"""What params.yaml and studies/NAME.yaml may say: each mistake is one sentence that names the key, and what is near."""

import inspect
import re
import shutil
import subprocess
import sys
from typing import get_args

import pandas as pd
import pytest
from conftest import ROOT
from trl.trainer import dpo_trainer

from stages import verification
from stages.records import artifacts, plain, reading, resolver, sections, settings
from stages.records.errors import UserError

TEXT = (ROOT / "params.yaml").read_text()
PARAMS = plain.read(ROOT / "params.yaml")


def wrong(tmp_path, text: str) -> str:
    """The sentence that a params.yaml is refused with."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        reading.load(path)
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said and said.endswith((".", ". "))
    return said


def test_the_target_is_right():
    found = reading.load(ROOT / "params.yaml")
    assert found.settings["short"].arms["offline"].beta == 5.0 and found.settings["short"].corpus.horizon == 1
    assert found.settings["gap"].verifiers.local.beta == 0.5


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("horizon: 4", "horizont: 4", r"settings\.gap\.corpus\.horizont is not a known key; the nearest is horizon"),
        ("hidden_size: 64", "hidden_sise: 64",
         r"settings\.gap\.base\.model\.hidden_sise is not a known key; .* hidden_size"),
        ("    curve:\n", "    curves:\n", r"settings\.gap\.curves is not a known key; the nearest is curve"),
        ("theory: ", "theorie: ", r"first level names theorie, .*; the nearest is theory"),
        ("redraw: preferences", "redraw: everything",
         r"study\.redraw: Input should be 'preferences' or 'world' \(found"),
        ("{learning_rate: 1.0e-3, epochs: 3, batch: 32}", "{learning_rate: 1.0e-3, epochs: three, batch: 32}",
         r"settings\.gap\.verifiers\.global\.epochs: .*number.*'three'"),
        ("epochs: 3, batch: 32, beta", "epochs: .nan, batch: 32, beta", r"gap\.verifiers\.local\.epochs: .*finite"),
        ("oracle: {}", "oracle: {epochs: 3}", r"settings\.gap\.verifiers\.oracle\.epochs is not a known key"),
        ("oracle: {}", "orakel: {}", r"settings\.gap\.verifiers\.orakel names orakel, .*; the nearest is oracle"),
        ("oracle: {}", "slow: {verifier: globl}", r"verifiers\.slow names globl, .*; the nearest is global"),
        ("oracle: {}", "oracle:", r"settings\.gap\.verifiers\.oracle must be a mapping \(found None\)"),
        ("threads: 1 ", "threads: 1.5 ", r"settings\.gap\.compute\.threads: .*integer"),
        ("threads: 1 ", "threads: '1' ", r"settings\.gap\.compute\.threads: .*integer .*'1'"),
        ("removed: 0.33", "removed: 1.33", r"settings\.gap\.corpus\.removed: .*less than or equal to 1"),
        ("rows: 6 ", "rows: 60 ", r"settings\.gap\.corpus: rows x columns must not exceed 64"),
        ("held_out: 0.02", "held_out: 2", r"settings\.gap\.corpus\.held_out: .*less than or equal to 1"),
        ("world: roads", "world: raods", r"settings\.gap\.corpus\.world names raods, .*; the nearest is roads"),
        ("design: plain", "design: plane", r"settings\.gap\.preferences names plane, .*; the nearest is plain"),
        ("design: plain  ", "options: {c: 1}\n      design: plain  ", r"preferences\.options\.c is not a known key"),
        ("device: cpu ", "device: gpu ", r"settings\.gap\.compute\.device: .*'cpu' or 'cuda'"),
        ("seeds: [0, 1]", "seeds: [0, 1, 1]", r"study: seeds lists 1 twice"),
        ("seeds: [0, 1]", "seeds: [0, -1]", r"study\.seeds\.1: .*greater than or equal to 0"),
        ("seeds: [0, 1]", "seeds: []", r"study\.seeds: .*at least 1 item"),
        ("settings: [gap, short, hidden]", "settings: [gap, shirt]", r"study\.settings names shirt, .* is short"),
        ("  short:  ", "  s-hort:  ", r"settings: 's-hort' is no name"),
        ("extends: gap\n    corpus: {horizon", "extends: gpa\n    corpus: {horizon",
         r"settings\.short\.extends names gpa"),
        ("verification: []", "verification: [short]\n  judged_on: [online, online]", r"the key judged_on stands twice"),
        ("judged_on: []  ", "judged_on: [onlin]  ", r"study\.judged_on names onlin, .* nearest is online"),
        ("loss: [sigmoid], labels: global, rounds: 400", "loss: [sigmod], labels: global, rounds: 400",
         r"settings\.gap\.arms\.online\.loss\.0: Input should be 'sigmoid', .*'sigmod'"),
        ("rounds: 400}", "rounds: 399}", r"arms\.online\.rounds = 399 does not divide its steps = 400"),
        ("rounds: 400}", "rounds: 400, labels: orcle}", r"the key labels stands twice"),
        ("labels: global, rounds: 400}", "labels: orcle, rounds: 400}",
         r"arms\.online\.labels names orcle, .* is oracle"),
        ("labels: global, rounds: 400}", "rounds: 400}", r"arms\.online: an arm with rounds must say labels"),
        ("{loss: [sigmoid], labels: global, rounds: 400}", "{method: rlo, labels: global, rounds: 400}",
         r"settings\.gap\.arms\.online names rlo, .*; the nearest is rloo"),
        ("{loss: [sigmoid], labels: global, rounds: 400}",
         "{method: rloo, options: {psi: 1}, labels: global, rounds: 400}",
         r"settings\.gap\.arms\.online\.options\.psi is not a known key"),
        ("{loss: [sigmoid], labels: global, rounds: 400}", "{method: rloo, labels: global, rounds: 4}",
         r"arms\.online\.rounds = 4: rloo samples at every step; write 400"),
        ("{loss: [sigmoid], labels: global, rounds: 400}", "{labels: global, rounds: 400}",
         r"write either loss .* or method"),
        ("offline: {loss: [sigmoid]}", "offline: {loss: [sigmoid], method: rloo}", r"write either loss .* or method"),
        ("offline: {loss: [sigmoid]}", "offline: {method: rloo}",
         r"arms\.offline: rloo learns from completions with scores"),
        ("offline: {loss: [sigmoid]}", "offline: {loss: [sigmoid], options: {a: 1}}",
         r"offline\.options: only a method"),
        ("offline: {loss: [sigmoid]}", "offline: {loss: [sigmoid], prompts: 3}",
         r"an arm without rounds cannot say prompts"),
        ("base: {}  ", "base: {beta: 3}  ", r"arms\.base: an arm that trains nothing cannot say beta"),
        ("best_of_soft: {pick: soft, beta: 1.0, ", "best_of_soft: {pick: soft, of: 4, ",
         r"write pick: best with of, or"),
        ("pick: best, of: 16", "pick: best, of: 65", r"arms\.best_of__global\.of is 65, more than .* = 64: lower it"),
        ("grid: {labels: [global, local]}", "grid: {labels: []}", r"best_of\.grid\.labels is empty"),
        ("grid: {labels: [global, local]}", "grid: {label: [global]}",
         r"best_of\.grid names label, .*; the nearest is labels"),
        ("grid: {labels: [global, local]}", "labels: global, grid: {of: [4, four]}",
         r"arms\.best_of__four\.of: .*'four'"),
        ("grid: {labels: [global, local]}", "grid: {labels: ['a-b']}",
         r"settings\.gap\.arms: 'best_of__a-b' is no name"),
        ("local: {start: local} ", "local: {start: global} ",
         r"arms\.local has the name of a verifier, and is not its"),
        ("base: {}  ", "base: {start: global}  ", r"arms\.base\.start names global, a reward model that is no policy"),
        ("completions: 64 ", "completions: 7 ", r"arms\.best_of__global\.of is 16, more than settings\.gap\.sample"),
        ("completions: 8  ", "completions: 65  ",
         r"gap\.online\.completions = 65 .*exceeds settings\.gap\.sample\.completions"),
        ("temperature: 1.0     # of the samples", "temperature: 0.7     # of the samples",

                 r"online\.temperature = 0\.7 .*online_batch\) is not settings\.gap\.sample\.temperature = 1"),
        ("model: {hidden_size: 64, layers: 2, heads: 4}", "model: EleutherAI/pythia-1.4b-deduped",
         r"settings\.gap\.base: .*not below data/inputs/.*roads import SETTING EleutherAI/pythia"),
        ("model: {hidden_size: 64, layers: 2, heads: 4}", "model: data/inputs/gap/../x/model",
         r"base: .*not below data/inp"),
        ("model: {hidden_size: 64, layers: 2, heads: 4}", "model: data/inputs/ukp/model",
         r"settings\.gap\.base\.model is data/inputs/ukp/model, which is no input of it: run `roads import gap"),
        ("  seeds: [0, 1]", "  settings: [gap]\n  seeds: [0, 1]", r"line \d+: the key settings stands twice"),
        ("study:\n", "study: &s\n", r"line 5: the anchor &s is not allowed"),
        ("    verification:\n      halvings: 4          # of the number of pairs\n", "", "unchanged"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_says_where(tmp_path, old, new, says):
    assert old in TEXT, old
    if says == "unchanged":  # a section that only studies with a verification need
        (tmp_path / "params.yaml").write_text(TEXT.replace(old, new, 1))
        assert reading.load(tmp_path / "params.yaml").settings["gap"].verification is None
        text = TEXT.replace(old, new, 1).replace("verification: []", "verification: [gap]")
        assert "study.verification names gap, but there is no settings.gap.verification" in wrong(tmp_path, text)
        return
    said = wrong(tmp_path, TEXT.replace(old, new, 1))
    assert re.search(says, said), said


@pytest.mark.parametrize("text", ["", "3", "[]", "study:\n", "study: {}\ntheory: {}\nsettings: []\n", "a: {b: 1}\n"])
def test_what_is_no_params_at_all_is_a_sentence_too(tmp_path, text):
    wrong(tmp_path, text)


def leaves(found, path=()):
    """The path of everything within plain data."""
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from leaves(value, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, [], {}, "x y", -1, float("nan"), True, [None], {"a": {"b": []}}], ids=repr)
def test_whatever_stands_in_place_of_a_value_is_right_or_one_sentence(value):
    """Also where the resolver is asked alone, as by `roads status`."""
    for path in leaves({"study": PARAMS["study"], "settings": PARAMS["settings"]}):
        found = resolver.over(PARAMS, {})
        at = found
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        for work in (lambda: reading.check(found, "params.yaml"), lambda: resolver.resolve(found)):  # noqa: B023
            try:
                work()
            except UserError as error:
                assert "\n" not in str(error), path


def test_every_key_that_is_taken_out_is_missed_by_its_path(tmp_path):
    for section in ("compute", "corpus", "base", "preferences", "sample", "curve", "evaluate", "online", "offline"):
        for key in PARAMS["settings"]["gap"][section]:
            found = resolver.over(PARAMS, {})
            del found["settings"]["gap"][section][key]
            optional = section == "preferences" and key == "prompts"
            if optional or (section, key) == ("corpus", "world"):
                continue
            assert f"settings.gap.{section}.{key} is missing" in wrong(tmp_path, plain.text(found))
    for section in ("compute", "corpus", "verifiers", "arms", "online"):
        found = resolver.over(PARAMS, {})
        del found["settings"]["gap"][section]
        assert f"settings.gap.{section} is missing" in wrong(tmp_path, plain.text(found))


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_a_study_is_prepared_from_its_file_and_the_project(project):
    given = reading.prepare("micro", project)
    assert list(given) == ["study", "theory", "settings"] and given["study"]["name"] == "micro"
    assert set(given["settings"]) == {"gap", "micro", "micro_half"}, "what it uses, and what that extends"
    (project / "params.yaml").write_text(plain.text(given))
    assert plain.read(project / "params.yaml") == given
    assert resolver.write(project) and reading.load(project / "params.yaml").study.name == "micro"


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("study:\n", "studie:\n", r"^studies/micro\.yaml: its first level names studie, .*; the nearest is study"),
        ("study:\n", "theory: {}\nstudy:\n", r"^studies/micro\.yaml: its first level names theory"),
        ("study:\n", "study: 3\nclaims:\n", r"^studies/micro\.yaml: study must be a mapping"),
        ("extends: micro", "extends: mikro",
         r"^params\.yaml with studies/micro\.yaml: settings\.micro_half\.extends names"),
        ("seeds: [0]", "seeds: [x]", r"^params\.yaml with studies/micro\.yaml: study\.seeds\.0: .*integer"),
        ("seeds: [0]", "seeds: [0]\n  seeds: [0]", r"^\S*studies/micro\.yaml, line 6: the key seeds stands twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_study_names_its_file(project, old, new, says):
    path = project / "studies/micro.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=says) as error:
        reading.prepare("micro", project)
    assert "\n" not in str(error.value)


def test_an_unknown_study_is_answered_with_the_nearest(project):
    with pytest.raises(UserError, match=r"names evidense, which is not among .*; the nearest is evidence"):
        reading.prepare("evidense", project)


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("margin: 0.2\n", "margin: .nan\n", r"studies/data\.yaml: claims\.H3_prompts\.margin: .*finite"),
        ("expect: same", "expect: less", r"studies/data\.yaml: claims\.H3_prompts\.expect: .*'more'"),
        ("  H3_prompts:\n", "  H3_prompts:\n    study: data\n", r"claims\.H3_prompts\.study is not allowed"),
        ("  H3_prompts:\n", "  main_gap:\n", r"claims\.main_gap: studies/(data|evidence)\.yaml has one of this name"),
        ("hypothesis: H3", "hypotheses: H3", r"H3_prompts\.hypothes\w+ is (missing|not a known key)"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_claim_names_its_file(project, old, new, says):
    path = project / "studies/data.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=says) as error:
        reading.claims(project)
    assert "\n" not in str(error.value)


def test_a_stage_is_given_its_cell_and_what_it_asks_for_and_nothing_else(project, monkeypatch):
    monkeypatch.chdir(project)
    resolver.write()
    names = ("arms.{arm}", "compute.numerics", "preferences.noise", "verifiers.local", "curve")
    cell, options = sections.asked("online", "short-1-online", *names)
    assert (cell.setting, cell.seed, cell.arm, cell.base) == ("short", 1, "online", "data/base/short")
    assert options.arms["online"].beta == 1.5 and options.compute.numerics == "portable" and options.curve.points == 12
    assert options.verifiers.local.beta == 0.5 and not hasattr(options.verifiers, "global")
    assert not hasattr(options, "sample") and not hasattr(options.compute, "threads")
    with pytest.raises(UserError, match=r"--cell names short-1-onlin, .*; the nearest is short-1-online"):
        sections.asked("online", "short-1-onlin")
    with pytest.raises(UserError, match=r"has no resolved\.settings\.short\.arms\.ipo"):
        sections.asked("online", "short-1-online", "arms.ipo")
    text = (project / "cells.yaml").read_text()
    (project / "cells.yaml").write_text(text.replace("points: 12", "points: x"))
    with pytest.raises(UserError, match=r"cells\.yaml: resolved\.settings\.short\.curve\.points: .*'x'"):
        sections.asked("online", "short-1-online", "curve")
    (project / "cells.yaml").unlink()
    with pytest.raises(UserError, match=r"cells\.yaml is missing or damaged"):
        sections.asked("online", "short-1-online", "curve")


def test_the_losses_are_those_that_trl_has():
    source = inspect.getsource(dpo_trainer)
    assert set(get_args(settings.Loss)) == set(re.findall(r'loss_type == "(\w+)"', source))


@pytest.mark.slow
def test_params_are_checked_without_torch():
    code = f"import sys; from stages.records import reading; reading.load({str(ROOT / 'params.yaml')!r}); "
    code += "print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "dvc", "trl"} & set(modules.stdout.split())


@pytest.mark.parametrize(
    "study, gap, says",
    [
        ({"verifiers": []}, {}, r"study: verification names gap, but verifiers lists none to measure"),
        ({}, {"preferences": {"pairs": 10}}, r"gap\.verification\.halvings = 4 leaves none of .*pairs = 10 "),
        ({}, {"verification": {"halvings": 10}}, r"gap\.verification\.halvings = 10 leaves none of .*pairs = 1000 "),
    ],
)
def test_a_verification_of_nothing_is_refused(tmp_path, study, gap, says):
    change = {"study": {"verification": ["gap"]} | study, "settings": {"gap": gap}}
    said = wrong(tmp_path, plain.text(resolver.over(PARAMS, change)))
    assert re.search(says, said), said


def test_data_with_too_few_pairs_to_halve_are_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(plain.text(resolver.over(PARAMS, {"study": {"verification": ["gap"]}})))
    resolver.write()
    with artifacts.writing("data/preferences/gap/0") as folder:
        pd.DataFrame({"split": 15 * ["train"] + 15 * ["test"]}).to_parquet(folder / "pairs.parquet")
    with pytest.raises(UserError, match=r"gap\.verification\.halvings = 4 leaves none of the 15 pairs .*: lower it\.$"):
        verification.run("gap-0-global")
