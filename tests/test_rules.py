"""Rules on rows: what tokenisation makes of a row is counted, changed, dropped, or refused with what to do about it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from test_text import params
from test_tokens import CHATML, byte_level
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stages.records.errors import UserError
from stages.worlds import encoding, rouge, rules, text
from stages.worlds import rows as reading

CASES = Path(__file__).parent / "cases"
WORDS = "lantern orchard bridge copper glacier marble sparrow harbour meadow velvet".split()


def words(number: int, count: int = 5) -> str:
    return " ".join(WORDS[(number * 7 + place * (1 + number % 3)) % len(WORDS)] for place in range(count))


def demonstrations(count: int = 40, **changes) -> pd.DataFrame:
    rows = [{"prompt": f"Describe scene number {i}:", "completion": words(i)} for i in range(count)]
    return pd.DataFrame(rows).assign(**changes)


def preferences(count: int = 40) -> pd.DataFrame:
    rows = [(f"Describe scene number {i}:", f"good {words(i)}", f"bad {words(i)}") for i in range(count)]
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])


def built(folder: Path, rows: pd.DataFrame | str, **changes):
    """The corpus of rows, or of a file in tests/cases."""
    if isinstance(rows, str):
        rows = pd.DataFrame([json.loads(line) for line in (CASES / rows).read_text().splitlines()])
    kind = "preferences" if "chosen" in rows else "demonstrations"
    (folder / kind).mkdir(parents=True)
    rows.to_json(folder / kind / "rows.jsonl", orient="records", lines=True)
    usual = {"max_completion": 60} | ({"reward": "judge", "judge": 0.3} if kind == "preferences" else {})
    return text.build(params(**usual | changes), folder, ("mine",))


def counted(corpus) -> dict[str, int]:
    """Rule -> rows that it hit, of those that hit any."""
    return {rule["rule"]: rule["rows"] for rule in corpus.rules if rule["rows"]}


def written(corpus, column: str = "completion_ids") -> list[str]:
    return sorted(corpus.tokenizer.decode(ids).strip() for ids in corpus.demonstrations[column])


def assert_sound(corpus) -> None:
    """EOS is in every completion once, at its end, and padding nowhere."""
    eos, pad = corpus.world["eos"], corpus.world["pad"]
    tables = [corpus.demonstrations["completion_ids"], corpus.prompts["reference_ids"]]
    for pairs in (corpus.pairs, corpus.judge_pairs):
        tables += [pairs["chosen_ids"], pairs["rejected_ids"]] if pairs is not None else []
    for ids in pd.concat(tables):
        assert list(ids).count(eos) == 1 and ids[-1] == eos and pad not in ids
    for ids in pd.concat([corpus.demonstrations["prompt_ids"], corpus.prompts["prompt_ids"]]):
        assert len(ids) and not {eos, pad} & set(ids)


def test_special_tokens_in_texts(tmp_path):
    sentence = r'24 of 120 rows.*"special token within" .*row 1: completion .*or let them go with max_dropped: 0\.2\.'
    with pytest.raises(UserError, match=sentence):
        built(tmp_path / "a", "special_tokens.jsonl")
    corpus = built(tmp_path / "b", "special_tokens.jsonl", max_dropped=0.2)
    assert counted(corpus) == {"special token at an end": 72, "special token within": 24}
    assert_sound(corpus)
    said = written(corpus) + written(corpus, "prompt_ids") + corpus.prompts["reference"].tolist()
    assert not any(mark in text.replace("<|endoftext|>", "", 1) for text in said for mark in ("</s>", "<|", "tail"))


def test_a_prompt_repeated_in_the_completions(tmp_path):
    corpus = built(tmp_path / "a", "prompt_repeated.jsonl")
    assert counted(corpus) == {"prompt repeated": 120}
    assert len(corpus.pairs) + len(corpus.judge_pairs) == 120
    assert not corpus.pairs["chosen"].str.contains("Describe").any()

    rows = preferences()
    rows.loc[0, "chosen"] = rows.loc[0, "prompt"].upper().replace(" ", "\n ") + " then this"
    rows.loc[1, "chosen"] = rows.loc[1, "prompt"].removesuffix(":") + "0: another scene"  # another prompt
    rows.loc[2, "prompt"], rows.loc[2, "chosen"] = "The", "The beginning of a text"  # no repetition: too short
    rows.loc[3, ["prompt", "chosen", "rejected"]] = [
        "说说这里",
        "说说这里好的",
        "说说这里坏的",
    ]  # no blanks between words
    corpus = built(tmp_path / "b", rows)
    assert counted(corpus) == {"prompt repeated": 1, "prompt repeated in one": 1}
    rows = rows.drop(index=3)
    with pytest.raises(UserError, match=r'38 of 39 rows of preferences would be dropped.*"prompt repeated in one"'):
        built(tmp_path / "c", rows.assign(chosen=rows["prompt"] + rows["chosen"]))


def test_a_transcript_repeated_in_the_completions(tmp_path):
    rows = preferences()
    rows["prompt"] = [f"\n\nHuman: what is {i} plus one?\n\nAssistant:" for i in range(40)]
    for side in ("chosen", "rejected"):
        rows[side] = rows["prompt"] + " It is " + rows[side]
    path = tmp_path / "rows.jsonl"
    rows.to_json(path, orient="records", lines=True)
    kind, read = reading.read(path)
    tally = rules.Tally("mine", 0.05, 0.5)
    left = rules.on_texts(read, kind, rules.About(frozenset(), False), tally)
    assert {entry["rule"]: entry["rows"] for entry in tally.found if entry["rows"]} == {"prompt repeated": 40}
    assert left["prompt"].tolist() == rows["prompt"].tolist()
    assert left["chosen"].tolist() == [f"It is good {words(i)}" for i in range(40)]


def test_pairs_that_a_cut_makes_equal(tmp_path):
    with pytest.raises(
        UserError, match=r"max_completion = 60 cuts 240 of 240 completions.*raise max_completion to \d+"
    ):
        built(tmp_path / "a", "equal_when_cut.jsonl")
    with pytest.raises(
        UserError, match=r'120 of 120 rows.*"pairs cut alike".*raise settings.mine.corpus.max_comp'
    ) as told:
        built(tmp_path / "b", "equal_when_cut.jsonl", max_cut=1.0)
    enough = int(str(told.value).rpartition(" ")[2].rstrip("."))
    corpus = built(tmp_path / "c", "equal_when_cut.jsonl", max_completion=enough)
    assert counted(corpus) == {} and len(corpus.pairs) + len(corpus.judge_pairs) == 120


def test_what_a_refused_cut_asks_for_suffices(tmp_path):
    rows = demonstrations(completion=[words(i, 4 + i) for i in range(40)])
    with pytest.raises(UserError, match=r"raise max_completion to \d+ \(to \d+ and none is cut\)") as told:
        built(tmp_path / "a", rows, max_completion=8)
    enough, whole = (int(part.split()[0]) for part in str(told.value).split("to ")[1:3])
    corpus = built(tmp_path / "b", rows, max_completion=enough)
    assert 0 < counted(corpus)["completions cut"] <= 20
    assert counted(built(tmp_path / "c", rows, max_completion=whole)) == {}


def test_a_prompt_that_a_cut_makes_one_of_the_test_split(tmp_path):
    rows = demonstrations(400)
    rows["prompt"] = [f"The same words in front {'a ' * 60} {i} {'b ' * 60}:" for i in range(len(rows))]
    with pytest.raises(UserError, match=r'"prompts cut alike".*raise settings.mine.corpus.max_prompt to \d+'):
        built(tmp_path / "a", rows, max_prompt=30, max_cut=1.0)
    rows.loc[3:, "prompt"] = demonstrations(400)["prompt"][3:]
    split = ["test", "train", "train", "validation", *["train"] * 396]
    corpus = built(tmp_path / "b", rows.assign(split=split), max_prompt=30)
    assert counted(corpus)["prompts cut alike"] == 2
    seen = pd.concat([corpus.demonstrations["prompt_ids"], corpus.prompts.query("split != 'test'")["prompt_ids"]])
    held = corpus.prompts.query("split == 'test'")["prompt_ids"]
    assert not {tuple(ids) for ids in seen} & {tuple(ids) for ids in held}


def test_other_rows_that_say_something_else(tmp_path):
    rows = preferences()
    rows = rows.assign(score_chosen=2.0, score_rejected=[3.0, *[1.0] * 39])
    rows.loc[1, ["chosen", "rejected"]] = ["the same </s>", " the same"]
    rows = pd.concat([rows, rows.tail(3)])
    assert counted(built(tmp_path / "a", rows)) == {
        "special token at an end": 1, "same completions": 1, "scores disagree": 1, "duplicate": 3
    }  # fmt: skip
    wordless = demonstrations()
    wordless.loc[0, "completion"] = "?!"
    wordless.loc[1, "completion"] = "<|endoftext|> "
    assert counted(built(tmp_path / "b", wordless)) == {"special token at an end": 1, "nothing left": 1, "no words": 1}


CHATS = ["chat_explicit", "chat_implicit", "chat_many_turns", "string_prompt_chat_answers"]


@pytest.mark.parametrize("name", CHATS)
def test_conversations_ask_for_the_chat_template_of_a_model(tmp_path, name):
    with pytest.raises(UserError, match=r"holds conversations, which the chat template of a model frames: ") as told:
        built(tmp_path, f"{name}.jsonl")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", CHATS)
def test_conversations_are_learned_from_as_a_model_s_template_frames_them(tmp_path, name):
    byte_level(("<|im_start|>", "<|im_end|>", "</s>"), template=CHATML).save_pretrained(tmp_path / "model")
    corpus = built(tmp_path, f"{name}.jsonl", tokenizer="model", max_prompt=400, max_completion=200)
    assert counted(corpus).keys() <= {"duplicate"} and corpus.tokenizer.eos_token == "<|im_end|>"
    prompts = corpus.tokenizer.batch_decode(list(corpus.prompts["prompt_ids"]))
    turns = {"chat_explicit": 3, "chat_many_turns": 4}.get(name, 2)  # the answer's is one of them, and is to come
    assert {text.count("<|im_start|>") for text in prompts} == {turns}
    assert all(text.endswith("<|im_end|>\n<|im_start|>assistant\n") for text in prompts)
    for side in ("chosen", "rejected"):
        for pairs in (corpus.pairs, corpus.judge_pairs):
            assert corpus.tokenizer.batch_decode(list(pairs[f"{side}_ids"])) == [f"{t}<|im_end|>" for t in pairs[side]]


def test_transcripts_are_taken_apart(tmp_path):
    corpus = built(tmp_path, "implicit_prompt.jsonl")
    assert counted(corpus) == {"prompt ends earlier": 5}  # pairs whose answers begin alike
    assert corpus.prompts["prompt"].str.endswith("\n\nAssistant:").all()
    assert len(corpus.pairs) + len(corpus.judge_pairs) == 120


def test_dirty_rows_are_counted(tmp_path):
    assert counted(built(tmp_path, "dirty.jsonl")) == {"empty": 2, "tie": 1, "duplicate": 1}


BAD = {"prompt": "p", "chosen": "c", "rejected": "r"}
FAULTS = [
    ("empty", {"chosen": None}, "rows.jsonl, row 41: prompt 'p', chosen None, rejected 'r'"),
    ("empty", {"prompt": " \n"}, "prompt"),
    ("not text", {"chosen": 5}, "chosen 5"),
    ("not text", {"rejected": ["r"]}, "rejected"),
    ("half a character", {"rejected": "r\ud800"}, r"'r\ud800'"),
    ("labelled bad", {"preferred": "second"}, "preferred 'second'"),
    ("tie", {"rejected": "c "}, "chosen 'c'"),
    ("tie", {"score_chosen": 2, "score_rejected": 2.0}, "chosen 'c'"),
    ("no number as score", {"score_chosen": "NaN", "score_rejected": 2}, "chosen"),
    ("no strength", {"sure": "very"}, "chosen"),
    ("no strength", {"sure": 0}, "chosen"),
    ("no strength", {"sure": -1.5}, "chosen"),
    ("prompt in two splits", {"prompt": "describe  SCENE number\u200b 3:", "split": "train_prefs"}, "chosen 'c'"),
]


@pytest.mark.parametrize(
    ("rule", "changes", "example"), FAULTS, ids=[f"{rule}-{next(iter(c))}" for rule, c, _ in FAULTS]
)
def test_each_kind_of_dirt_is_counted_dropped_and_refused_where_there_is_too_much(tmp_path, rule, changes, example):
    good = preferences().assign(split="test_prefs", preferred="first", score_chosen=3, score_rejected=1, sure=2.5)
    rows = [*good.to_dict("records"), {**good.iloc[0], **BAD, **changes}]

    tally = rules.Tally("mine", 0.05, 0.5)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row, default=int)}\n" for row in rows))
    kind, read = reading.read(path, strength=["sure"])
    left = rules.on_texts(read, kind, rules.About(frozenset(), False), tally)
    (entry,) = [entry for entry in tally.found if entry["rows"]]
    assert (entry["rule"], entry["rows"], entry["of"], len(left)) == (rule, 1, 41, 40)
    assert example in entry["examples"][0] and left["strength"].tolist() == [2.5] * 40
    with pytest.raises(UserError, match=rf'1 of 41 rows .*max_dropped = 0\.02: 1 by the rule "{rule}"') as told:
        rules.on_texts(read, kind, rules.About(frozenset(), False), rules.Tally("mine", 0.02, 0.5))
    assert "\n" not in str(told.value)


def test_the_strictest_split_keeps_a_prompt(tmp_path):
    rows = demonstrations().assign(split=["test"] * 10 + ["validation"] * 10 + ["train"] * 20)
    again = [rows.iloc[[2]].assign(split=split, completion=split) for split in ("validation", "train")]
    again.append(rows.iloc[[12]].assign(split="train", completion="train"))
    corpus = built(tmp_path, pd.concat([*again, rows]), max_dropped=0.1)
    assert counted(corpus) == {"prompt in two splits": 3}
    split = corpus.prompts.set_index("prompt")["split"]
    assert split[rows["prompt"][2]] == "test" and split[rows["prompt"][12]] == "validation"


@pytest.mark.parametrize(("label", "dropped"), [(False, True), (0, True), ("bad", True), (None, True), (1, False)])
def test_answers_labelled_bad_are_no_demonstrations(tmp_path, label, dropped):
    rows = demonstrations(label=[True] * 39 + [label])
    assert counted(built(tmp_path, rows)) == ({"labelled bad": 1} if dropped else {})


def test_a_set_that_is_half_bad_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r'20 of 40 rows.*"labelled bad".*: pair them as .*, or keep the good ones only'
    ):
        built(tmp_path, demonstrations(label=[True, False] * 20))


@pytest.mark.parametrize("name", ["cyrillic.jsonl", "accents.jsonl"])
def test_words_of_other_scripts_are_compared(tmp_path, name):
    corpus = built(tmp_path, name)
    references = corpus.prompts["reference"].tolist()
    assert rouge.true_reward(references, references).tolist() == [1.0] * len(references)
    others = rouge.true_reward(references, references[1:] + references[:1])
    assert 0 < others.max() < 1 and len(set(others)) > 5


def saved(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict:
    tokenizer.save_pretrained(folder / "model")
    return {"tokenizer": "model"}


def sentencepiece(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """As Llama's: a blank before any text, BOS in front of it, padding with the token for the unknown."""
    tokens = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *vocabulary])}
    inner = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def test_a_tokenizer_with_a_blank_of_its_own(tmp_path):
    """BOS once, one blank between prompt and completion, and padding that no text can hold."""
    rows = demonstrations()
    seen = sorted({f"▁{word}" for text in [*rows["prompt"], *rows["completion"]] for word in text.split()})
    corpus = built(tmp_path, rows, **saved(tmp_path, sentencepiece(["▁", "▁a", *seen])))
    assert_sound(corpus)
    assert corpus.tokenizer.pad_token == "<|padding|>"
    for prompt, completion in corpus.demonstrations[["prompt_ids", "completion_ids"]].itertuples(index=False):
        assert list(prompt).count(1) == 1 and prompt[0] == 1
        assert corpus.tokenizer.decode([*prompt, *completion], skip_special_tokens=True).count("  ") == 0
    assert [text.removesuffix("</s>").strip() for text in written(corpus)] == sorted(
        row["completion"] for _, row in rows.iterrows() if f"<s> {row['prompt']}" in written(corpus, "prompt_ids")
    )


