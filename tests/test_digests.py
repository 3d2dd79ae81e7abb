"""An edit reruns the stages that it can change and no others (stages/digests.py), told on a small made-up package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.digests import digests
from stages.records.errors import UserError
from stages.records.pins import check_installed

ROOT = Path(__file__).parent.parent
STAGE = 'if __name__ == "__main__":\n    command(run)\n'
FILES = {
    "requirements.lock": "numpy==2.0\nTorch==2.1 ; python_version > '3'\npandas==3.0\npyarrow==20.0\nrapidfuzz==1.0\n",
    "stages/__init__.py": "",
    "stages/start.py": "def command(function):\n    function()\n",
    "stages/train.py": '''"""Trains."""
import torch

from stages.middle import step
from stages.start import command


def run():
    """Train."""
    torch.save(step(1), "x")


'''
    + STAGE,
    "stages/draw.py": f"""import pandas as pd

from stages import far
from stages.start import command


def run(step=0):
    pd.DataFrame([far.RATE * step]).to_parquet("x")


{STAGE}""",
    "stages/middle.py": """from math import floor as whole

from stages import far
from stages.shelf import pick

square = lambda x: x**2
SIZES = [1, 2]


class Options:
    size = 4


@far.repeated(2)
def step(x, width=8):
    if x > 2:
        from stages.rare import trick

        return trick(x)
    return whole(far.scaled(x, width) * Options.size + SIZES[0] + square(x) + pick(x))
