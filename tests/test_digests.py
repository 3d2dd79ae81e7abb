"""An edit reruns the stages that import what was edited and no others (stages/provenance/digests.py): on a
made-up package; test_counted.py has the real one."""

from pathlib import Path

import pytest

from stages.provenance.digests import digests, named
from stages.provenance.pins import check_installed
from stages.records.errors import UserError

ROOT = Path(__file__).parent.parent
NAMES = ("train", "draw")
STAGE = '\n\nif __name__ == "__main__":\n    command(run)\n'
FILES = {
    "requirements.lock": "numpy==2.0\nTorch==2.1 ; python_version > '3'\npandas==3.0\npyarrow==20.0\nrapidfuzz==1.0\n"
    "pillow==9.0\npydantic==2.0\nstatsmodels==0.1\npatsy==1.0\nruamel.yaml==0.1\n",
    "stages/__init__.py": "",
    "stages/helper.py": 'def run():\n    pass\n\n\nif __name__ == "__main__":\n    run()\n',
    "stages/start.py": "def command(function):\n    function()\n",
    "stages/train.py": '"""Trains."""\nimport torch\n\nfrom stages.middle import step\n'
    f"from stages.start import command\n\n\ndef run():\n    torch.save(step(1), 'x')\n{STAGE}",
    "stages/draw.py": "import pandas as pd\nfrom PIL import Image\nfrom ruamel.yaml import YAML\n\n"
    "from stages import far\nfrom stages.start import command\n\n\ndef run():\n"
    f"    pd.DataFrame([far.RATE]).to_parquet('x')\n{STAGE}",
    "stages/middle.py": "from stages.shelf import pick\n\n\ndef step(x):\n    from stages.rare import trick\n\n"
    "    return trick(pick(x))\n",
    "stages/far.py": "RATE = 0.1\n\n\ndef scaled(x, width):\n"
    '    """Scaled."""\n    # the rule of three\n    return x / width\n',
    "stages/rare.py": "def trick(x):\n    return x + 100\n",
    "stages/shelf/__init__.py": "from .inner import pick\n",
    "stages/shelf/inner.py": "def pick(x):\n    return x + 1\n",
    "stages/shelf/other.py": "def pick(x):\n    return x + 2\n",
    "stages/shelf/page.jinja": "hello",
    "stages/methods/__init__.py": 'NAMES = ("one",)\n',
    "stages/methods/one.py": "import rapidfuzz\n\nfrom stages.far import scaled\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(project: Path, name: str, old: str, new: str) -> None:
    path = project / name
    text = path.read_text() if path.exists() else ""
    assert old in text
    path.write_text(text.replace(old, new, 1) if old else text + new)


def changed_by(project: Path, name: str, old: str, new: str) -> dict[str, set[str]]:
    """Stage -> the modules, files and packages that an edit changes, for each stage that it changes."""
    before = digests(NAMES, project)
    edit(project, name, old, new)
    changes = {}
    for stage, after in digests(NAMES, project).items():
        then, now = ({**record["code"], **record["packages"]} for record in (before[stage], after))
        changes[stage] = {key for key in then.keys() | now.keys() if then.get(key) != now.get(key)}
    return {stage: found for stage, found in changes.items() if found}


def test_a_stage_lists_the_modules_it_imports_and_the_packages_that_these_require(project):
    found = digests(NAMES, project)
    assert found["draw"]["code"].keys() == {"stages", "stages.draw", "stages.far", "stages.start"}
    assert found["draw"]["packages"] == {"numpy": "2.0", "pandas": "3.0", "pillow": "9.0", "pyarrow": "20.0"}
    assert found["train"]["code"].keys() == {"stages", "stages.train", "stages.middle", "stages.start"} | {
        "stages.rare", "stages.shelf", "stages.shelf.inner"
    }  # fmt: skip
    assert found["train"]["packages"] == {"numpy": "2.0", "torch": "2.1"}


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("stages/far.py", "# the rule of three", "# a comment"),
        ("stages/far.py", '"""Scaled."""', '"""Something else."""\n    "and more"\n    pass'),
        ("stages/far.py", "x / width", "(\n        x\n        / width\n    )"),
        ("stages/far.py", "", '\n\n"""A late remark."""\n'),
        ("stages/train.py", '"""Trains."""', ""),
        ("stages/shelf/other.py", "x + 2", "x + 3"),
        ("stages/shelf/page.jinja", "hello", "bye"),
        ("stages/methods/two.py", "", "import torch\n\ntorch.manual_seed(1)\n"),
        ("stages/methods/__init__.py", '"one",', '"one", "two"'),
        ("requirements.lock", "rapidfuzz==1.0", "rapidfuzz==1.1"),
        ("requirements.lock", "pydantic==2.0", "pydantic==2.1"),
        ("requirements.lock", "ruamel.yaml==0.1", "ruamel.yaml==0.2"),
    ],
)
def test_what_no_stage_can_notice_changes_nothing(project, name, old, new):
    assert changed_by(project, name, old, new) == {}