def test_texts_that_a_tokenizer_cannot_write(tmp_path):
    rows = demonstrations()
    seen = sorted({f"▁{word}" for text in [*rows["prompt"], *rows["completion"]] for word in text.split()})
    tokenizer = sentencepiece(["▁", "▁a", *seen])
    rows.loc[0, "completion"] = "unheard words"
    assert counted(built(tmp_path / "a", rows, **saved(tmp_path / "a", tokenizer))) == {"cannot be written": 1}
    rows["completion"] = "слова"
    with pytest.raises(UserError, match=r'40 of 40 rows.*"cannot be written".*import a tokenizer that can write these'):
        built(tmp_path / "b", rows, **saved(tmp_path / "b", tokenizer))


def test_a_special_token_that_is_a_plain_word_is_text(tmp_path):
    """GPT-NeoX-20B's tokenizer has "assistant" as a special token, which decoding leaves out."""
    tokenizer = encoding.train_tokenizer([*demonstrations()["prompt"], *demonstrations()["completion"]], 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["assistant"]})
    rows = demonstrations(completion=[f"my assistant {i}" for i in range(40)])
    corpus = built(tmp_path, rows, **saved(tmp_path, tokenizer))
    assert counted(corpus) == {}
    ids = list(corpus.demonstrations["completion_ids"])
    assert all("assistant" in said for said in corpus.tokenizer.batch_decode(ids, skip_special_tokens=True))
    assert_sound(corpus)


