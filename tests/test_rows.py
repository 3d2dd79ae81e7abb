"""What people bring: six formats, the forms of TRL, texts that stay what they are; what is wrong is one sentence."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Json, List, Value, disable_progress_bars

from stages.records.errors import UserError
from stages.worlds import files, forms, inputs, rows, rules

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests/cases"
GOOD = [{"prompt": f"post {i}", "completion": "short"} for i in range(10)]
PAIRS = [{"prompt": f"post {i}", "chosen": "yes", "rejected": "no"} for i in range(10)]
SYSTEM = {"role": "system", "content": "Be kind."}
CSV = b"prompt,completion\n" + b"".join(b"post %d,short\n" % i for i in range(10))
disable_progress_bars()


def lines(found: list) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in found)


def user(content) -> dict:
    return {"role": "user", "content": content}


def assistant(content, **more) -> dict:
    return {"role": "assistant", "content": content} | more


def fit(path: Path) -> tuple[str, pd.DataFrame, dict[str, int]]:
    """What an import makes of a data set: its kind, the rows that are left, and rule -> rows that it hit."""
    kind, found = rows.read(path)
    tally = rules.Tally("mine", 0.05, 0.5)
    left = rules.on_texts(found, kind, rules.About(frozenset(), False), tally)
    return kind, left, {entry["rule"]: entry["rows"] for entry in tally.found if entry["rows"]}


def written(folder: Path, name: str, found: list[dict]) -> Path:
    """A file with these rows, in the format that its name says."""
    table, path = pd.DataFrame(found), folder / name
    if "jsonl" in name:
        content = lines(found)
    elif "json" in name:
        content = json.dumps(found, indent=1).encode()
    elif "csv" in name:
        content = table.to_csv(index=False).encode()
    elif "parquet" in name:
        content = table.to_parquet()
    else:
        Dataset.from_list(found).save_to_disk(folder / "disk")
        content = (folder / "disk/data-00000-of-00001.arrow").read_bytes()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


LONG = lines([*GOOD, {"prompt": "p", "completion": "c"}])
MALFORMED = [
    ("a.jsonl", None, "a.jsonl does not exist"),
    ("a.txt", b"prompt", "a.txt holds no data file: give a .jsonl, "),
    ("a.jsonl", b"", "a.jsonl is empty"),
    ("a.jsonl", b"\n \n", "a.jsonl is empty"),
    ("a.json", b" [ ]", "a.json is empty"),
    ("a.parquet", b"", "a.parquet is empty"),
    ("a.arrow", b"", "a.arrow is empty"),
    ("a.csv", b"", "a.csv is empty"),
    ("a.csv", b"prompt,completion\n", "a.csv is empty"),
    ("a.jsonl", lines(GOOD[:3]) + b'{"prompt": "caf\xe9", "completion": "x"}', "row 4 is not UTF-8"),
    ("a.json", b'[{"prompt": "a"},\n {"prompt": "caf\xe9"}]', "row 2 is not UTF-8"),
    ("a.csv", CSV + b"caf\xe9,x\n", "row 11 is not UTF-8"),
    ("a.csv", b"prompt,caf\xe9\na,b\n", "its header is not UTF-8"),
    ("a.jsonl", lines(GOOD[:1]) + b"{'prompt'}\n", "row 2 is not JSON"),
    ("a.json", b'[{"prompt": "a"}, {"prompt": }]', "row 2 is not JSON"),
    ("a.json", b'[{"prompt": "a"} {"prompt": "b"}]', r"row 2 is not JSON \(Expecting ',' delimiter"),
    ("a.json", b'[{"prompt": "a"}', "row 2 is not JSON"),
    ("a.json", b'[{"prompt": "a"}] more', r"row 2 is not JSON \(Extra data"),
    ("a.jsonl", b"[1]\n", "row 1 is not a JSON object"),
    ("a.jsonl", lines(GOOD) + b'{"prompt": "a", "completion": "b", "completion": "c"}', "completion is there twice"),
    ("a.jsonl", lines(GOOD) + b'{"n": ' + b"9" * 5000 + b"}", "row 11 cannot be read"),
    ("a.jsonl", lines(GOOD) + b"[" * 100_000, "row 11 cannot be read"),
    ("a.jsonl.gz", gzip.compress(lines(GOOD), mtime=0)[:-9], r"a\.jsonl\.gz is not a whole gzip file"),
    ("a.json.gz", b"plain", r"a\.json\.gz is not a whole gzip file"),
    ("a.csv.gz", gzip.compress(CSV * 99, mtime=0)[:-20], r"a\.csv\.gz is not a whole gzip file"),
    ("a.csv.gz", b"plain", r"a\.csv\.gz is not a whole gzip file"),
    ("a.csv", CSV + b"a,b,c\n" + CSV, "row 11 has 3 fields, more than the 2 columns"),
    ("a.csv", b"prompt,completion\na,b,c\n" * 9, "row 1 has 3 fields, more than the 2 columns"),
    ("a.csv", CSV + b'a,"b\n' + CSV, "row 11 cannot be read: look for a quotation mark that is not closed"),
    ("a.csv", b"prompt,completion,prompt\na,b,c\n", "has the column 'prompt' twice"),
    (
        "a.csv",
        CSV + b'p100,"good,bad\n' + CSV[18:] + b'p200,"x",y\n',
        "row 11 cannot be read: look for a quotation mark",
    ),
    ("a.csv", CSV + b'7,"He said "yes" and "no, never" ok"\n', "row 11 cannot be read: .* not doubled within"),
    ("a.csv", CSV + b'7,"say \\"hi\\" now"\n', "row 11 cannot be read"),
    (
        "a.csv",
        CSV.replace(b"completion", b"completion,n") + b'7, "so, no"\n',
        "row 1 has 2 fields, fewer than the 3 co",
    ),
    ("a.csv", b"prompt,completion,n\n" + b'7, "so, no"\n' * 9, "row 1 has a blank before a quotation mark"),
    ("a.csv", b"prompt,completion,n\n" + b"7,first\nsecond,1\n" * 9, "row 1 has 2 fields, fewer than the 3 columns"),
    ("a.csv", b"prompt,completion,\n" + b"a,b,c\n" * 9, "row 1 has a text in column 3, which has no name"),
    (
        "a.csv",
        pd.DataFrame([{"prompt": [user("p")], "completion": [assistant("c")]}] * 9).to_csv(index=False).encode(),
        '9 of 9 rows .*"messages as text".*: save the data set as jsonl or parquet',
    ),
    ("a.csv", CSV.replace(b",", b";"), "lacks a column: it has prompt;completion and needs prompt/completion"),
    ("a.parquet", b"PAR1 but no more", r"a\.parquet is not a whole parquet file"),
    ("a.arrow", b"ARROW1 but no more", r"a\.arrow is not a whole arrow file"),
    ("a.jsonl", lines([{"prompt": "p", "summary": "s"}] * 9), r"a\.jsonl lacks a column: it has prompt, summary"),
    ("a.jsonl", lines([{"text": "p"}] * 9), "has whole texts alone .*: split them into prompt and completion"),
    ("a.jsonl", lines(GOOD[:2]), "holds 2 rows: at least 8 are needed"),
    ("a.jsonl", lines([row | {"split": "exam"} for row in GOOD]), "row 1 is in the split 'exam'"),
    ("a.jsonl", lines([*GOOD, GOOD[1] | {"split": ["test"]}]), r"row 11 is in the split \['test'\]"),
    ("a.jsonl", lines([row | {"completion": 3} for row in GOOD]), '10 of 10 rows .*"not text"'),
    ("a.jsonl", lines([row | {"prompt": None} for row in GOOD]), '10 of 10 rows .*"empty"'),
    (
        "a.jsonl",
        lines([*GOOD, {"prompt": [user("p")], "completion": [assistant("c")]}]),
        r"mixes plain texts \(.*row 1\) and conversations \(.*row 11\)",
    ),
    (
        "a.jsonl",
        lines([*(row | {"split": "train_prefs"} for row in GOOD), GOOD[1] | {"split": "train_sft"}]),
        "rows of both train_prefs and train_sft in its column split, which would be mixed",
    ),
    (
        "train.jsonl",
        lines([*GOOD, GOOD[0] | {"split": "test"}]),
        "row 11 says that it is of the split test, and its fil",
    ),
    (
        "a.jsonl",
        lines([row | {"split": "train", "Split": "test"} for row in GOOD]),
        "columns Split and split: remove on",
    ),
    (
        "a.jsonl",
        lines([{"question": "q", "chosen": f"The answer is {i}", "rejected": "The answer is no"} for i in range(9)]),
        "row 1 has a column question that is no part of its prompt",
    ),
    (
        "a.jsonl",
        lines([{"messages": [user("p")], "chosen": f"It is {i}", "rejected": "It is no"} for i in range(9)]),
        "row 1 has a column messages that is no part of its prompt",
    ),
    (
        "a.jsonl",
        lines([row | {"system": "Be kind."} for row in PAIRS]),
        "row 1 has a column system that is no part of ",
    ),
    (
        "a.jsonl",
        lines([row | {"input": "5"} for row in GOOD]),
        "row 1 has a column input that is no part of its prompt",
    ),
    (
        "a.jsonl",
        lines([{"prompt": "q", "messages": [user("p"), assistant("c")]} for _ in GOOD]),
        "row 1 has a column prompt that is no part of its prompt",
    ),
    (
        "a.jsonl",
        lines([{"messages": [user("p"), assistant("c"), user("d")]}] * 9),
        '9 of 9 rows .*"not one answer".*keep rows with one answer',
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_bad_data_is_one_clear_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        fit(tmp_path / name)
    said = str(error.value)
    assert name in said and "\n" not in said and said.endswith(".") and ".." not in said


def test_tables_with_text_that_is_not_utf8(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = pa.array([*(b"short" for _ in GOOD), b"caf\xe9"]).cast(pa.binary()).view(pa.utf8())
    table = pa.table({"prompt": [f"post {i}" for i in range(11)], "completion": bad})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(UserError, match=r"a\.parquet, row 11 is not UTF-8"):
        rows.read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.arrow, row 11 is not UTF-8"):
        rows.read(tmp_path / "a.arrow")


NAMES = ["a.jsonl", "b.jsonl.gz", "c.json", "d.json.gz", "e.csv", "f.csv.gz", "g.parquet", "h.arrow", "i [1]*.csv"]
TRICKY = [
    "NA",
    "None",
    "12",
    "007",
    "1e5",
    "true",
    "2020-01-01",
    "null",
    "[1]",
    '{"a": 1}',
    "a,b",
    'a "b"',
    "é\u2028ü\r\nx",
]


@pytest.mark.parametrize("name", NAMES)
def test_texts_stay_what_they_are_in_every_format(tmp_path, name):
    found = [{"prompt": text, "chosen": text + "!", "rejected": text} for text in TRICKY]
    kind, read = rows.read(written(tmp_path, name, found))
    assert kind == "preferences"
    assert [{column: row[column] for column in found[0]} for row in read] == found
    assert [Path(row["where"]).name for row in read] == [f"{name}, row {n}" for n in range(1, len(found) + 1)]


@pytest.mark.parametrize("name", ["a.jsonl", "b.json", "c.csv", "d.parquet"])
def test_dates_alone_are_texts_too(tmp_path, name):
    found = [{"prompt": f"born {i}?", "completion": f"2020-01-0{i}"} for i in range(1, 10)]
    _, read = rows.read(written(tmp_path, name, found))
    assert [row["completion"] for row in read] == [row["completion"] for row in found]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    for name, content in (("a.jsonl", lines(GOOD)), ("b.json", json.dumps(GOOD).encode()), ("c.csv", CSV)):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
        assert len(fit(tmp_path / name)[1]) == 10


@pytest.mark.parametrize(
    "content",
    [
        pd.DataFrame(GOOD).to_csv().encode(),  # with the index
        CSV.replace(b"completion", b"completion,"),
        CSV.replace(b"\n", b",\n"),
        b"  \n" + CSV,
    ],
    ids=["index", "comma in the header", "comma in every line", "blank line"],
)
def test_csv_with_what_is_no_column(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    found = [{column: row[column] for column in GOOD[0]} for row in rows.read(tmp_path / "a.csv")[1]]
    assert found == GOOD


def of_datasets(folder: Path, name: str, table: Dataset) -> Path:
    if name.endswith("parquet"):
        table.to_parquet(folder / name)
    else:
        table.save_to_disk(folder / "disk", num_shards=1)
        (folder / "disk/data-00000-of-00001.arrow").rename(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["a.parquet", "b.arrow"])
def test_tables_say_what_their_values_mean(tmp_path, name):
    """JSON in columns of mixed types is no text; classes are their names, not their numbers."""
    parts = [{"type": "text", "text": "q"}]
    said = [{"prompt": [user("q" if i % 2 else parts)], "completion": [assistant(f"a{i}")]} for i in range(10)]
    whole = Features({"prompt": Json(), "completion": List(Json())})
    bad = ClassLabel(names=["good", "bad"])
    for number, table in enumerate(
        [
            Dataset.from_list(said, features=whole),
            Dataset.from_list(
                said,
                features=Features(
                    {c: List({"role": Value("string"), "content": Json()}) for c in ("prompt", "completion")}
                ),
            ),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        _, read = rows.read(of_datasets(tmp_path / str(number), name, table))
        assert [(row["prompt"], row["completion"], row["before"]) for row in read] == [
            ("q", f"a{i}", ()) for i in range(10)
        ]
    split = ClassLabel(names=["train", "test"])
    table = Dataset.from_list([row | {"label": i > 7, "split": i % 2} for i, row in enumerate(GOOD)])
    table = table.cast_column("label", Value("int64")).cast_column("label", bad).cast_column("split", split)
    _, read = rows.read(of_datasets(tmp_path, name, table))
    assert [row.get("fault") for row in read] == [None] * 8 + ["label"] * 2
    assert [row["split"] for row in read] == ["train", "test"] * 5


@pytest.mark.parametrize(
    "more",
    [
        {"system": ""},
        {"system": None, "question": "Post  1"},
        {"prompt": [SYSTEM, user("post 1")], "system": "Be kind.", "input": "post 1", "chosen": [assistant("a")],
         "rejected": [assistant("b")]},
        {"messages": [user("post 1"), assistant("yes")], "chosen": [user("post 1"), assistant("yes")],
         "rejected": [user("post 1"), assistant("no")]},
        {"question": 5},
    ],
    ids=range(5),
)  # fmt: skip
def test_columns_that_the_prompt_has_in_it_may_stand_beside_it(more):
    assert forms.unused(PAIRS[1] | more, "preferences") is None


def test_a_prompt_may_stand_beside_a_whole_conversation(tmp_path):
    found = [{"prompt": f"q{i}", "messages": [user(f"q{i}"), assistant("a")]} for i in range(10)]
    _, read = rows.read(written(tmp_path, "a.jsonl", found))
    assert [(row["prompt"], row["completion"]) for row in read] == [(f"q{i}", "a") for i in range(10)]


def test_splits_are_said_in_any_case(tmp_path):
    found = [row | {"Split": "Test" if i < 3 else "TRAIN"} for i, row in enumerate(GOOD)]
    assert [row["split"] for row in rows.read(written(tmp_path, "a.jsonl", found))[1]] == ["test"] * 3 + ["train"] * 7
    (tmp_path / "hub").mkdir()
    for name, some in (("Train.jsonl", GOOD[:9]), ("Test.jsonl", GOOD[9:])):
        written(tmp_path / "hub", name, some)
    assert {row["split"] for row in rows.read(tmp_path / "hub")[1]} == {"train", "test"}
    (tmp_path / "hub/train_info.json").write_text('{"num_rows": 10}')
    with pytest.raises(
        UserError, match=r"train_info\.json holds no demonstrations as other files .*: it has num_rows, so"
    ):
        rows.read(tmp_path / "hub")


def test_tables_with_a_map_without_rows_and_with_a_column_twice(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = pa.array(
        [[("chosen", 1.0), ("rejected", float(i))] for i in range(10)], pa.map_(pa.string(), pa.float64())
    )
    table = pa.table({name: [row[name] for row in PAIRS] for name in PAIRS[0]}).append_column("scores", scores)
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "test.parquet")
    assert [row["margin"] for row in rows.read(tmp_path)[1]] == [1.0 - i for i in range(10)]
    with pytest.raises(UserError, match=r"test\.parquet is empty"):
        rows.read(tmp_path / "test.parquet")
    twice = pa.Table.from_arrays([pa.array(["a"] * 9)] * 3, names=["prompt", "completion", "prompt"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, twice.schema) as writer:
        writer.write_table(twice)
    with pytest.raises(UserError, match=r"a\.arrow has the column 'prompt' twice"):
        rows.read(tmp_path / "a.arrow")


def test_a_folder_in_hub_layout(tmp_path):
    written(tmp_path, "train_prefs-00000-of-00002.jsonl", PAIRS[:5])
    written(tmp_path, "train_prefs-00001-of-00002.csv", PAIRS[5:])
    written(tmp_path, "test_prefs-00000-of-00001.parquet", [{"prompt": "x", "chosen": "y", "rejected": "z"}])
    (tmp_path / "README.md").write_text("a card")
    _, left, found = fit(tmp_path)
    assert left["split"].tolist() == ["test"] + ["train"] * 10 and not found
    written(tmp_path, "more.jsonl", PAIRS)
    with pytest.raises(UserError, match=r"more\.jsonl names no split"):
        fit(tmp_path)


EARLIER = [SYSTEM, user("a"), assistant("b")]
OLD = [{"from": "human", "value": "q"}]
BEFORE = (("system", "Be kind."), ("user", "a"), ("assistant", "b"))
TALL = {"prompt": "q", "chosen": "yes", "rejected": "no"}
SAME = [
    ("explicit", {"prompt": [user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no ")]}, ()),
    ("implicit", {"chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]}, ()),
    (
        "prompt repeated",
        {"prompt": [user("q")], "chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]},
        (),
    ),
    (
        "prompt as text",
        {"prompt": "q", "chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]},
        (),
    ),
    ("answers as messages", {"prompt": "q", "chosen": [assistant("yes")], "rejected": [assistant("no")]}, ()),
    (
        "several turns",
        {"prompt": [*EARLIER, user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        BEFORE,
    ),
    (
        "several turns, implicit",
        {"chosen": [*EARLIER, user("q"), assistant("yes")], "rejected": [*EARLIER, user("q"), assistant("no")]},
        BEFORE,
    ),
    (
        "from and value",
        {"chosen": [*OLD, {"from": "gpt", "value": "yes"}], "rejected": [*OLD, {"from": "gpt", "value": "no"}]},
        (),
    ),
    (
        "parts",
        {
            "prompt": [user([{"type": "text", "text": "q"}])],
            "chosen": [assistant("yes")],
            "rejected": [assistant("no")],
        },
        (),
    ),
    (
        "empty keys, as parquet has them",
        {
            "prompt": [user("q") | {"tool_calls": None, "thinking": "", "name": "Ann"}],
            "chosen": [assistant("yes")],
            "rejected": [assistant("no")],
            "tools": "[]",
            "chat_template_kwargs": {"enable_thinking": None},
        },
        (),
    ),
    ("plain", TALL, None),
    ("plain, answers with blanks", {"prompt": "q", "chosen": " yes", "rejected": "no\n"}, None),
]


@pytest.mark.parametrize(("row", "before"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_forms_of_preferences(row, before):
    given = json.dumps(row)
    assert forms.of_row(row, "preferences", "prompt" not in row) == TALL | {"before": before, "moved": False}
    assert json.dumps(row) == given  # TRL's functions rename keys in place


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [*EARLIER, user("q")], "completion": [assistant("yes")]},
        {"messages": [*EARLIER, user("q"), assistant("yes")]},
        {
            "conversations": [
                {"from": m["role"], "value": m["content"]} for m in [*EARLIER, user("q"), assistant("yes")]
            ]
        },
    ],
)
def test_forms_of_demonstrations(row):
    found = {"prompt": "q", "completion": "yes", "before": BEFORE, "moved": False}
    assert forms.of_row(row, "demonstrations", False) == found


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"chosen": [assistant("a"), assistant("b")]}, "turns"),
        ({"chosen": [user("a")]}, "turns"),
        ({"prompt": [user("q"), assistant("a")]}, "turns"),
        ({"prompt": [SYSTEM]}, "turns"),
        ({"chosen": [assistant("a", tool_calls=[{"function": {"name": "f"}}])]}, "more"),
        ({"chosen": [assistant("a", reasoning_content="so")]}, "more"),
        ({"chosen": [assistant("a", thinking="so")]}, "more"),
        ({"prompt": [user("a"), assistant("b", function_call={"name": "f"}), user("q")]}, "more"),
        ({"tools": '[{"name": "f"}]'}, "more"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "more"),
        ({"videos": ["cat.mp4"]}, "more"),
        ({"prompt": [user([{"type": "text", "text": ["a", 0]}])]}, "turns"),
        ({"prompt": [{"role": "tool", "content": "a"}, user("q")]}, "turns"),
        ({"prompt": [user([{"type": "image"}, {"type": "text", "text": "q"}])]}, "turns"),
        ({"images": ["cat.png"]}, "more"),
        ({"chosen": [assistant({"a": 1})]}, "turns"),
        ({"chosen": [assistant(None)]}, "empty"),
        ({"chosen": [assistant(" ")]}, "empty"),
        ({"chosen": []}, "empty"),
        ({"prompt": None}, "empty"),
        ({"prompt": [user("\ud800"), assistant("a"), user("q")]}, "half"),
        ({"chosen": "text"}, "type"),
        ({"chosen": ["text"]}, "type"),
        ({"prompt": 5}, "type"),
    ],
    ids=str,
)
def test_conversations_that_are_no_answer_to_a_user(changes, fault):
    row = {"prompt": [user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}
    with pytest.raises(forms.Unfit, match=f"^{fault}$"):
        forms.of_row(row | changes, "preferences", False)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "moved"),
    [
        (
            "\n\nHuman: q\n\nAssistant: It is it",
            "\n\nHuman: q\n\nAssistant: It is not",
            "\n\nHuman: q\n\nAssistant:",
            True,
        ),
        ("\n\nHuman: q\n\nAssistant: yes", "\n\nHuman: q\n\nAssistant: no", "\n\nHuman: q\n\nAssistant:", False),
        (
            "\r\n\r\nHuman: q\r\n\r\nAssistant: It is it",
            "\r\n\r\nHuman: q\r\n\r\nAssistant: It is not",
            "\r\n\r\nHuman: q\r\n\r\nAssistant:",
            True,
        ),
        ("The sky is blue", "The sky is black", "The sky is ", True),  # not "The sky is bl"
        ("The sky is blue", "The sky is green", "The sky is ", False),
        ("Q: sky?\nA: blue", "Q: sky?\nA: blues", "Q: sky?\nA: ", True),
    ],
)
def test_no_beginning_of_an_answer_and_no_half_word_belongs_to_an_implicit_prompt(chosen, rejected, prompt, moved):
    found = forms.of_row({"chosen": chosen, "rejected": rejected}, "preferences", True)
    assert (found["prompt"], found["moved"]) == (prompt, moved)
    assert [found[side] for side in ("chosen", "rejected")] == [
        side.removeprefix(prompt).strip() for side in (chosen, rejected)
    ]


@pytest.mark.parametrize(
    ("prompt", "answers", "expected"),
    [
        ("def f(x):\n", ("    return x", "    pass"), ("def f(x):\n    ", "return x", "pass")),
        ("def f(x):\n", ("    return x", "  return x"), ("def f(x):\n  ", "  return x", "return x")),
        ("def f(x):", ("\n    return x\n", "\n    pass "), ("def f(x):\n    ", "return x", "pass")),
        ("Sum up:\n", ("  a\n", "b"), ("Sum up:\n", "  a", "b")),
        ("Sum up:", ("  a\n", "\nb"), ("Sum up:", "a", "b")),
    ],
)
def test_answers_keep_their_indentation_behind_a_line_end(prompt, answers, expected):
    row = {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    found = forms.of_row(row, "preferences", False)
    assert (found["prompt"], found["chosen"], found["rejected"]) == expected


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault"),
    [
        ("yes ", "no", "empty"),  # where TRL's extract_prompt takes all but the end of it for the prompt
        ("word", "words", "empty"),
        ("\n\nHuman: q\n\nAssistant: a\n\nHuman: r", "\n\nHuman: q\n\nAssistant: b", "turns"),
    ],
)
def test_transcripts_without_one_prompt(chosen, rejected, fault):
    with pytest.raises(forms.Unfit, match=fault):
        forms.of_row({"chosen": chosen, "rejected": rejected}, "preferences", True)


def test_conversations_are_one_prompt_only_if_all_before_it_is_the_same():
    asked = ("user", "a"), ("assistant", "b")
    assert forms.key("Q\n q", None) == forms.key("q q", ()) == inputs.normalise("q  Q")
    assert forms.key("q", asked) == forms.key(" Q", (("user", "A"), ("assistant", "b")))
    assert len({forms.key("q", before) for before in ((), asked, asked[:1], asked[::-1])}) == 4


@pytest.mark.parametrize("name", ["chat_explicit", "chat_implicit", "chat_many_turns", "string_prompt_chat_answers"])
def test_conversations_in_files_are_said(name):
    kind, found = rows.read(CASES / f"{name}.jsonl")
    messages = {"chat_explicit": 3, "chat_many_turns": 4}.get(name, 2)
    assert rows.in_words(kind, found) == f"120 rows of preferences, conversations of up to {messages} messages"
    assert fit(CASES / f"{name}.jsonl")[2] == {}


def test_messages_are_the_same_in_tables(tmp_path):
    found = [json.loads(line) for line in (CASES / "chat_explicit.jsonl").read_text().splitlines()]
    _, as_lines = rows.read(CASES / "chat_explicit.jsonl")
    for name in ("a.parquet", "b.arrow", "c.json"):
        _, read = rows.read(written(tmp_path, name, found))
        assert [row | {"where": ""} for row in read] == [row | {"where": ""} for row in as_lines]


def test_label_strength_is_a_column_or_the_difference_of_two(tmp_path):
    found = [row | {"votes_chosen": 5, "votes_rejected": str(i % 3), "sure": 1 + i / 4} for i, row in enumerate(PAIRS)]
    path = written(tmp_path, "a.jsonl", found)
    for columns, expected in ((["sure"], [1 + i / 4 for i in range(10)]), (["votes_chosen", "votes_rejected"], None)):
        _, read = rows.read(path, strength=columns)
        assert [row["strength"] for row in read] == (expected or [5 - i % 3 for i in range(10)])
    assert "strength" not in rows.read(path)[1][0]
    with pytest.raises(UserError, match=r"a\.jsonl lacks the column doubt: it has chosen, prompt, "):
        rows.read(path, strength=["doubt"])


@pytest.mark.slow
def test_reading_writes_nothing_that_stays_and_asks_no_server(tmp_path):
    """Whoever asks one, which load_dataset does to count its calls, fails here: sockets are closed."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    paths = [str(written(tmp_path, name, PAIRS)) for name in ("a.csv", "b.parquet", "c.arrow", "d.jsonl")]
    program = """
import socket, sys
from pathlib import Path
def refuse(*_): sys.exit("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from stages.worlds import rows
print(sum(len(rows.read(Path(path))[1]) for path in sys.argv[1:]))
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    env |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(scratch)}
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("40\n", 0), done.stderr
    assert list(home.rglob("*")) == [] and list(scratch.iterdir()) == []


def test_formats_are_those_that_can_be_read():
    assert all(files.HUB_NAME.fullmatch(f"train-00000-of-00001{name}")[2] == name for name in files.FORMATS)
