"""From params.yaml and studies/ to the cells that dvc.yaml reads."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from stages.records import arms, plain, resolver
from stages.records.cells import NONE, OF, SLOTS, STAGES
from stages.records.errors import UserError

PARAMS = plain.read(ROOT / "params.yaml")
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


def study(name: str) -> dict:
    """What params.yaml is in the folder of a study."""
    if name == "quick":
        return PARAMS
    return resolver.prepared(PARAMS, plain.read(ROOT / f"studies/{name}.yaml"), name)


def changed(*path: str, **values: object) -> dict:
    """The target's params, with values laid over the section that a path leads to."""
    above: dict = values
    for key in reversed(path):
        above = {key: above}
    return resolver.over(PARAMS, above)


def test_params_of_the_quick_study_are_short_and_every_number_has_a_comment():
    lines = (ROOT / "params.yaml").read_text().splitlines()
    assert len(lines) <= 200
    for path in (ROOT / "params.yaml", *(ROOT / "studies").glob("*.yaml")):
        for number, text in enumerate(path.read_text().splitlines(), 1):
            entry = text.startswith("      ") and text[6] not in " -{}[]+0" and ": " in text and "{" not in text
            of_claim = text.startswith("    ") and text[4] != " "
            assert not entry or of_claim or "#" in text or ": [" in text or number > 40, f"{path}:{number}: {text}"


def test_the_cells_of_the_quick_study_are_as_committed_and_the_micro_study_is_small():
    resolver.refuse(ROOT)
    assert plain.text(resolver.resolve(PARAMS), resolver.HEADER) == (ROOT / "cells.yaml").read_text()
    micro = resolver.resolve(study("micro"))["cells"]
    assert sum(map(len, micro.values())) + len(("check", "theory", "claims")) <= 75
    assert all(micro[stage] for stage in STAGES)
    lines = (ROOT / "cells.yaml").read_text().splitlines()
    cells = lines[lines.index("cells:") + 1 :]
    assert all(line.startswith("    ") or line.endswith((":", "{}")) or "}" in line for line in cells)
    number = sum(map(len, resolver.resolve(PARAMS)["cells"].values()))
    assert sum(line.startswith("    ") for line in cells) == number


def test_cells_name_what_they_read():
    found = resolver.resolve(study("evidence"))["cells"]
    online, after = found["online"]["gap-200-online__oracle"], found["online"]["gap-200-online_after"]
    assert online["labels"] == "data/reward/gap/200/oracle"
    assert online["start"] == f"{NONE}start" and online["sample"] == "data/sample/gap/200"
    assert after["start"] == "data/policy/gap/200/offline" and after["sample"] == f"{NONE}sample"
    assert after["code"] == "data/digests/online.worlds-roads.verifiers-global.json"
    assert found["online"]["gap-200-online_rloo"]["code"].endswith("verifiers-global.methods-rloo.json")
    assert found["offline"]["gap-200-offline"]["labels"] == f"{NONE}labels"
    assert found["offline"]["gap-200-offline_relabelled"]["labels"] == "data/reward/gap/200/global"
    assert found["evaluate"]["gap-200-base"]["policy"] == f"{NONE}start"
    assert found["evaluate"]["gap-200-local"]["policy"] == "data/reward/gap/200/local"
    assert found["evaluate"]["gap-200-online_after"]["policy"] == "data/policy/gap/200/online_after"
    assert found["pick"]["gap-200-best_of__local"]["score"] == "data/score/gap/200/local"
    judged = found["judge"]["gap-200-global-online__oracle"]
    assert judged["of"] == "data/evaluation/gap/200/online__oracle" and judged["judged"] == "online__oracle"
    assert found["judge"]["gap-200-global"]["of"] == f"{NONE}of"
    kept = found["replicate"]["gap-200"]
    assert kept["folders"]["verification"] == f"{NONE}verification" and kept["folders"]["judge"] == "data/judge/gap/200"
    assert kept["artifacts"]["judge"]["global-online__oracle"] == "judge@gap-200-global-online__oracle"
    dial = resolver.resolve(study("dial"))["cells"]["replicate"].values()
    assert all(cell["folders"]["verification"].startswith("data/verification/") for cell in dial)
    tldr = resolver.resolve(study("tldr"))["cells"]
    assert (tldr["corpus"]["tldr"]["inputs"], tldr["base"]["tldr"]["inputs"]) == ("data/inputs/tldr", f"{NONE}inputs")
    assert resolver.resolve(study("pythia"))["cells"]["base"]["pythia"]["inputs"] == "data/inputs/pythia"
    used = {v for stage in found.values() for cell in stage.values() for v in cell.values() if str(v).startswith(NONE)}
    assert used <= {f"{NONE}{slot}" for slot in SLOTS}