""",
    "stages/far.py": '''RATE = 0.1
FACTOR = 3


def scaled(x, width):
    """Scaled."""
    # the rule of three
    return x * FACTOR / width


def unused(x):
    return x * 5


def repeated(times):
    return lambda function: function
''',
    "stages/rare.py": "def trick(x):\n    return x + 100\n",
    "stages/shelf/__init__.py": "from stages.shelf.inner import pick\n",
    "stages/shelf/inner.py": "def pick(x):\n    return x + 1\n",
    "stages/shelf/other.py": "def pick(x):\n    return x + 2\n",
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


def difference(before: dict, after: dict) -> dict[str, set[str]]:
    """Stage -> the pieces of code and packages that changed, came or went, for each stage that differs."""
    result = {}
    for stage in before.keys() | after.keys():
        old, new = before[stage]["code"] | before[stage]["packages"], after[stage]["code"] | after[stage]["packages"]
        if old != new:
            result[stage] = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return result


def changed_by(project: Path, name: str, old: str, new: str) -> dict[str, set[str]]:
    before = digests(project)
    edit(project, name, old, new)
    return difference(before, digests(project))


def test_a_stage_lists_the_code_it_reaches_and_the_packages_it_uses(project):
    found = digests(project)
    assert found.keys() == {"train", "draw"}
    assert list(found["draw"]["code"]) == [
        "stages.draw.__main__",
        "stages.draw.run",
        "stages.far.RATE",
        "stages.start.command",
    ]
    assert found["draw"]["packages"] == {"numpy": "2.0", "pandas": "3.0", "pyarrow": "20.0"}
    assert found["train"]["packages"] == {"numpy": "2.0", "torch": "2.1"}
    assert {"stages.shelf.inner.pick", "stages.rare.trick", "stages.far.FACTOR"} <= found["train"]["code"].keys()


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("stages/far.py", "# the rule of three", "# a comment"),
        ("stages/far.py", '"""Scaled."""', '"""Something else."""\n    "and more"'),
        ("stages/far.py", "x * FACTOR / width", "(\n        x\n        * FACTOR\n        / width\n    )"),
        ("stages/far.py", "", '\n\n"""A late remark."""\n'),
        ("stages/middle.py", "    size = 4", '    """Sizes."""\n\n    size = 4\n    pass'),
        ("stages/train.py", '"""Trains."""', ""),
        ("stages/far.py", "x * 5", "x * 6"),
        ("stages/shelf/other.py", "x + 2", "x + 3"),
        ("stages/new.py", "", "import torch\n\ntorch.manual_seed(1)\n"),
        ("requirements.lock", "rapidfuzz==1.0", "rapidfuzz==1.1"),
    ],
)
def test_what_no_stage_can_notice_changes_nothing(project, name, old, new):
    assert changed_by(project, name, old, new) == {}


@pytest.mark.parametrize(
    "name, old, new, piece",
    [
        ("stages/far.py", "FACTOR = 3", "FACTOR = 4", "stages.far.FACTOR"),
        ("stages/far.py", "x * FACTOR", "2 * x * FACTOR", "stages.far.scaled"),
        ("stages/middle.py", "repeated(2)", "repeated(3)", "stages.middle.step"),
        ("stages/far.py", "lambda function: function", "print", "stages.far.repeated"),
        ("stages/middle.py", "width=8", "width=9", "stages.middle.step"),
        ("stages/middle.py", "size = 4", "size = 5", "stages.middle.Options"),
        ("stages/middle.py", "[1, 2]", "[2, 2]", "stages.middle.SIZES"),
        ("stages/middle.py", "", "\nSIZES += [3]\n", "stages.middle.SIZES"),
        ("stages/middle.py", "", "\nSIZES[0] = 3\n", "stages.middle.<module>"),
        ("stages/middle.py", "x**2", "x**3", "stages.middle.square"),
        ("stages/rare.py", "100", "101", "stages.rare.trick"),
        ("stages/shelf/inner.py", "x + 1", "x + 9", "stages.shelf.inner.pick"),
        ("stages/shelf/__init__.py", "shelf.inner", "shelf.other", "stages.shelf.other.pick"),
        ("stages/shelf/__init__.py", "", "print(1)\n", "stages.shelf.<module>"),
        ("stages/middle.py", "import floor as", "import ceil as", "stages.middle.step"),
        ("requirements.lock", "Torch==2.1", "Torch==2.2", "torch"),
    ],
)
def test_what_one_stage_can_notice_changes_that_one_and_is_named(project, name, old, new, piece):
    changes = changed_by(project, name, old, new)
    assert changes.keys() == {"train"}
    assert piece in changes["train"]


def test_the_innermost_edit_alone_is_named(project):
    assert changed_by(project, "stages/far.py", "FACTOR = 3", "FACTOR = 4") == {"train": {"stages.far.FACTOR"}}


def test_what_both_stages_reach_changes_both(project):
    assert changed_by(project, "stages/start.py", "function()", "return function()").keys() == {"train", "draw"}
    assert changed_by(project, "requirements.lock", "numpy==2.0", "numpy==2.1") == {
        "train": {"numpy"},
        "draw": {"numpy"},
    }
    assert changed_by(project, "requirements.lock", "pyarrow==20.0", "pyarrow==21.0") == {"draw": {"pyarrow"}}


def test_a_stage_that_writes_versions_down_depends_on_all_of_them(project):
    edit(
        project,
        "stages/draw.py",
        "import pandas as pd\n",
        "import pandas as pd\nfrom importlib.metadata import version\n",
    )
    edit(project, "stages/draw.py", "far.RATE", "version('torch')")
    assert changed_by(project, "requirements.lock", "Torch==2.1", "Torch==2.2").keys() == {"train", "draw"}


def test_a_local_variable_is_not_the_helper_of_the_same_name(project):
    edit(project, "stages/draw.py", "", "\n\ndef step():\n    return 1\n")
    assert changed_by(project, "stages/draw.py", "return 1", "return 2") == {}


REACHES = {
    "a module as a value": "from stages import rare\n\ndef go(x):\n    return getattr(rare, 'tri' + 'ck')(x)\n",
    "a package as a value": "import stages as ours\n\ndef go(x):\n    return vars(ours.rare)['trick'](x)\n",
    "a dynamic import": "from importlib import import_module\n\ndef go(x):\n    return import_module(x).trick(x)\n",
    "a star import": "from stages.rare import *\n\ndef go(x):\n    return trick(x)\n",
    "a full path": "import stages.rare\n\ndef go(x):\n    return stages.rare.trick(x)\n",
    "a relative import": "from .rare import trick as t\n\ndef go(x):\n    return t(x)\n",
    "a default argument": "from stages import rare\n\ndef go(x, trick=rare.trick):\n    return trick(x)\n",
    "a base class": "from stages.rare import trick\n\nclass Base:\n    f = trick\n\nclass go(Base):\n    pass\n",
    "a table": "from stages.rare import trick\n\nT = {'a': trick}\n\ndef go(x):\n    return T[x](x)\n",
    "a try": "try:\n    from stages.rare import trick\nexcept ImportError:\n    trick = None\n\ndef go(x):\n    trick(x)\n",  # noqa: E501
    "globals": "from stages.rare import trick\n\ndef go(x):\n    return globals()['tr' + 'ick'](x)\n",
    "a class's own name": "from stages.rare import trick\n\nclass go:\n    trick = trick\n",
    "a registry": "from stages import known\n\ndef go(x):\n    return known.ALL['trick'](x)\n",
}


@pytest.mark.parametrize("text", REACHES.values(), ids=REACHES.keys())
def test_ways_to_reach_a_function(project, text):
    register = "ALL = {}\n\ndef register(function):\n    ALL[function.__name__] = function\n    return function\n"
    (project / "stages/registry.py").write_text(register)
    known = "from stages.rare import trick\nfrom stages.registry import ALL, register\n\n"
    (project / "stages/known.py").write_text(known + "@register\ndef wrapped(x):\n    return trick(x)\n")
    (project / "stages/way.py").write_text(text)
    edit(project, "stages/draw.py", "from stages import far", "from stages import far\nfrom stages.way import go")
    edit(project, "stages/draw.py", "pd.DataFrame(", "go(1), pd.DataFrame(")
    assert "stages.rare.trick" in changed_by(project, "stages/rare.py", "100", "101")["draw"]


@pytest.mark.parametrize(
    "above, reached",
    [
        ("class Shape:\n    size = 1\n", False),
        ("class Shape:\n    def __init_subclass__(cls):\n        ALL.append(cls)\n\n\nALL = []\n", True),
        ("class Kind(type):\n    pass\n\n\nclass Shape(metaclass=Kind):\n    pass\n", True),
        ("from elsewhere import Shape\n", True),
    ],
)
def test_a_class_matters_by_being_defined_only_where_what_it_inherits_from_may_keep_it(project, above, reached):
    (project / "requirements.lock").write_text((project / "requirements.lock").read_text() + "elsewhere==1.0\n")
    (project / "stages/shape.py").write_text(above)
    circle = "from stages.shape import Shape\n\nSIDES = 0\n\n\nclass Circle(Shape):\n    pi = 3\n"
    (project / "stages/circle.py").write_text(circle)
    edit(project, "stages/draw.py", "from stages import far", "from stages import far\nfrom stages.circle import SIDES")
    edit(project, "stages/draw.py", "pd.DataFrame(", "SIDES, pd.DataFrame(")
    assert ("draw" in changed_by(project, "stages/circle.py", "pi = 3", "pi = 4")) == reached


def test_modules_that_import_from_each_other_are_followed_to_the_end(project):
    edit(project, "stages/rare.py", "", "\nfrom stages.middle import step, trick\n")
    edit(project, "stages/middle.py", "", "\nfrom stages.rare import trick\n")
    assert changed_by(project, "stages/rare.py", "100", "101").keys() == {"train"}


def test_a_package_that_imports_its_own_modules_is_not_taken_as_a_whole(project):
    edit(project, "stages/shelf/__init__.py", "from", "from stages.shelf import inner, other\nfrom")
    edit(project, "stages/middle.py", "stages.shelf import pick", "stages import shelf")
    edit(project, "stages/middle.py", "pick(x)", "shelf.inner.pick(x)")
    assert changed_by(project, "stages/shelf/other.py", "x + 2", "x + 3") == {}


def test_the_order_of_registrations_counts(project):
    first, second = "@far.repeated(1)\ndef one():\n    pass\n", "@far.repeated(1)\ndef two():\n    pass\n"
    edit(project, "stages/middle.py", "", first + second)
    changes = changed_by(project, "stages/middle.py", first + second, second + first)
    assert changes == {"train": {"stages.middle.<module>"}}


def test_a_template_counts_for_who_looks_beside_its_own_file(project):
    (project / "stages/shelf/page.jinja").write_text("hello")
    edit(project, "stages/shelf/inner.py", "x + 1", "open(__file__ + x)")
    assert changed_by(project, "stages/shelf/page.jinja", "hello", "bye") == {"train": {"stages/shelf/page.jinja"}}


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("stages/far.py", "return x * 5", "return x *", r"stages/far\.py, line 12: not valid Python"),
        ("stages/far.py", "RATE = 0.1", "RATE = '\0'", r"stages/far\.py, line 1: not valid Python"),
        ("stages/middle.py", "stages.shelf import", "stages.shop import", r"middle\.py, line 4: .* stages\.shop"),
        ("stages/train.py", "import torch\n", "import torch, scipy\n", r"train\.py, line 2: .* of scipy"),
    ],
)
def test_mistakes_are_told_with_file_and_line(project, name, old, new, message):
    edit(project, name, old, new)
    with pytest.raises(UserError, match=message):
        digests(project)


def test_a_missing_lock_is_a_mistake(project):
    (project / "requirements.lock").unlink()
    with pytest.raises(UserError, match=r"requirements\.lock is missing"):
        digests(project)


def test_the_real_stages(tmp_path):
    """The files that dvc.yaml names, the same bytes whatever the hash seed, and comments leave them alone."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    folder = tmp_path / "data/digests"
    folder.mkdir(parents=True)
    (folder / "gone.json").write_text("{}")

    def written(seed: str) -> dict[str, str]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ""}
        subprocess.run([sys.executable, "-m", "stages.digests"], cwd=tmp_path, env=environment, check=True)
        return {path.name: path.read_text() for path in folder.iterdir()}

    first = written("0")
    assert first.keys() == set(re.findall(r"data/digests/(\w+\.json)", (ROOT / "dvc.yaml").read_text()))
    for path in (tmp_path / "stages").rglob("*.py"):
        path.write_text("# first\n" + path.read_text() + "\n# last\n")
    assert written("1") == first
    code = json.loads(first["sample.json"])["code"]
    assert "stages.sample.run" in code and "stages.learning.sampling.draw" in code
    assert not any(name.startswith(("stages.serve", "stages.client", "stages.evidence")) for name in code)


@pytest.mark.parametrize(
    "line, says",
    [
        ("numpy==0.1\n", r"requirements\.lock names numpy 0\.1, but .* has \d.*: pip install"),
        ("no-such-package==1.0\n", r"names no-such-package 1\.0, but .* has none: pip install"),
    ],
)
def test_what_is_installed_must_be_what_is_locked(tmp_path, line, says):
    lock = tmp_path / "requirements.lock"
    lock.write_bytes((ROOT / "requirements.lock").read_bytes())
    check_installed(lock)
    lock.write_text(lock.read_text() + line)
    with pytest.raises(UserError, match=says):
        check_installed(lock)
