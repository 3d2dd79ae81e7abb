"""`roads import`: whatever is wrong with a file is said in one sentence, and what was there before stays."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from ruamel.yaml import YAML
from small import dvc

from flows.importing import import_input, missing_input
from stages.records.errors import UserError
from stages.records.reading import setting as setting_of
from stages.worlds import encoding, inputs, text
from tests.test_text import comparisons, params, summaries

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests/cases"
GOOD = [{"prompt": f"post {i}", "completion": "short"} for i in range(10)]
CAFE = ["caf\u00e9", "cafe\u0301"]  # the same word, composed and not
PAIRS = [{"prompt": f"post {i}", "chosen": "yes", "rejected": "no"} for i in range(10)]


def lines(rows: list) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", None, "a.jsonl does not exist"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.jsonl", b"\n \n", "a.jsonl is empty"),
        ("a.parquet", b"", "a.parquet is empty"),
        ("a.csv", b"prompt,completion\n", "a.csv holds no data file"),
        ("a.jsonl", lines(GOOD[:3]) + b'{"prompt": "caf\xe9", "completion": "x"}', "row 4 is not UTF-8"),
        ("a.jsonl", lines(GOOD[:1]) + b"{'prompt'}\n", "row 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "row 1 is not a JSON object"),
        ("a.jsonl.gz", gzip.compress(lines(GOOD), mtime=0)[:-9], "a.jsonl.gz is not a whole gzip file"),
        ("a.jsonl.gz", b"plain", "a.jsonl.gz is not a whole gzip file"),
        ("a.parquet", b"PAR1 but no more", "a.parquet is not a whole parquet file"),
        ("a.jsonl", lines([{"prompt": "p", "summary": "s"}] * 9), "row 1 lacks a column: it has prompt, summary"),
        ("a.jsonl", lines([*GOOD, {"prompt": "p"}]), "row 11 lacks the column completion"),
        ("a.jsonl", lines([*GOOD, {"prompt": "p", "completion": " \n"}]), "row 11 has an empty completion"),
        ("a.jsonl", lines([*GOOD, {"prompt": "", "completion": "c"}]), "row 11 has an empty prompt"),
        ("a.jsonl", lines([*GOOD, {"prompt": "p", "completion": None}]), "row 11: completion is of type NoneType"),
        ("a.jsonl", lines([*GOOD, {"prompt": [{"role": "user"}], "completion": "c"}]), "prompt is of type list"),
        ("a.jsonl", lines([*GOOD, {"prompt": "p\ud800", "completion": "c"}]), "row 11: prompt holds half a character"),
        ("a.jsonl", lines([*PAIRS, {"prompt": "p", "chosen": "Yes ", "rejected": "Yes"}]), "row 11: chosen and"),
        ("a.jsonl", lines(GOOD[:2]), "holds 2 rows"),
        (
            "a.jsonl",
            lines(GOOD) + b'{"prompt": "p", "completion": "a", "completion": "b"}',
            "completion is there twice",
        ),
        ("a.jsonl", lines([*GOOD, {"prompt": "p", "completion": "c", "split": ["test"]}]), "row 11 is in the split"),
        ("a.jsonl", lines(GOOD) + b'{"prompt": "p", "completion": "c", "n": ' + b"9" * 5000 + b"}", "row 11 cannot be"),
        ("a.jsonl", lines(GOOD) + b"[" * 100_000, "row 11 cannot be read"),
        ("a.jsonl", lines([row | {"split": "exam"} for row in GOOD]), "row 1 is in the split 'exam'"),
        (
            "a.jsonl",
            lines([*GOOD, {"prompt": " POST  3 ", "completion": "c", "split": "test"}]),
            r"row 11 \(test\) has the prompt of .*row 4 \(train\)",
        ),
        (
            "a.jsonl",
            lines([*GOOD, *({"prompt": p, "completion": "c", "split": s} for p, s in zip(CAFE, ("train", "test")))]),
            r"row 12 \(test\) has the prompt of .*row 11 \(train\)",
        ),
    ],
)
def test_bad_data_is_one_clear_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        inputs.read(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_prompt_in_two_files_of_a_folder(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "test.jsonl").write_bytes(lines([GOOD[2] | {"completion": "other"}]))
    with pytest.raises(UserError, match="a prompt may be in one split only"):
        inputs.read(tmp_path)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A git and DVC repository with the project's params and studies, and nothing imported."""
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc("init", "-q", folder=root)
    for name in ("params.yaml", ".gitignore", "data/.gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "studies", root / "studies")
    (root / "data/inputs").mkdir()
    monkeypatch.chdir(root)
    return root


def tracked(root: Path, setting: str) -> str:
    """What DVC has recorded of a setting's input."""
    return (root / f"data/inputs/{setting}.dvc").read_text()


@pytest.mark.slow
def test_files_folders_and_models_become_tracked_inputs(project, tmp_path):
    from dvc.repo import Repo
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    rows, preferences = summaries(40), comparisons(30, topics=5)
    hub, model = tmp_path / "hub", tmp_path / "model"
    (hub / "data").mkdir(parents=True)
    (hub / "README.md").write_text("A data set card")
    for split, part in (("train", preferences[:40]), ("validation", preferences[40:50]), ("test", preferences[50:])):
        part.to_parquet(hub / f"data/{split}-00000-of-00001.parquet")
    rows.to_json(tmp_path / "rows.jsonl.gz", orient="records", lines=True)
    rows.assign(prompt=rows["prompt"] + "!").to_parquet(tmp_path / "other.parquet")
    tokenizer = encoding.train_tokenizer(rows["prompt"], 300)
    tokenizer.save_pretrained(model)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, **sizes)).save_pretrained(model)

    keep = project / "data/inputs/tldr/.gitkeep"
    keep.parent.mkdir()
    keep.touch()
    subprocess.run(["git", "add", "."], check=True)
    setting = setting_of("tldr")
    assert "`roads import tldr FILE` with prompt/completion rows" in missing_input("tldr", setting)

    assert "40 rows of demonstrations" in import_input("tldr", str(tmp_path / "rows.jsonl.gz"))
    first = tracked(project, "tldr")
    assert missing_input("tldr", setting) is None
    assert "60 rows of preferences" in import_input("tldr", str(hub))
    assert "a model of" in import_input("tldr", str(model))
    assert "a tokenizer" in import_input("tldr", str(model / "tokenizer.json"))
    assert "40 rows" in import_input("tldr", str(tmp_path / "other.parquet"))

    folder = project / "data/inputs/tldr"
    assert [p.name for p in (folder / "demonstrations").iterdir()] == ["other.parquet"]
    assert len(list((folder / "preferences").iterdir())) == 3 and (folder / "model/model.safetensors").exists()
    assert tracked(project, "tldr") != first
    assert Repo(".").status() == {}
    git = subprocess.run(["git", "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True).stdout
    assert "data/inputs/tldr.dvc" in git and "other.parquet" not in git and ".roads" not in git

    corpus = text.build(params(tokenizer="model", reward="judge", judge=0.3), folder, ("tldr",))
    assert len(corpus.tokenizer) == 300 and len(corpus.judge_pairs)


@pytest.mark.slow
def test_what_cannot_be_imported_leaves_the_former_input(project, tmp_path, monkeypatch):
    good, outside = tmp_path / "good.jsonl", tmp_path / "outside"
    good.write_bytes(lines(GOOD))
    import_input("tldr", str(good))
    before = tracked(project, "tldr")

    (tmp_path / "bad.jsonl").write_bytes(lines(GOOD) + b"{")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "gpt_neox"}')
    (tmp_path / "bare").mkdir()
    shutil.copy(pickled / "config.json", tmp_path / "bare")
    (pickled / "pytorch_model.bin").write_bytes(b"code")
    outside.mkdir()
    (outside / "train.jsonl").symlink_to(good)
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for setting, source, message in [
        ("tldr", tmp_path / "bad.jsonl", "row 11 is not JSON"),
        ("tldr", pickled, "is a pickled file"),
        ("tldr", tmp_path / "bare", "model.safetensors is missing"),
        ("tldr", outside, "leads out of"),
        ("tldr", tmp_path / "tokenizer.json", "not a file of the tokenizers library"),
        ("tldr", "nobody/nothing.jsonl", "does not exist"),
        ("tldr", "nobody/nothing", "could not be fetched from the Hugging Face hub"),
        ("gap", good, "makes its own data"),
        ("tldrr", good, "add settings.tldrr to params.yaml"),
    ]:
        with pytest.raises(UserError, match=message):
            import_input(setting, str(source))
    assert tracked(project, "tldr") == before
    assert (project / "data/inputs/tldr/demonstrations/good.jsonl").read_bytes() == good.read_bytes()
    assert list((project / ".roads").iterdir()) == []


@pytest.mark.slow
def test_an_import_says_what_rules_do_to_the_rows(project, tmp_path):
    said = import_input("tldr", str(CASES / "prompt_repeated.jsonl"))
    assert "120 rows of preferences" in said
    assert said.endswith("Rules: 120 of 120 rows: the prompt once more at the head of each completion: cut off.")
    before = tracked(project, "tldr")
    with pytest.raises(
        UserError, match=r"24 of 120 rows of demonstrations .*settings\.tldr\.corpus\.max_dropped = 0\.05"
    ):
        import_input("tldr", str(CASES / "special_tokens.jsonl"))
    with pytest.raises(UserError, match="row 1 lacks the column topic"):
        import_input("ukp", str(CASES / "prompt_repeated.jsonl"))  # debates stay together by their topic
    with pytest.raises(UserError, match=r"pairs\.csv holds no data file"):
        import_input("tldr", str(CASES / "pairs.csv"))
    assert tracked(project, "tldr") == before


@pytest.mark.slow
def test_an_import_records_nothing_but_what_it_brings(project, tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(lines(PAIRS))
    (tmp_path / "rows.jsonl").write_bytes(lines(GOOD))
    import_input("tldr", str(tmp_path / "rows.jsonl"))
    before, folder = tracked(project, "tldr"), project / "data/inputs/tldr"
    rows = folder / "demonstrations/rows.jsonl"

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            import_input("tldr", str(tmp_path / "pairs.jsonl"))
        assert tracked(project, "tldr") == before and not (folder / "preferences").exists()

    state = rows.stat()
    rows.write_bytes(rows.read_bytes().replace(b"post 3", b"post 8"))
    os.utime(rows, ns=(state.st_atime_ns, state.st_mtime_ns))  # which DVC takes for no change
    refused(r"demonstrations/rows\.jsonl was changed since data/inputs/tldr\.dvc recorded it.*dvc checkout --force")
    (folder / "demonstrations/more.jsonl").write_bytes(lines(GOOD))
    refused(r"more\.jsonl does not belong there")
    shutil.rmtree(folder)
    refused(r"rows\.jsonl is missing since")

    import_input("tldr", str(tmp_path / "rows.jsonl"))  # what is gone is the only thing that was recorded
    assert tracked(project, "tldr") == before
    import_input("tldr", str(tmp_path / "pairs.jsonl"))
    assert (folder / "demonstrations").exists() and (folder / "preferences").exists()


@pytest.mark.slow
def test_an_interrupted_import_puts_the_former_input_back(project, tmp_path):
    (tmp_path / "old.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "new.jsonl").write_bytes(lines(GOOD * 2))
    import_input("tldr", str(tmp_path / "old.jsonl"))
    folder = project / "data/inputs/tldr/demonstrations"
    program = f"from flows.importing import import_input; import_input('tldr', '{tmp_path}/new.jsonl')"

    from dvc.repo import Repo

    with Repo(".").lock:  # the import now waits for DVC's lock, its data already in place
        importing = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)})
        deadline = time.monotonic() + 120
        while not (folder / "new.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (folder / "new.jsonl").exists()
        importing.send_signal(signal.SIGINT)
        assert importing.wait(timeout=40) != 0
    assert [p.name for p in folder.iterdir()] == ["old.jsonl"]
    assert Repo(".").status() == {} and list((project / ".roads").iterdir()) == []


OLD, NEW = "1" * 40, "2" * 40  # commits


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an import asks for: one data set with two commits, whose branch moves while it is read."""

    files: ClassVar = {OLD: lines(GOOD), NEW: lines(GOOD[:9])}
    refs: ClassVar = {}

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0]
        if not path.removeprefix("/api").startswith("/datasets/someone/posts"):
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        asked = path.partition("/posts")[2]
        if asked in ("", "/revision/main", "/revision/v1"):
            name = asked.rpartition("/")[2] or "main"
            commit, self.refs["main"] = self.refs[name], NEW  # whoever asks again for main gets another commit
            return self.send(200, json.dumps({"id": "someone/posts", "sha": commit}).encode())
        if asked.startswith("/revision/"):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        kind, commit = asked.split("/")[1:3]
        content = self.files[commit]
        entry = {"type": "file", "path": "train.jsonl", "size": len(content), "oid": commit}
        if kind == "tree":
            return self.send(200, json.dumps([entry]).encode())
        return self.send(200, content, {"ETag": f'"{commit}"', "X-Repo-Commit": commit})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def hub(monkeypatch):
    Hub.refs = {"main": OLD, "v1": OLD}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_hub_id_is_pinned_to_the_commit_that_was_fetched(project, tmp_path, hub):
    from dvc.repo import Repo

    program = """
import json, sys
from pathlib import Path
from flows.importing import import_input
from stages.records.errors import UserError
for source in sys.argv[1:]:
    try:
        said = import_input("tldr", source)
    except UserError as error:
        said = str(error)
    rows = Path("data/inputs/tldr/demonstrations/train.jsonl").read_text()
    print(json.dumps([said, rows, Path("data/inputs/tldr.dvc").read_text()]))
"""
    sources = ["someone/posts", "someone/posts", "someone/posts@v1", "someone/posts@v9", "someone/else"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, *sources], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]  # DVC prints hints
    said, rows, recorded = zip(*answers)

    assert f"10 rows of demonstrations, someone/posts at commit {OLD} of the hub" in said[0]
    assert f"9 rows of demonstrations, someone/posts at commit {NEW} of the hub" in said[1]
    assert "someone/posts has no revision v9" in said[3] and "no data set or model of that name" in said[4]
    assert [row.encode() for row in rows] == [Hub.files[commit] for commit in (OLD, NEW, OLD, OLD, OLD)]
    digest = hashlib.sha256(Hub.files[OLD]).hexdigest()
    pinned = {"source": "someone/posts", "type": "dataset", "revision": OLD, "sha256": digest}
    found = [YAML(typ="safe").load(text)["meta"]["sources"] for text in recorded]
    assert found[1]["demonstrations"]["revision"] == NEW
    assert found[0] == found[2] == found[3] == found[4] == {"demonstrations": pinned}

    (tmp_path / "pairs.jsonl").write_bytes(lines(PAIRS))
    import_input("tldr", str(tmp_path / "pairs.jsonl"))
    (project / "data/inputs/tldr/demonstrations/train.jsonl").write_bytes(Hub.files[NEW])
    with Repo(".") as repo:
        repo.commit("data/inputs/tldr.dvc", force=True)
        repo.add(["data/inputs/tldr"])
    sources = YAML(typ="safe").load(tracked(project, "tldr"))["meta"]["sources"]
    assert sources["demonstrations"] == pinned and sources["preferences"]["source"] == "pairs.jsonl"
