"""What README.md tells of the quick study is in its report."""

import re

from conftest import ROOT


def words(text: str) -> str:
    return " ".join(text.replace("−", "-").split())


def test_what_the_readme_tells_of_the_quick_study_is_in_its_report():
    told = re.search(
        r"their lead in `gap`, (\S+), has an interval from (\S+) to (\S+) \(", words((ROOT / "README.md").read_text())
    )
    report = words((ROOT / "data/report/report.md").read_text()).split("- **short**")[0]
    assert f"+{told[1]}, 95% interval {told[2]} to {told[3]};" in report
