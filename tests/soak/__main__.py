"""`make soak`: the tests that take minutes each, one after the other; what came of them is kept in RESULT.md."""

import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Record:
    """What pytest reports of each test: its outcome, its seconds, and what it says by ``record_property``."""

    def __init__(self) -> None:
        self.rows: dict[str, list] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.rows.setdefault(report.nodeid.removeprefix("tests/soak/"), ["passed", 0.0, ""])
        row[0] = row[0] if report.passed else report.outcome
        row[1] += report.duration
        row[2] = ", ".join(f"{name}: {value}" for name, value in report.user_properties) or row[2]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main(words: list[str]) -> int:
    """Run the tests (or those that pytest's own options in ``words`` choose); RESULT.md is only of a whole run."""
    record, begun = Record(), time.time()
    changed = git("status", "--porcelain", "--", "flows", "stages", "tests", "dvc.yaml", "params.yaml")
    code = pytest.main([str(HERE), "-q", "-p", "no:cacheprovider", *words], plugins=[record])
    if not words:
        commit = git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
        lines = [
            "# The last `make soak`",
            "",
            f"Commit {commit}, {time.strftime('%Y-%m-%d', time.gmtime(begun))}, "
            f"{(time.time() - begun) / 60:.0f} minutes, Python {platform.python_version()}, {platform.machine()}.",
            "",
            "| test | outcome | seconds | what it counted |",
            "|---|---|---|---|",
            *(f"| {name} | {row[0]} | {row[1]:.0f} | {row[2]} |" for name, row in record.rows.items()),
        ]
        (HERE / "RESULT.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
