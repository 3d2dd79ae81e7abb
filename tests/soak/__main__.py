"""`make soak`: the tests that take minutes each, one after the other; RESULT.md keeps what last came of each."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT, RESULT = HERE.parents[1], HERE / "RESULT.md"
HEAD = """# The last result of each test of `make soak`

| test | outcome | seconds | commit | date | what it counted |
|---|---|---|---|---|---|
"""
CODE = ("flows", "stages", "tests", "dvc.yaml", "params.yaml")


class Record:
    """What pytest reports of each test: its outcome, its seconds, and what it says by ``record_property``."""

    def __init__(self) -> None:
        self.found: dict[str, list] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.found.setdefault(report.nodeid.removeprefix("tests/soak/"), ["passed", 0.0, ""])
        row[0] = row[0] if report.passed else report.outcome
        row[1] += report.duration
        row[2] = ", ".join(f"{name}: {value}" for name, value in report.user_properties) or row[2]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main(words: list[str]) -> int:
    """Run all of the tests, or those that pytest's own options in ``words`` choose."""
    commit = git("rev-parse", "--short", "HEAD") + (" and changes" if git("status", "--porcelain", "--", *CODE) else "")
    record, date = Record(), time.strftime("%Y-%m-%d", time.gmtime())
    code = pytest.main([str(HERE), "-q", "-p", "no:cacheprovider", *words], plugins=[record])
    lines = RESULT.read_text(encoding="utf-8").splitlines()[4:] if RESULT.exists() else []
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    for name, (outcome, seconds, counted) in record.found.items():
        rows[name] = f"| {name} | {outcome} | {seconds:.0f} | {commit} | {date} | {counted} |"
    RESULT.write_text(HEAD + "".join(f"{row}\n" for _, row in sorted(rows.items())), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
