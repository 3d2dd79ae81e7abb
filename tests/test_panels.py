"""Each number of report.html and claims.html opens where it comes from: in the page itself, without a script."""

import json
import re
from pathlib import Path

import pytest
from invented import invent
from invented_cells import build, tell

from stages import claims
from stages.evidence.panels import RESULT, numbers, opens
from stages.records import artifacts

STUDY = {"settings": ["gap"], "seeds": [0, 1], "judged_on": ["online"], "verification": ["gap"]}


def page(name: str) -> str:
    return Path("data/report", name).read_text(encoding="utf-8")


def panels(html: str) -> dict[str, str]:
    """The content of each panel by its id."""
    found = re.findall(r'<div popover id="([^"]+)".*?>\n(.*?)</div>\n', html, re.S)
    assert len(dict(found)) == len(found), "no two of one id"
    return dict(found)


def opened(html: str) -> set[str]:
    return set(re.findall(r'<button popovertarget="([^"]+)">', html))


def bare(html: str) -> list[str]:
    """The cells of tables that show a number which opens nothing."""
    cells = re.findall(r"<td>(.*?)</td>", html[: html.index("<div popover ")])
    texts = [re.sub(r"<button.*?</button>|<code>.*?</code>|<[^>]*>", "", cell) for cell in cells]
    return [text for text in texts if re.fullmatch(r"[−+<]?[\d,.−+ to]*\d[\d,.−+ to]*", text)]


@pytest.mark.slow
def test_each_number_of_a_report_opens_the_artifacts_behind_it(tmp_path, monkeypatch):
    monkeypatch.chdir(build(tmp_path, STUDY, {"gap": "roads"}))
    tell()
    html = page("report.html")
    found = panels(html)
    assert opened(html) == found.keys() and bare(html) == []
    (cell,) = re.findall(r'<tr><th scope="row" class="arm"[^>]*>online</th>(<td>.*?)</tr>', html)[:1]
    assert set(re.findall(r'popovertarget="(.*?)"', cell)) == {"from-arm-gap-online"}
    shown = found["from-arm-gap-online"]
    for kind, stage in (("evaluation", "evaluate"), ("policy", "online")):
        for seed in STUDY["seeds"]:
            path = f"data/{kind}/gap/{seed}/online"
            assert f"<code>{path}</code>" in shown and f"manifest.json sha256 {artifacts.digest(path)}" in shown
            name = f"{stage}@gap-{seed}-online"
            assert f'<code>roads replay <a href="lineage.html#{name}">{name}</a></code>' in shown
    assert "<code>settings.gap.arms.online</code>: " in shown and "learning_rate 0.002" in shown
    assert "judge@gap-1-local" in found["from-judge-gap-local"] and "corpus@gap" in found["from-setting-gap"]
    assert set(re.findall(r'popovertarget="(.*?)"', found["from-lead-gap"])) >= {
        "from-arm-gap-online", "from-arm-gap-offline", "from-judge-gap-global"
    }  # fmt: skip
    assert re.search(r'class="headline">[^\n]*<button popovertarget="from-lead-gap">[+−]?\d', html)


@pytest.mark.slow
def test_each_number_of_the_claims_opens_what_its_study_published(tmp_path, monkeypatch):
    monkeypatch.chdir(invent(tmp_path))
    arms = {"arms": {"online": {"steps": 400, "rounds": 400, "beta": 1.5}, "offline": {"steps": 400}}}
    Path("data/studies/evidence/params.json").write_text(json.dumps({"settings": {"gap": arms}}))
    Path("data/studies/evidence/record.json").write_text("commits are git's, and no page of DVC's may read this")
    claims.run()
    html = page("claims.html")
    found = panels(html)
    assert opened(html) == found.keys() and bare(html) == []
    for row in json.loads(page("claims.json")):
        shown = found[f"from-claim-{row['id']}"]
        assert all(path in shown and hash in shown for path, hash in row["artifacts"].items())
        assert row["contrast"] in shown and "roads run --study " in shown
    shown = found["from-claim-main_gap"]
    assert "<code>settings.gap.arms.online</code>: steps 400, rounds 400, beta 1.5" in shown
    assert "<code>roads replay evaluate@gap-200-offline --study evidence</code>" in shown
    assert "<code>roads replay online@gap-207-online --study evidence</code>" in found["from-claim-H2_matched"]
    assert "roads replay" not in found["from-claim-dial_fit"], "its study says of no stage how it is called"


def test_numbers_within_a_sentence_open_and_names_do_not():
    said = numbers("best-of-16 of gap_2 leads by +1.30 (−0.01 to 2.61), 95% interval; 1,000 pairs & 2 seeds.", "key")
    assert re.findall(r'<button popovertarget="key">(.*?)</button>', said) == ["+1.30", "−0.01", "2.61", "1,000", "2"]
    assert re.sub("<.*?>", "", said).endswith("1,000 pairs &amp; 2 seeds.")
    only = numbers("No clear lead: +1.30 of 6, the interval includes 0.", "key", RESULT)
    assert re.findall(r'">(.*?)</button>', only) == ["+1.30"]
    assert opens("–", "key") == "–" and opens("<b> 1", "key") == '<button popovertarget="key">&lt;b&gt; 1</button>'