@pytest.mark.parametrize("name", ["quick", *STUDIES])
def test_whatever_a_cell_reads_another_one_makes(name):
    """Of the stages' outs, as dvc.yaml has them."""
    found = resolver.resolve(study(name))["cells"]
    made = {cell["out"] for stage in ("corpus", "base") for cell in found[stage].values()}
    folders = {"offline": "policy", "online": "policy", "pick": "evaluation"}
    for stage in STAGES[2:-1]:
        for cell in found[stage].values():
            folder = folders.get(stage, "evaluation" if stage == "evaluate" else stage)
            parts = [cell[key] for key in ("setting", "seed", "verifier", "arm") if cell.get(key) is not None]
            made.add(cell.get("out", "/".join(["data", folder, *map(str, parts)])))
    others = (*OF, "code", "folders", "artifacts")
    read = {v for stage in STAGES[:-1] for cell in found[stage].values() for k, v in cell.items() if k not in others}
    for cell in found["replicate"].values():
        read |= {f"{cell['folders'][kind]}/{one}" for kind, several in cell["artifacts"].items() for one in several}
    assert set(found["report"]["study"]["replicates"].values()) <= made
    assert {path for path in read if not path.startswith((NONE, "data/inputs/"))} <= made


def test_a_world_that_every_seed_draws_anew_has_a_corpus_and_a_base_policy_per_seed():
    found = resolver.resolve(changed("study", redraw="world", settings=["gap"]))["cells"]
    assert list(found["corpus"]) == list(found["base"]) == ["gap-0", "gap-1"]
    assert found["corpus"]["gap-1"]["out"] == found["online"]["gap-1-online"]["corpus"] == "data/corpus/gap/1"
    assert found["base"]["gap-1"] == found["base"]["gap-1"] | {"seed": 1, "out": "data/base/gap/1"}
    assert resolver.resolve(PARAMS)["cells"]["corpus"]["gap"]["seed"] is None


def test_what_differs_decides_what_is_shared():
    far = {"extends": "short", "evaluate": {"completions": 4}}
    own = {"extends": "short", "base": {"steps": 10}}
    found = resolver.resolve(changed(study={"settings": ["far", "own"]}, settings={"far": far, "own": own}))
    assert found["cells"]["pool"]["far-0"]["base"] == "data/base/short"
    pool = found["cells"]["pool"]["own-0"]
    assert (pool["corpus"], pool["base"]) == ("data/corpus/short", "data/base/own")
    assert set(found["resolved"]["settings"]) == {"short", "own", "far"}
    assert found["resolved"]["settings"]["short"]["arms"] == {}, "only its corpus and base policy are read"
    assert found["resolved"]["settings"]["far"]["evaluate"] == {"completions": 4, "temperature": 1.0, "prompts": 0}


def test_a_new_setting_and_a_new_arm_leave_all_other_cells_as_they_are():
    before = resolver.resolve(PARAMS)
    after = resolver.resolve(
        changed(
            study={"settings": ["gap", "short", "hidden", "far"], "arms": [*PARAMS["study"]["arms"], "ipo"]},
            settings={
                "far": {"extends": "gap", "preferences": {"pairs": 10}},
                "gap": {"arms": {"ipo": {"loss": ["ipo"]}}},
            },
        )
    )
    for stage in {*STAGES} - {"replicate", "report"}:  # which are about all arms, and all settings
        for name, cell in before["cells"][stage].items():
            assert after["cells"][stage][name] == cell
    for name, setting in before["resolved"]["settings"].items():
        for arm, recipe in setting["arms"].items():
            assert after["resolved"]["settings"][name]["arms"][arm] == recipe


