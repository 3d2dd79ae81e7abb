"""`roads import`: whatever is wrong with a file is said in one sentence, and what was there before stays."""

import hashlib
import json
import os
import re
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
from datasets import Dataset, DatasetDict
from ruamel.yaml import YAML
from small import dvc

from flows import sources
from flows.importing import import_input, missing_input
from stages.records.errors import UserError
from stages.records.reading import setting as setting_of
from stages.worlds import encoding, text
from tests.test_text import comparisons, params, summaries

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests/cases"
GOOD = [{"prompt": f"post {i}", "completion": "short"} for i in range(10)]
PAIRS = [{"prompt": f"post {i}", "chosen": "yes", "rejected": "no"} for i in range(10)]


def lines(rows: list) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


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
    with pytest.raises(UserError, match=r"prompt_repeated\.jsonl lacks the column topic"):
        import_input("ukp", str(CASES / "prompt_repeated.jsonl"))  # debates stay together by their topic
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


@pytest.mark.slow
def test_an_import_that_ends_after_dvc_has_recorded_it_is_not_recorded(project, tmp_path, monkeypatch):
    from dvc.repo import Repo

    (tmp_path / "old.jsonl").write_bytes(lines(GOOD))
    (tmp_path / "new.jsonl").write_bytes(lines(GOOD * 2))

    def stopped(_out):
        raise KeyboardInterrupt

    ignored = project / "data/inputs/.gitignore"
    for first, second in (("old", "new"), ("new", "old")):
        before = {path: path.read_bytes() for path in (project / "data/inputs").rglob("*") if path.is_file()}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("flows.importing.differences", stopped)
            if before:  # what is there is compared before; what comes is not
                patch.setattr("flows.importing._refuse_unrecorded", lambda *_: None)
            import_input("tldr", str(tmp_path / f"{second}.jsonl"))
        assert before == {path: path.read_bytes() for path in (project / "data/inputs").rglob("*") if path.is_file()}
        import_input("tldr", str(tmp_path / f"{first}.jsonl"))
        assert Repo(".").status() == {} and ignored.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "No source is named: give a file"),
        (" ", "No source is named"),
        ("~nobody-here/x.jsonl", "does not exist"),
        ("loop", "me is a link that leads nowhere"),
        ("a\nb.jsonl", r"'a\\nb\.jsonl' is no name for a file of data"),
        ("caf\udce9.jsonl", r"'caf\\udce9\.jsonl' is no name for a file of data"),
        ("folder", r"'c\\nd\.jsonl' is no name for a file of data"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/me").symlink_to(tmp_path / "loop/me")
    (tmp_path / "folder").mkdir()
    for name in ("a\nb.jsonl", "caf\udce9.jsonl", "folder/c\nd.jsonl"):
        (tmp_path / name).write_bytes(lines(GOOD))
    with pytest.raises(UserError, match=message) as error:
        sources.found(source, tmp_path / "scratch", "", "")
    assert "\n" not in str(error.value)


OLD, NEW, CHATS = "1" * 40, "2" * 40, "3" * 40  # commits
CARD = """---
configs:
- config_name: plain
  data_files: plain.csv
- config_name: chats
  data_files:
  - {split: train_prefs, path: "data/train_prefs-*"}
  - {split: train_sft, path: "data/sft.jsonl"}
  - {split: test_prefs, path: "data/test_prefs-*"}
---
A data set.
"""
CHAT_FILES = {
    "README.md": CARD.encode(),
    "plain.csv": b"prompt,completion\n" + b"post,short\n" * 9,
    "data/sft.jsonl": lines(GOOD),
    "data/train_prefs-a.jsonl": lines(PAIRS[:4]),
    "data/train_prefs-b.jsonl": lines(PAIRS[4:8]),
    "data/test_prefs-a.jsonl": lines(PAIRS[8:]),
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an import asks for: one data set with two commits, whose branch moves while it is read, and
    one commit of another with two configurations."""

    files: ClassVar = {OLD: {"train.jsonl": lines(GOOD)}, NEW: {"train.jsonl": lines(GOOD[:9])}, CHATS: CHAT_FILES}
    refs: ClassVar = {}
    asked: ClassVar = []  # names of the files that were fetched

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0]
        found = re.match("(?:/api)?/datasets/someone/(posts|chats)", path)
        if not found:
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        asked = path.partition(f"/{found[1]}")[2]
        if found[1] == "chats" and asked in ("", "/revision/main"):
            return self.send(200, json.dumps({"id": "someone/chats", "sha": CHATS}).encode())
        if asked in ("", "/revision/main", "/revision/v1"):
            name = asked.rpartition("/")[2] or "main"
            commit, self.refs["main"] = self.refs[name], NEW  # whoever asks again for main gets another commit
            return self.send(200, json.dumps({"id": "someone/posts", "sha": commit}).encode())
        if asked.startswith("/revision/") and asked.rpartition("/")[2] not in self.files:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        kind, commit, *name = asked.split("/")[1:]
        files = self.files[commit]
        if kind == "tree":
            return self.send(
                200,
                json.dumps(
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": commit}
                        for path, content in files.items()
                    ]
                ).encode(),
            )
        content = files["/".join(name)]
        self.asked.append("/".join(name))
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
    rows = Path("data/inputs/tldr/demonstrations/train-00000-of-00001.jsonl").read_text()
    print(json.dumps([said, rows, Path("data/inputs/tldr.dvc").read_text()]))
"""
    sources = ["someone/posts", "someone/posts", "someone/posts@v1", "someone/posts@v9", "someone/else"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, *sources], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]  # DVC prints hints
    said, rows, recorded = zip(*answers)

    assert f"10 rows of demonstrations (splits train), someone/posts at commit {OLD} of the hub" in said[0]
    assert f"9 rows of demonstrations (splits train), someone/posts at commit {NEW} of the hub" in said[1]
    assert "someone/posts has no revision v9" in said[3] and "no data set or model of that name" in said[4]
    assert [row.encode() for row in rows] == [Hub.files[commit]["train.jsonl"] for commit in (OLD, NEW, OLD, OLD, OLD)]
    digest = hashlib.sha256(Hub.files[OLD]["train.jsonl"]).hexdigest()
    pinned = {"source": "someone/posts", "type": "dataset", "revision": OLD, "splits": "train", "sha256": digest}
    found = [YAML(typ="safe").load(text)["meta"]["sources"] for text in recorded]
    assert found[1]["demonstrations"]["revision"] == NEW
    assert found[0] == found[2] == found[3] == found[4] == {"demonstrations": pinned}

    (tmp_path / "pairs.jsonl").write_bytes(lines(PAIRS))
    import_input("tldr", str(tmp_path / "pairs.jsonl"))
    (project / "data/inputs/tldr/demonstrations/train-00000-of-00001.jsonl").write_bytes(Hub.files[NEW]["train.jsonl"])
    with Repo(".") as repo:
        repo.commit("data/inputs/tldr.dvc", force=True)
        repo.add(["data/inputs/tldr"])
    sources = YAML(typ="safe").load(tracked(project, "tldr"))["meta"]["sources"]
    assert sources["demonstrations"] == pinned and sources["preferences"]["source"] == "pairs.jsonl"


@pytest.mark.slow
def test_of_a_hub_id_only_the_configuration_and_splits_that_are_meant_are_fetched(project, tmp_path, hub):
    program = """
import json, sys
from flows.importing import import_input
from stages.records.errors import UserError
for config, split in json.loads(sys.argv[1]):
    try:
        print(json.dumps(import_input("tldr", "someone/chats", config=config, split=split)))
    except UserError as error:
        print(json.dumps(str(error)))
"""
    asked = [("", ""), ("talks", ""), ("chats", ""), ("chats", "train"), ("chats", "train_prefs,test_prefs")]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    Hub.asked.clear()
    done = subprocess.run([sys.executable, "-c", program, json.dumps(asked)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]
    assert "someone/chats has several configurations: say --config with one of plain, chats" in said[0]
    assert "someone/chats has no configuration talks: say --config with one of" in said[1]
    has = "someone/chats has the splits train_prefs, train_sft, test_prefs"
    assert f"{has}, of which train_prefs and train_sft would be mixed: say --split" in said[2]
    assert f"{has}, and not 'train': say --split with some of them" in said[3]
    assert f"10 rows of preferences (splits train_prefs, test_prefs), someone/chats at commit {CHATS}" in said[4]
    assert {name for name in Hub.asked if name != "README.md"} == {name for name in CHAT_FILES if "_prefs-" in name}
    folder = project / "data/inputs/tldr/preferences"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "train_prefs-00000-of-00002.jsonl": lines(PAIRS[:4]),
        "train_prefs-00001-of-00002.jsonl": lines(PAIRS[4:8]),
        "test_prefs-00000-of-00001.jsonl": lines(PAIRS[8:]),
    }
    recorded = YAML(typ="safe").load(tracked(project, "tldr"))["meta"]["sources"]["preferences"]
    digest = recorded.pop("sha256")
    assert len(digest) == 64 and recorded == {
        "source": "someone/chats", "type": "dataset", "revision": CHATS, "config": "chats",
        "splits": "train_prefs, test_prefs",
    }  # fmt: skip


def test_folders_say_their_configurations_and_splits(tmp_path):
    def told(files: dict[str, str], config: str = "", split: str = "") -> list:
        layout = sources.of_hub_layout(files, files.get("README.md", ""), config, "here")
        return [layout[0], *sources.named(sources.choose(layout[1], split, "here"), Path())]

    def refused(message: str, files: dict[str, str], config: str = "", split: str = "") -> None:
        with pytest.raises(UserError, match=message) as error:
            told(files, config, split)
        assert "\n" not in str(error.value)

    chats = {name: CARD for name in CHAT_FILES}
    assert told(chats, "plain") == ["plain", (Path("plain.csv"), "train-00000-of-00001.csv")]
    assert [name for _, name in told(chats, "chats", "test_prefs")[1:]] == ["test_prefs-00000-of-00001.jsonl"]
    assert told({"rows.json.gz": "", "LICENSE": ""})[1:] == [(Path("rows.json.gz"), "train-00000-of-00001.json.gz")]
    assert [name for _, name in told({"train/a.arrow": "", "train/b.arrow": "", "dev/c.arrow": ""})[1:]] == [
        "train-00000-of-00002.arrow", "train-00001-of-00002.arrow", "validation-00000-of-00001.arrow"
    ]  # fmt: skip
    two = {"data/train_a-00000-of-00001.csv": "", "data/train_b-00000-of-00001.csv": ""}
    refused("train_a and train_b would be mixed: say --split", two)
    assert len(told(two, split="train_a, train_b")) == 3
    odd = {"data/train-00000-of-00001.csv": "", "data/unlabelled-00000-of-00001.csv": ""}
    refused("splits train, unlabelled, and unlabelled says none of train, .*: say --split", odd)
    refused("unlabelled says none of", odd, split="unlabelled")
    assert len(told(odd, split="train")) == 2
    refused("names no configurations: leave out --config big", odd, "big")
    refused("holds no data file: give .jsonl", {"notes.txt": "", "README.md": "A card."})
    refused("is no data set in hub layout", {})
    assert [name for _, name in told({"Train.jsonl": "", "Test.jsonl": ""})[1:]] == [
        "train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"
    ]  # fmt: skip
    refused("differ in case alone", {"Train.jsonl": "", "train.jsonl": ""})
    beside = {"train.jsonl": "", "heldout.jsonl": "", "dataset_infos.json": ""}
    refused("has the splits train, heldout, and heldout says none of train, .*: say --split", beside)
    refused("train_b would be mixed|says none of", {"data/train-00000-of-00001.csv": "", "train_b.csv": ""})
    assert told(beside, split="train") == ["", (Path("train.jsonl"), "train-00000-of-00001.jsonl")]
    for option in ("sep: ';'", "column_names: [prompt, rejected, chosen]", "features: []"):
        card = f"---\nconfigs: [{{config_name: a, data_files: a.csv, {option}}}]\n---\n"
        refused(rf"says in README\.md how its files are to be read \({option[:3]}", {"README.md": card, "a.csv": ""})
    for bad in (
        "configs: [",
        "configs: 5",
        "configs: [{data_files: a}]",
        "configs: [{config_name: a, data_files: [5]}]",
    ):
        refused("is no data set in hub layout", {"README.md": f"---\n{bad}\n---\n", "a.csv": ""})
    for away in ("../a.csv", "https://example.org/a.csv", "/etc/a.csv"):
        card = f"---\nconfigs: [{{config_name: a, data_files: {away!r}}}]\n---\n"
        refused(r"names files in README\.md that are not its own", {"README.md": card, "a.csv": ""})
    refused("leads out of", {"../a.csv": ""})


@pytest.mark.slow
def test_what_save_to_disk_wrote_is_imported_with_its_splits(project, tmp_path):
    train, test = Dataset.from_list(PAIRS[:8]), Dataset.from_list(PAIRS[8:])
    train.save_to_disk(tmp_path / "one", num_shards=2)
    DatasetDict(train_prefs=train, train_sft=Dataset.from_list(GOOD), test_prefs=test).save_to_disk(tmp_path / "three")
    folder = project / "data/inputs/tldr/preferences"

    assert "8 rows of preferences (splits train)" in import_input("tldr", str(tmp_path / "one"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-00000-of-00002.arrow",
        "train-00001-of-00002.arrow",
    ]
    with pytest.raises(UserError, match="train_prefs and train_sft would be mixed: say --split"):
        import_input("tldr", str(tmp_path / "three"))
    with pytest.raises(UserError, match="save_to_disk, which has no configurations"):
        import_input("tldr", str(tmp_path / "three"), config="default")
    assert "10 rows of preferences" in import_input("tldr", str(tmp_path / "three"), split="train_prefs,test_prefs")
    assert sorted(path.name for path in folder.iterdir()) == [
        "test_prefs-00000-of-00001.arrow", "train_prefs-00000-of-00001.arrow"
    ]  # fmt: skip
    (tmp_path / "one/data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match="one is not a whole folder of save_to_disk"):
        import_input("tldr", str(tmp_path / "one"))
    (tmp_path / "one.csv").write_bytes(CHAT_FILES["plain.csv"])
    with pytest.raises(UserError, match=r"one\.csv is no folder of data: --config and --split choose"):
        import_input("tldr", str(tmp_path / "one.csv"), split="train")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.slow
def test_an_import_says_that_it_found_conversations_and_tells_data_from_a_tokenizer(project, tmp_path):
    said = import_input("tldr", str(CASES / "chat_many_turns.jsonl"))
    assert "120 rows of preferences, conversations of up to 4 messages" in said
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    (tmp_path / "b.json").write_bytes(lines(GOOD))
    for name in ("a.json", "b.json"):
        assert "10 rows of demonstrations" in import_input("tldr", str(tmp_path / name))
    (tmp_path / "c.json").write_bytes(lines([row | {"model": {"name": "m"}} for row in GOOD]))
    assert "10 rows of demonstrations" in import_input("tldr", str(tmp_path / "c.json"))
    encoding.train_tokenizer(["some words"], 300).backend_tokenizer.save(str(tmp_path / "words.json"))
    assert "a tokenizer" in import_input("tldr", str(tmp_path / "words.json"))
    assert (project / "data/inputs/tldr/tokenizer.json").exists()
