"""What fed a result is found back to raw data, compared by hash at every step, and shown as a whole."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import forked
import pytest
import stated
from stated import STAGES

from flows.pages import lineage as page
from flows.pipeline.graph import Graph
from flows.provenance import drawn, publications, statements
from flows.provenance.asked import find, unknown
from flows.provenance.lineage import Study
from stages.provenance.statements import Declared, Statement
from stages.records import plain
from stages.records.artifacts import sha256, write_file
from stages.records.errors import UserError

PROJECT = Path(__file__).parents[1]
ROWS, PAIRS = "rows.csv", "data/inputs/gap"
CLAIM = {"statement": "More.", "contrast": "gap.a - gap.b", "measure": "true_reward", "expect": "more", "margin": 0.2}


@pytest.fixture
def project(tmp_path):
    """A project of three stages, each with its statement, as the current folder."""
    with stated.made_in(tmp_path) as folder:
        stated.state(*STAGES)
        yield folder


def asked(thing: str):
    return find(Study(Graph()), thing)


def test_a_path_leads_back_to_raw_data_with_all_that_is_known_of_each_step(project):
    found = asked("data/policy/weights")
    assert found.roots == ["policy"]
    kinds = {(name.partition(" ")[0], node.kind) for name, node in found.nodes.items()}
    assert kinds == {("policy", "stage"), ("base", "stage"), (ROWS, "source"), (PAIRS, "input")}
    policy, base = found.nodes["policy"], found.nodes["base"]
    assert policy.inputs == ["base"] and [name.partition(" ")[0] for name in base.inputs] == [PAIRS, ROWS]
    assert policy.command == "make policy" and policy.params == {"rate": 0.1}
    assert policy.made[0]["commit"] == stated.git("rev-parse", "HEAD") and policy.made[0]["platform"]["os"]
    (said,) = statements.read(Graph(), "policy")[0]
    assert policy.statement["sha256"] == said.sha256 and len(policy.statement["signed by"]) == 1
    assert policy.statement["outs"] == {"data/policy/weights": sha256(Path("data/policy/weights"))}


def test_each_way_to_name_a_thing_finds_it_and_a_wrong_name_the_nearest(project):
    study = Study(Graph())
    weights = Path("data/policy/weights")
    md5 = study.stages["policy"]["outs"][0]["md5"]
    (said,) = statements.read(study.graph, "policy")[0]
    for thing in ("policy", "data/policy", str(weights.resolve()), md5, md5[:8], sha256(weights)[:8], said.sha256):
        assert find(study, thing).roots == ["policy"], thing
    assert find(study, "data").roots == ["base", "policy", "report"]
    assert find(study, ROWS).nodes[find(study, ROWS).roots[0]].kind == "source"
    with pytest.raises(UserError, match=r"^polcy is nothing that .*: did you mean policy\?$"):
        find(study, "polcy")
    with pytest.raises(UserError, match="00000000 is nothing"):
        find(study, "00000000")
    assert "name a path, a stage" in str(unknown("xyzzy", ["policy"]))


def test_one_content_in_two_places_is_listed(project):
    Path("data/policy/weights").write_bytes(Path("data/base/model/weights").read_bytes())
    stated.record()
    digest = sha256(Path("data/policy/weights"))
    stated.state("policy")
    with pytest.raises(UserError, match=rf"^{digest[:8]} begins the hash of data/base/model/weights \({digest}\), "):
        asked(digest[:8])


def test_an_input_that_is_another_by_now_is_no_source(project):
    """The base was made anew, and the policy not: the base that it has read is no longer on record."""
    Path("data/base/model/weights").write_text("another\n")
    from dvc.repo import Repo

    with Repo() as repo:
        repo.commit("base", force=True)
    found = asked("policy")
    (read,) = found.nodes["policy"].inputs
    assert found.nodes[read].kind == "lost" and "base" not in found.nodes
    assert "other bytes than are recorded now" in drawn.tree(found)


def test_the_tree_shows_each_node_once_and_the_drawing_each_as_a_box(project):
    found = asked("data")
    text = drawn.tree(found)
    lines = text.partition("\n\n")[0].splitlines()
    assert lines[0].startswith("base  data/base  md5 ") and lines[0].endswith("  signed")
    shown = [line for line in lines if line.startswith("policy ")]
    assert len(shown) == 1 and next(line for line in lines if "(see above)" in line) == "└─ base (see above)"
    assert "  params    rate: 0.1" in text and f"  sha256    {sha256(Path('data/evidence.json'))}  data/evid" in text
    picture = ElementTree.fromstring(drawn.svg(found))
    boxes = picture.findall("{http://www.w3.org/2000/svg}g")
    assert len(boxes) == len(found.nodes) and "make " not in "".join(picture.itertext())
    again = json.loads(drawn.as_json(found))
    assert again["roots"] == found.roots and again["nodes"].keys() == found.nodes.keys()


def test_prov_names_only_what_it_has(project):
    prov = json.loads(drawn.prov(asked("report")))
    entities, activities = prov["entity"].keys(), prov["activity"].keys()
    assert {one["prov:entity"] for one in prov["used"].values()} <= entities
    assert {one["prov:activity"] for one in prov["used"].values()} <= activities
    assert {one["prov:entity"] for one in prov["wasGeneratedBy"].values()} <= entities
    derived = {(one["prov:generatedEntity"], one["prov:usedEntity"]) for one in prov["wasDerivedFrom"].values()}
    assert ("roads:policy/data/policy", "roads:base/data/base") in derived
    assert prov["activity"]["roads:run/policy"]["prov:endTime"].endswith("Z")


def test_the_page_has_every_stage_and_all_of_its_links_lead_somewhere(project):
    import re

    page.write(Graph())
    html = Path(page.PAGE).read_text()
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(set(ids)) == len(ids) and {*STAGES} <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert stated.git("rev-parse", "HEAD") in html and "signed by" in html


def published(project: Path, verdict: dict | None = None) -> None:
    """Publish the project's own stages as the study `mine`, with a claim on it that rests on the policy."""
    study, folder = Study(Graph()), Path("data/studies/mine")
    outs = {out["path"]: f"md5 {out['md5']}" for record in study.stages.values() for out in record["outs"]}
    folder.mkdir(parents=True)
    (folder / "artifacts.json").write_text(json.dumps(outs))
    (folder / "evidence.json").write_bytes(Path("data/evidence.json").read_bytes())
    code = {"stages": {"base": "0" * 64}, "packages": {"numpy": "2.4.6"}}
    record = {"commit": "c" * 40, "clean": True, "params": {}, "code": code, "made": {"platforms": {}}}
    (folder / "record.json").write_text(json.dumps(record))
    packed = statements.pack([statements.read(study.graph, name)[0][-1] for name in STAGES])
    (folder / statements.PUBLISHED).write_bytes(packed)
    Path("studies").mkdir()
    Path("studies/mine.yaml").write_text(plain.text({"study": {}, "claims": {"lead": CLAIM}}))
    row = {"id": "lead", **CLAIM, "verdict": "supported", "estimate": 1.0, "low": 0.5, "high": 1.5, "unit": "of 6"}
    Path("data/report/claims.json").write_text(
        json.dumps([row | {"artifacts": {"data/policy": outs["data/policy"]}} | (verdict or {})])
    )