@pytest.mark.parametrize(
    "value, said",
    [
        *((3.0e-5, "3e5"), (0.0003, "3e4"), (2.5e-4, "2p5e4"), (1.5, "1p5"), (0.75, "0p75"), (5, "5"), (45.0, "45")),
        *(("local", "local"), (["sigmoid", "sft"], "sigmoid_sft"), (1000000, "1000000"), (0.01, "0p01"), (0, "0")),
    ],
)
def test_a_value_within_a_name(value, said):
    assert arms.word(value) == said


def test_a_grid_is_one_arm_for_each_combination_in_place_of_the_arm_of_its_name():
    grid = {"labels": ["global", "oracle"], "beta": [1.5, 3]}
    found = resolver.resolve(changed("settings", "gap", "arms", "online", grid=grid))["resolved"]["settings"]
    online = {one: arm for one, arm in found["gap"]["arms"].items() if one.startswith("online_") and "batch" not in one}
    assert list(online) == [f"online__{labels}_{beta}" for labels in ("global", "oracle") for beta in ("1p5", "3")]
    assert online["online__oracle_3"]["labels"] == "oracle" and online["online__oracle_3"]["beta"] == 3
    assert online["online__oracle_3"]["learning_rate"] == 2.0e-3 and "grid" not in online["online__oracle_3"]


def test_one_arm_of_a_grid_may_be_listed_alone():
    found = resolver.resolve(changed("study", arms=["best_of__local"]))
    assert list(found["resolved"]["settings"]["gap"]["arms"]) == ["best_of__local"]
    assert found["cells"]["replicate"]["gap-0"]["folders"]["policy"] == f"{NONE}policy"
    assert list(found["cells"]["pick"]) == [
        f"{setting}-{seed}-best_of__local" for setting in ("gap", "short", "hidden") for seed in (0, 1)
    ]


def test_an_arm_of_an_arm_without_training_starts_where_that_starts():
    recipes = {"like_local": {"start": "local"}, "on": {"start": "like_local", "loss": ["ipo"]}}
    found = resolver.resolve(changed(study={"arms": [*recipes]}, settings={"gap": {"arms": recipes}}))["cells"]
    assert found["evaluate"]["gap-0-like_local"]["policy"] == "data/reward/gap/0/local"
    assert found["offline"]["gap-0-on"]["start"] == "data/reward/gap/0/local"