@pytest.mark.parametrize(
    "name, old, new, stages, named",
    [
        ("stages/middle.py", "pick(x)", "pick(x + 1)", "train", {"stages.middle"}),
        ("stages/rare.py", "100", "101", "train", {"stages.rare"}),
        ("stages/shelf/inner.py", "x + 1", "x + 9", "train", {"stages.shelf.inner"}),
        ("stages/shelf/__init__.py", "", "print(1)\n", "train", {"stages.shelf"}),
        ("stages/far.py", "0.1", "0.2", "draw", {"stages.far"}),
        ("stages/start.py", "function()", "return function()", "train draw", {"stages.start"}),
        ("stages/__init__.py", "", "print(1)\n", "train draw", {"stages"}),
        ("stages/rare.py", "", "\nimport stages.far\nfrom stages.middle import step\n", "train", {"stages.far"}),
        ("stages/rare.py", "", "\nfrom stages.shelf import *\nfrom stages import *\n", "train", {"stages.rare"}),
        ("stages/rare.py", "", "\nfrom . import far\n", "train", {"stages.far"}),
        ("stages/rare.py", "", "\nimport statsmodels.api\n", "train", {"patsy", "pandas", "pyarrow"}),
        ("stages/shelf/inner.py", "x + 1", "__file__", "train", {"stages/shelf/page.jinja"}),
        ("requirements.lock", "Torch==2.1", "Torch==2.2", "train", {"torch"}),
        ("requirements.lock", "numpy==2.0", "numpy==2.1", "train draw", {"numpy"}),
        ("requirements.lock", "pyarrow==20.0", "pyarrow==21.0", "draw", {"pyarrow"}),
    ],
)
def test_what_a_stage_can_notice_changes_it_and_no_other_and_is_named(project, name, old, new, stages, named):
    changes = changed_by(project, name, old, new)
    assert changes.keys() == {*stages.split()}
    assert all(named <= found for found in changes.values())
    if "import" not in new and "__file__" not in new:  # then nothing else comes in, and the edit alone is named
        assert all(named == found for found in changes.values())


def test_a_template_counts_for_who_looks_beside_its_own_file(project):
    edit(project, "stages/shelf/inner.py", "x + 1", "open(__file__ + x)")
    assert changed_by(project, "stages/shelf/page.jinja", "hello", "bye") == {"train": {"stages/shelf/page.jinja"}}


def test_a_module_chosen_by_name_counts_for_who_names_it(project):
    both = ("draw", "draw.methods-one")

    def now() -> list[dict]:
        return list(digests(both, project).values())

    alone, chosen = before = now()
    assert chosen["code"].keys() - alone["code"].keys() == {"stages.methods", "stages.methods.one"}
    assert chosen["packages"].keys() - alone["packages"].keys() == {"rapidfuzz"}
    edit(project, "stages/methods/two.py", "", "import torch\n")
    edit(project, "stages/methods/__init__.py", '"one",', '"one", "two"')
    assert now() == before, "adding a file to a room leaves those who did not choose it alone"
    edit(project, "stages/methods/one.py", "", "\nRATE = 3\n")
    assert now()[0] == alone and now()[1] != chosen


def test_the_list_of_a_room_is_no_code_of_those_who_import_its_other_files(project):
    edit(project, "stages/draw.py", "import far", "import far\nfrom stages.methods import one")
    assert changed_by(project, "stages/methods/__init__.py", '"one",', '"one", "two"') == {}
    assert changed_by(project, "stages/methods/__init__.py", "", "WHY = 1\n") == {"draw": {"stages.methods"}}


def test_the_digests_of_a_study_are_those_of_its_cells_and_one_for_each_stage_without_cells(project):
    edit(project, "stages/check.py", "", FILES["stages/draw.py"])
    assert named({"draw": {}}, project) == ["train"]
    code = {"a": {"code": "data/digests/draw.methods-one.json"}, "b": {"code": "data/digests/draw.json"}}
    assert named({"draw": code}, project) == ["draw", "draw.methods-one", "train"], "the first stage has none"


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("stages/far.py", "return x / width", "return x *", r"stages/far\.py, line 7: not valid Python"),
        ("stages/far.py", "RATE = 0.1", "RATE = '\0'", r"stages/far\.py, line 1: not valid Python"),
        ("stages/middle.py", "stages.shelf import", "stages.shop import", r"middle\.py, line 1: .* stages\.shop"),
        ("stages/train.py", "import torch\n", "import torch, scipy\n", r"train\.py, line 2: .* of scipy"),
        ("requirements.lock", "pillow==9.0\n", "", r"draw\.py, line 2: .* of pillow"),
    ],
)
def test_mistakes_are_told_with_file_and_line(project, name, old, new, message):
    edit(project, name, old, new)
    with pytest.raises(UserError, match=message):
        digests(NAMES, project)


def test_a_missing_lock_is_a_mistake(project):
    (project / "requirements.lock").unlink()
    with pytest.raises(UserError, match=r"requirements\.lock is missing"):
        digests(NAMES, project)


@pytest.mark.parametrize(
    "line, says",
    [
        ("numpy==0.1\n", r"requirements\.lock names numpy 0\.1, but .* has \d.*: `make -B"),
        ("no-such-package==1.0\n", r"names no-such-package 1\.0, but .* has none: `make -B"),
    ],
)
def test_what_is_installed_must_be_what_is_locked(tmp_path, line, says):
    lock = tmp_path / "requirements.lock"
    lock.write_bytes((ROOT / "requirements.lock").read_bytes())
    check_installed(lock)
    lock.write_text(lock.read_text() + line)
    with pytest.raises(UserError, match=says):
        check_installed(lock)