def test_a_claim_leads_through_what_its_study_has_published_to_raw_data(project):
    published(project)
    found = publications.claim(project, "lead")
    assert found.nodes["lead"].said == "More. supported: 1 (0.5 to 1.5) of 6."
    assert found.nodes["lead"].inputs == ["studies/mine.yaml", "mine: policy", "data/studies/mine"]
    assert found.nodes["mine: policy"].inputs == ["mine: base"]
    fed = [found.nodes[name] for name in found.nodes["mine: base"].inputs]
    assert {(node.kind, next(iter(node.outs))) for node in fed} == {("source", ROWS), ("input", PAIRS)}
    study = asked("data/studies/mine/evidence.json")
    assert study.nodes["data/studies/mine"].inputs == ["mine: report"] and study.nodes["data/studies/mine"].made
    assert study.nodes["mine: report"].inputs == ["mine: policy"] and "mine: report" not in found.nodes
    md5 = Study(Graph()).stages["policy"]["outs"][0]["md5"]
    assert found.nodes["mine: policy"].outs == {"data/policy": md5}


@pytest.mark.parametrize("whole", [True, False], ids=["a whole study", "a study that still runs"])
def test_a_replicate_that_is_taken_as_published_leads_to_what_made_it(project, whole):
    for name in ("gap-0", "gap-1"):
        write_file(Path("data/replicate", *name.split("-"), "numbers.json"), f'"{name}"')
        write_file(Path("data/studies/mine/replicates", name, "numbers.json"), f'"{name}"')
        made = Declared(f"replicate@{name}", ["data/policy"], [f"data/replicate/{name.replace('-', '/')}"], {})
        Statement(made, "make replicate").write()
    graph = Graph()
    statements.collect(graph.root, statements.cache(graph))
    said = {name: statements.read(graph, name)[0][-1] for name in (*STAGES, "replicate@gap-0", "replicate@gap-1")}
    folder = Path("data/studies/mine")
    if whole:
        write_file(folder / "artifacts.json", "{}")
        write_file(folder / statements.PUBLISHED, statements.pack(said.values()))
    for of in () if whole else ("gap-0", "gap-1"):
        fed = [said[name] for name in (*STAGES, f"replicate@{of}")]
        write_file(folder / f"replicates/{of}.{statements.PUBLISHED}", statements.pack(fed))
    write_file(Path("data/studies/mine/replicates/gap-1/numbers.json"), "forged")
    nodes: dict = {}
    one, other = publications.Publication(project, "mine").restored(nodes)
    assert one == "mine: replicate@gap-0" and nodes[one].inputs == ["mine: policy"] and "mine: base" in nodes
    assert nodes[other].kind == "lost" and other == "mine: data/replicate/gap/1"