@pytest.mark.parametrize(
    "change, says",
    [
        (
            {"study": {"settings": ["gap", "shirt"]}},
            "study.settings names shirt, which is not among settings; the nearest is short",
        ),
        ({"settings": {"short": {"extends": "gpa"}}}, "settings.short.extends names gpa, .* the nearest is gap"),
        ({"settings": {"gap": {"extends": "short"}}}, "settings.short.extends leads back to gap"),
        ({"settings": {"gap": {"extends": "gap"}}}, "settings.gap.extends leads back to gap"),
        ({"study": {"arms": ["onlin"]}}, "study.arms names onlin, .* settings.gap.arms; the nearest is online"),
        ({"study": {"arms": ["base", "base"]}}, "study.arms names base twice"),
        ({"study": {"arms": ["best_of", "best_of__local"]}}, "study.arms names best_of__local twice"),
        ({"study": {"verifiers": ["globl"]}}, "study.verifiers names globl, .* the nearest is global"),
        ({"study": {"judged_on": ["offlin"]}}, "study.judged_on names offlin, .* the nearest is offline"),
        (
            {"study": {"verifiers": [], "arms": ["base", "offline"], "judged_on": ["offline"]}},
            "study.judged_on names offline, but there is no reward model to judge",
        ),
        ({"study": {"verification": ["gaps"]}}, "study.verification names gaps, .* the nearest is gap"),
        (
            {"settings": {"gap": {"arms": {"online": {"labels": "orcle"}}}}},
            r"gap\.arms\.online\.labels names orcle, .* oracle",
        ),
        (
            {"settings": {"gap": {"arms": {"online": {"start": "ofline"}}}}},
            r"online\.start names ofline, .* nearest is offline",
        ),
        (
            {"settings": {"gap": {"arms": {"online": {"start": "best_of_soft"}}}}},
            r"start names best_of_soft, which picks",
        ),
        (
            {"settings": {"gap": {"arms": {"online": {"start": "offline"}, "offline": {"start": "online"}}}}},
            r"arms\.online\.start leads back to offline",
        ),
        (
            {"study": {"arms": ["online"]}, "settings": {"gap": {"arms": {"online": {"start": "offline"}}}}},
            "settings.gap.arms.online starts from offline, which this study lacks: add it to study.arms",
        ),
        ({"settings": {"gap": {"arms": {"online": {"grid": {"beta": []}}}}}}, r"arms\.online\.grid\.beta is empty"),
        (
            {"settings": {"gap": {"arms": {"online__3": {}, "online": {"grid": {"beta": [3]}}}}}},
            "settings.gap.arms has two arms named online__3",
        ),
        (
            {"settings": {"gap": {"arms": {"online": {"grid": {"beta": [3, 3.0]}}}}}},
            r"online\.grid makes two arms named online__3: take",
        ),
        (
            {"settings": {s: {"arms": {"online": {"grid": {"beta": [b]}}}} for s, b in (("gap", 1.5), ("short", 3))}},
            r"A grid makes the arm online__1p5 in settings\.gap and not in settings\.short, .* or make two studies",
        ),
        (
            {"settings": {"short": {"arms": {"best_of": {"grid": {"labels": ["global", "local", "oracle"]}}}}}},
            r"A grid makes the arm best_of__oracle in settings\.short and not in settings\.gap, ",
        ),
        (
            {"settings": {"short": {"arms": {"offline": {"rounds": 4, "labels": "global"}}}}},
            r"settings\.gap\.arms\.offline and settings\.short\.arms\.offline are not made by the same stage: make",
        ),
        ({"settings": {"gap": {"corpus": 3}}}, "it lacks a key or has a value of another kind"),
    ],
)
def test_a_wrong_name_is_one_sentence_with_the_nearest(change, says):
    with pytest.raises(UserError, match=says) as error:
        resolver.resolve(resolver.over(PARAMS, change))
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "there."))


def apart(params: dict, cells: dict) -> list[str]:
    """Where cells differ from what params say, each as a refusal says the first."""
    return [resolver._told(*one) for one in resolver._apart(cells, resolver.resolve(params))]


def test_where_cells_do_not_follow_is_said():
    cells = resolver.resolve(PARAMS)
    assert apart(PARAMS, cells) == []
    edited = changed("settings", "short", "offline", beta=6.0)
    assert apart(edited, cells) == ["resolved.settings.short.arms.offline.beta: 5.0, should be 6.0"]
    fewer = changed("study", seeds=[0])
    assert "cells.online.gap-1-online: {...}, should be nothing" in apart(fewer, cells)
    more = changed("study", seeds=[0, 1, 2])
    assert "cells.online.gap-2-online: nothing, should be {...}" in apart(more, cells)


def project(folder: Path, data: dict) -> Path:
    (folder / "params.yaml").write_text(plain.text(data))
    return folder


def test_cells_are_written_where_they_do_not_follow_and_left_alone_where_they_do(tmp_path):
    assert resolver.write(project(tmp_path, PARAMS)) and not resolver.write(tmp_path)
    written = (tmp_path / "cells.yaml").read_bytes()
    assert written == (ROOT / "cells.yaml").read_bytes(), "the same bytes, whoever writes them"
    (tmp_path / "cells.yaml").write_text("# by `-S`\n" + written.decode().replace(": 1.0,", ":   1.0,"))
    resolver.refuse(tmp_path)
    assert not resolver.write(tmp_path), "only what it says counts"
    for broken in (b"\xff", b"resolved: [", b""):
        (tmp_path / "cells.yaml").write_bytes(broken)
        with pytest.raises(UserError, match=r"cells.yaml does not follow params.yaml \(.*: run `roads study`\.$"):
            resolver.refuse(tmp_path)
        assert resolver.write(tmp_path) and (tmp_path / "cells.yaml").read_bytes() == written
    assert not list(tmp_path.glob("*.new"))