def test_pairs_that_a_cut_makes_the_reverse_of_each_other(tmp_path):
    """They differ as texts, and what is learnt from one is unlearnt from the other."""
    rows = preferences()
    rows = rows.assign(chosen="good " * 60 + rows["chosen"], rejected="bad " * 60 + rows["rejected"])
    turned = rows.iloc[:1].rename(columns={"chosen": "rejected", "rejected": "chosen"})
    turned["chosen"] += " and more"
    cut = {"max_completion": 30, "max_cut": 1.0}
    assert counted(built(tmp_path, pd.concat([rows, turned]), **cut))["both ways round once cut"] == 2


def test_pairs_both_ways_round_are_dropped(tmp_path):
    rows = preferences()
    turned = rows.iloc[:1].rename(columns={"chosen": "rejected", "rejected": "chosen"})
    assert counted(built(tmp_path / "few", pd.concat([rows, turned]))) == {"both ways round": 2}
    blanks = turned.assign(chosen=turned["chosen"] + " ", rejected="\n" + turned["rejected"])
    assert counted(built(tmp_path / "blanks", pd.concat([rows, blanks]))) == {"both ways round": 2}
    again = rows.iloc[:1].assign(chosen=rows["chosen"][0] + "\n")
    assert counted(built(tmp_path / "again", pd.concat([rows, again]))) == {"duplicate": 1}
    every = rows.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    with pytest.raises(UserError, match=r'80 of 80 rows of preferences would be dropped.*the rule "both ways round"'):
        built(tmp_path / "all", pd.concat([rows, every]))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("Label", False),
        ("preferred", "no"),
        ("winner", 1.5),
        ("preference", "second"),
        ("winner", "b"),
        ("winner", 1),
        ("preference", "1"),
    ],
)
def test_rows_whose_label_says_that_the_other_one_is_better_are_dropped(tmp_path, column, value):
    assert counted(built(tmp_path, preferences().assign(**{column: ["first"] * 39 + [value]}))) == {"labelled bad": 1}