def test_what_a_claim_rests_on_must_be_what_was_stated(project):
    published(project, {"artifacts": {"data/policy": f"md5 {'0' * 32}.dir", "data/judge": f"md5 {'1' * 32}.dir"}})
    found = publications.claim(project, "lead")
    kinds = {name: node.kind for name, node in found.nodes.items() if name.startswith("mine: data")}
    assert kinds.items() >= {"mine: data/policy": "lost", "mine: data/judge": "artifact"}.items()
    Path("data/studies/mine/evidence.json").write_text("{}")
    with pytest.raises(UserError, match=r"data/studies/mine/evidence.json is not what artifacts.json beside it says"):
        publications.claim(project, "lead")


def test_a_claim_that_is_declared_otherwise_than_it_was_decided_shows_no_verdict(project):
    published(project, {"margin": 0.3})
    assert "Not decided as it stands now" in publications.claim(project, "lead").nodes["lead"].said
    (project / "data/studies/mine/artifacts.json").unlink()
    assert "has published nothing" in publications.claim(project, "lead").nodes["lead"].said


@pytest.mark.parametrize("name", ["artifacts.json", "record.json", "statements.jsonl.xz"])
def test_a_damaged_publication_is_refused_by_name(project, name):
    published(project)
    path = Path("data/studies/mine", name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=name):
        publications.claim(project, "lead")


@pytest.mark.slow
def test_the_command_says_it_in_words_in_json_and_in_a_picture(project):
    def roads(*words: str):
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        return forked.run(["flows", "lineage", *words], None, environment)

    said = roads("data/policy", "--svg", "policy.svg")
    assert said.returncode == 0 and said.stdout.startswith("policy  data/policy  md5 "), said.stderr
    assert Path("policy.svg").read_text().startswith("<svg")
    assert json.loads(roads("policy", "--json").stdout)["roots"] == ["policy"]
    assert "wasDerivedFrom" in json.loads(roads("policy", "--format", "prov").stdout)
    for wrong in (("polcy",), ("policy", "--format", "xml")):
        said = roads(*wrong)
        assert said.returncode == 2 and said.stderr.startswith("error: ") and said.stderr.count("\n") == 1


def test_each_claim_of_the_project_has_its_lineage():
    for name in publications.claims(PROJECT):
        found = publications.claim(PROJECT, name)
        rests = [node for one, node in found.nodes.items() if one != name]
        assert rests[0].id.startswith("studies/") and not [node for node in rests if node.kind == "lost"], name
        published = (PROJECT / "data" / rests[0].id.removesuffix(".yaml") / "evidence.json").exists()
        assert (len(rests) > 2) == published, name