def test_a_refusal_says_what_dvc_exp_run_needs_beside(tmp_path):
    resolver.write(project(tmp_path, PARAMS))
    project(tmp_path, changed("settings", "gap", "sample", completions=32))
    with pytest.raises(UserError) as error:
        resolver.refuse(tmp_path)
    flags = [f"-S cells.yaml:resolved.settings.{name}.sample.completions=32" for name in ("gap", "short", "hidden")]
    assert str(error.value) == (
        "cells.yaml does not follow params.yaml (resolved.settings.gap.sample.completions: 64, should be 32, and 2 "
        f"more): run `roads study` (`dvc exp run` needs {' '.join(flags)} beside its own)."
    )
    project(tmp_path, changed("study", looks=2))
    with pytest.raises(UserError, match=r"needs -S cells\.yaml:resolved\.study\.looks=2 beside"):
        resolver.refuse(tmp_path)
    project(tmp_path, changed("study", seeds=[0]))
    with pytest.raises(UserError, match=r"run `roads study`\.$"):
        resolver.refuse(tmp_path)


def test_wrong_params_are_named_when_cells_are_written(tmp_path):
    project(tmp_path, changed("study", arms=["onlin"]))
    with pytest.raises(UserError, match=r"^params\.yaml: study\.arms names onlin"):
        resolver.write(tmp_path)
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        resolver.write(tmp_path)


@pytest.mark.parametrize(
    "text, says",
    [
        ("a: &x 1\nb: 2\n", r"line 1: the anchor &x is not allowed"),
        ("a: 1\nb:\n  - &x {c: 1}\n  - *x\n", r"line 3: the anchor &x"),
        ("a: 1\nb: *x\n", r"(line 2: the alias \*x is not allowed|cannot be read as YAML)"),
        ("a: 1\nb:\n  <<: {c: 1}\n", r"line 3: the merge key << is not allowed"),
        ("a: 1\nb: 2\na: 3\n", r"line 3: the key a stands twice"),
        ("a:\n  b: 1\n  b: 2\n", r"line 3: the key b stands twice"),
        ("b: 1\na: [", "params.yaml, line 2 cannot be read as YAML: while parsing a flow"),
        ("a: \xff", "cannot be read as YAML"),
    ],
)
def test_what_hides_values_in_yaml_is_refused_with_the_line(tmp_path, text, says):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=says) as error:
        plain.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_quoted_merge_sign_is_a_word(tmp_path):
    (tmp_path / "x.yaml").write_text("a: '<<'\nb: x & y * z\n")
    assert plain.read(tmp_path / "x.yaml") == {"a": "<<", "b": "x & y * z"}


def test_numbers_and_words_are_read_as_people_mean_them_and_written_for_every_reader(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1e-3\nb: no\nc: 1e5\nd: 0x10\ne: 012\n")
    assert plain.read(tmp_path / "x.yaml") == {"a": 0.001, "b": "no", "c": 100000.0, "d": 16, "e": 12}
    values = {"a": 1e-05, "b": 1.5e-7, "c": "no", "d": "1e3", "e": True, "f": None, "g": "x: y", "h": "_", "i": 1e22}
    values |= {"true": 1, "1": 2, "n": [], "o": {}, "p": "", "q": "ä # b", "r": -0.5, "s": "data/none/x", "t": "~"}
    text = plain.text({"all": values})
    for kind in ("safe", "rt"):
        for version in ("1.1", "1.2"):
            yaml = YAML(typ=kind, pure=True)
            yaml.version = version
            assert yaml.load(text) == {"all": values}


@pytest.mark.slow
def test_the_resolver_imports_nothing_heavy():
    """`roads status` asks it, and may not wait for pydantic or numpy."""
    code = "import sys; from stages.records import resolver; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "pydantic", "numpy", "pandas", "dvc"} & set(modules.stdout.split())
