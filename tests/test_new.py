"""`roads new`: from a file of data to a study with sizes that fit, and back to nothing where anything is wrong."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import neox
from test_import import CASES, PAIRS, lines, project  # noqa: F401  (a fixture)
from test_text import comparisons, summaries

from flows import estimated, fitting
from flows.starting import start
from stages.records import reading
from stages.records.errors import UserError
from stages.worlds import encoding


def state(root: Path) -> tuple[dict, str]:
    """All that `roads new` may change, and what git makes of it."""
    files = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and ".git" not in path.parts}
    kept = {name: content for name, content in files.items() if "/.roads/" not in name and "/.dvc/" not in name}
    return kept, subprocess.run(["git", "status", "--short"], cwd=root, capture_output=True, text=True).stdout


def model(folder: Path, texts: list[str]) -> Path:
    """A tiny model folder with a tokenizer."""
    tokenizer = encoding.train_tokenizer(texts, 300)
    neox(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_preferences_become_a_study_that_can_run(project, tmp_path):  # noqa: F811
    rows = comparisons(150, 4)
    rows.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    said = start("mine", str(tmp_path / "mine.jsonl"), licence="CC-BY-4.0")
    found = reading.prepare("mine")
    corpus = found["settings"]["mine"]["corpus"]
    assert corpus["reward"] == "judge" and "group" not in corpus and corpus["used"] == 1.0
    assert corpus["max_prompt"] % 8 == 0 and 0.1 <= corpus["test"] <= 0.2
    assert found["study"]["settings"] == ["mine"] and "licence: CC-BY-4.0" in Path("data/inputs/mine.dvc").read_text()
    text = Path("studies/mine.yaml").read_text()
    assert f"max_prompt: {corpus['max_prompt']}" in text and "the longest" in text, "the reason stands beside it"
    told = "\n".join(said)
    assert (
        "roads advise mine" in told
        and "One seed takes roughly" in told
        and f"max_prompt: {corpus['max_prompt']}" in told
    )
    settings = reading.check(found, "mine").settings["mine"]
    assert settings.offline.steps == settings.online.steps == settings.arms["online"].rounds


@pytest.mark.slow
def test_a_model_of_one_s_own_brings_its_tokenizer_and_gentle_rates(project, tmp_path):  # noqa: F811
    rows = summaries(120)
    rows.to_json(tmp_path / "posts.jsonl", orient="records", lines=True)
    folder = model(tmp_path / "model", [*rows["prompt"], *rows["completion"]])
    start("posts", str(tmp_path / "posts.jsonl"), str(folder))
    found = reading.check(reading.prepare("posts"), "posts").settings["posts"]
    assert found.base.model == "data/inputs/posts/model" and found.corpus.tokenizer == "model"
    assert found.corpus.reward == "rouge_l" and found.online.learning_rate == found.offline.learning_rate == 5e-6
    assert Path("data/inputs/posts/model/model.safetensors").exists()
    longest = max(len(ids) for ids in encoding.load_tokenizer(folder)(list(rows["prompt"])).input_ids)
    assert found.corpus.max_prompt >= 0.9 * longest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("my-study", lines(PAIRS), "'my-study' is no name of a study"),
        ("gap", lines(PAIRS), "of the name gap"),
        ("ukp", lines(PAIRS), "of the name ukp"),
        ("mine", b"", "mine.jsonl"),
        ("mine", b"{", "mine.jsonl"),
        ("mine", lines(PAIRS[:3]), "at least 8 are needed"),
        ("mine", lines([{"text": "a"}] * 10), "whole texts alone"),
        ("mine", lines([row | {"rejected": row["chosen"]} for row in PAIRS]), "rows of preferences would be dropped"),
        ("mine", lines([{"prompt": 1, "chosen": "a", "rejected": "b"}] * 10), "has no row that is fit"),
        ("mine", (CASES / "chat_explicit.jsonl").read_bytes(), "say --model"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(project, tmp_path, name, content, complaint):  # noqa: F811
    (tmp_path / "mine.jsonl").write_bytes(content)
    before = state(project)
    with pytest.raises(UserError) as error:
        start(name, str(tmp_path / "mine.jsonl"))
    assert complaint in str(error.value) and "\n" not in str(error.value) and state(project) == before


@pytest.mark.slow
def test_conversations_need_a_model_and_a_model_a_tokenizer(project, tmp_path):  # noqa: F811
    said = [{"role": "user", "content": "what?"}]
    rows = [
        {
            "chosen": [*said, {"role": "assistant", "content": f"good {i}"}],
            "rejected": [*said, {"role": "assistant", "content": f"bad {i}"}],
        }
        for i in range(20)
    ]
    (tmp_path / "chat.jsonl").write_bytes(lines(rows))
    before = state(project)
    with pytest.raises(UserError, match="say --model"):
        start("mine", str(tmp_path / "chat.jsonl"))
    bare = model(tmp_path / "bare", ["some text"])
    with pytest.raises(UserError, match="has no chat template"):
        start("mine", str(tmp_path / "chat.jsonl"), str(bare))
    (bare / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer that can be loaded"):
        start("mine", str(tmp_path / "chat.jsonl"), str(bare))
    with pytest.raises(UserError, match="is no model folder"):
        start("mine", str(tmp_path / "chat.jsonl"), str(tmp_path))
    assert state(project) == before


def test_a_length_holds_nearly_all_texts_whole():
    assert fitting._longest(sorted(range(1, 101)), 512) == 104
    assert fitting._longest([5] * 100, 512) == 8
    assert fitting._longest([5] * 99 + [900], 512) == 8, "one text in a hundred may be cut"
    assert fitting._longest([900] * 10, 512) == 512
    assert fitting._too_long([5, 5, 600, 700], 512) == 0.5


def test_the_size_of_a_model_is_that_of_its_weights(tmp_path):
    network = neox(100)
    network.save_pretrained(tmp_path)
    found = estimated.of_model(tmp_path)
    assert found.parameters == sum(one.numel() for one in network.parameters())
    assert (found.layers, found.hidden, found.vocabulary) == (2, 32, 100)
    rough = estimated.of_network({"hidden_size": 32, "layers": 2, "heads": 4}, 100)
    assert rough.parameters == pytest.approx(found.parameters, rel=0.4)


def test_less_memory_takes_smaller_pieces(monkeypatch):
    size = estimated.Size(135_000_000, 30, 576, 49152)
    monkeypatch.setattr(estimated, "cores", lambda: 2)
    found = []
    for gigabytes in (8, 16, 32, 128):
        monkeypatch.setattr(estimated, "memory", lambda there=gigabytes: there)
        found.append(estimated.at_once(size, 200, 16))
    assert found[0] == 1 and found == [*sorted(found[:-1]), 0], "0: the whole batch"


def test_time_grows_with_the_network_and_the_steps():
    like = reading.prepare("ukp")["settings"]["ukp"]
    small, large = (
        estimated.Costs(estimated.Size(parameters, 3, 128, 4096), 50, 60, 300, 200, 900, 4e10)
        for parameters in (10**6, 10**8)
    )
    quick, slow = estimated.durations(like, small), estimated.durations(like, large)
    assert quick.keys() == slow.keys() == {"base", "reward", "sample", "offline", "online", "evaluate"}
    assert all(slow[stage] > quick[stage] for stage in quick) and slow["reward"] > 20 * quick["reward"]
    longer = estimated.durations(like | {"offline": {**like["offline"], "steps": 600}}, large)
    assert longer["offline"] > 3 * slow["offline"] and longer["online"] == slow["online"]
    json.dumps(quick)