@pytest.mark.parametrize(("column", "value"), [("label", 1), ("winner", True), ("preferred", "chosen"), ("margin", 1)])
def test_columns_that_say_the_first_one_is_better_are_passed_over(tmp_path, column, value):
    assert counted(built(tmp_path, preferences().assign(**{column: value}))) == {}


def test_scores_are_found_however_their_names_are_cased(tmp_path):
    scored = preferences().assign(Chosen_Score=1.0, Rejected_Score=[0.0] * 39 + [2.0])
    assert counted(built(tmp_path, scored)) == {"scores disagree": 1}


@pytest.mark.parametrize(
    "names", [("avg_score_chosen", "avg_score_rejected"), ("chosen_score_mean", "rejected_score_mean")]
)
def test_scores_are_found_by_what_was_made_of_several(tmp_path, names):
    scored = preferences().assign(**{names[0]: 1.0, names[1]: [0.0] * 39 + [2.0]})
    assert counted(built(tmp_path, scored)) == {"scores disagree": 1}


def test_of_several_scores_none_may_disagree(tmp_path):
    scored = preferences().assign(score_chosen=2, score_rejected=1, rating_chosen=3, rating_rejected=[1] * 38 + [3, 4])
    assert counted(built(tmp_path, scored)) == {"scores disagree": 1}


def test_groups_may_be_numbers(tmp_path):
    rows = preferences().assign(topic=[i % 10 for i in range(40)])
    assert counted(built(tmp_path / "a", rows, group="topic")) == {}
    rows["topic"] = [None, *(str(i % 10) for i in range(39))]
    assert counted(built(tmp_path / "b", rows, group="topic")) == {"no group": 1}


def test_scores_are_found_in_one_column_of_two(tmp_path):
    scores = [{"chosen": 1.0, "rejected": 2.0 if row == 39 else 0.0} for row in range(40)]
    assert counted(built(tmp_path, preferences().assign(scores=scores))) == {"scores disagree": 1}


def test_remarks_on_scores_are_no_scores(tmp_path):
    remarks = preferences().assign(chosen_rating_text="5 of 5, clear", rejected_rating_text="2 of 5, vague")
    assert counted(built(tmp_path, remarks)) == {}


def test_scores_are_numbers_in_whatever_way_they_are_written(tmp_path):
    scored = preferences().assign(score_chosen="5", score_rejected=["1"] * 39 + ["7"])
    assert counted(built(tmp_path / "text", scored)) == {"scores disagree": 1}
    for number, wrong in enumerate(["many", [1]]):
        scored = preferences().assign(score_chosen=[5] * 39 + [wrong], score_rejected=1)
        assert counted(built(tmp_path / str(number), scored)) == {"no number as score": 1}


def test_what_nobody_sees_makes_no_other_word():
    assert rouge.words("co\u00adoperate me\u200bans") == ["cooperate", "means"]
    assert rouge.words("می\u200cخواهم") == rouge.words("میخواهم")
