"""Text worlds: the true reward, splits that nothing moves, prompts cut in the middle, a tokenizer that never varies."""

import hashlib
import random
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from stages.records.errors import UserError
from stages.worlds import corpora, encoding, rouge, text, tokens
from stages.worlds.tokens import Asked

ROOT = Path(__file__).parents[1]
WORDS = "the cat sat on a mat and saw that no dog would ever come near its warm place again".split()


def post(i: int, words: int = 30) -> str:
    rng = random.Random(i)
    return f"TITLE: number {i}\n\nPOST: {' '.join(rng.choices(WORDS, k=words))}\n\nTL;DR:"


def summaries(count: int) -> pd.DataFrame:
    said = [" ".join(random.Random(-i).choices(WORDS, k=3 + i % 12)) for i in range(count)]
    return pd.DataFrame({"prompt": [post(i) for i in range(count)], "completion": said})


def comparisons(prompts: int, topics: int, first: int = 0) -> pd.DataFrame:
    rows = [
        (post(i), f"good {i} {j}", f"bad {i} {j}", f"debate {i % topics}_{'pro' if i % 4 < 2 else 'contra'}")
        for i in range(first, first + prompts)
        for j in range(2)
    ]
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected", "topic"])


def params(**changes) -> text.Options:
    usual = {"world": "text", "reward": "rouge_l", "tokenizer": 400, "max_prompt": 100, "max_completion": 12,
             "demonstrations": 0.4, "validation": 0.2, "test": 0.2}  # fmt: skip
    return text.Options(**usual | changes)


def given(folder: Path, **tables: pd.DataFrame) -> Path:
    for kind, table in tables.items():
        (folder / kind).mkdir(parents=True)
        table.to_json(folder / kind / "rows.jsonl", orient="records", lines=True)
    return folder


def splits(corpus: corpora.Corpus) -> dict[str, str]:
    return dict(zip(corpus.prompts["prompt"], corpus.prompts["split"], strict=True))


def brute_force_lcs(a: list[str], b: list[str]) -> int:
    def in_order(words: tuple, others: list) -> bool:
        rest = iter(others)
        return all(word in rest for word in words)

    return max(n for n in range(len(a) + 1) if any(in_order(c, b) for c in combinations(a, n)))


def test_rouge_l_by_hand():
    references = ["the cat sat on the mat", "police killed the gunman", "A B c", "", "word"]
    completions = ["the cat was on the mat", "The gunman: killed POLICE!", "c b a", "", "..."]
    assert rouge.true_reward(references, completions) == pytest.approx([10 / 12, 4 / 8, 2 / 6, 0, 0])


def test_words_by_unicode():
    same = [("straße", "STRASSE"), ("cafe\u0301", "café"), ("ﬁne Ａｂｃ", "fine abc"), ("ΣΟΦΟΣ", "σοφος"), ("ｶﾞ", "ガ")]
    other = [("straße", "stra e"), ("über", "ber"), ("žena", "ena"), ("фонарь", "якорь"), ("你", "好"), ("كتاب", "قلم")]
    for pairs, reward in ((same, 1), (other, 0)):
        first, second = zip(*pairs)
        assert rouge.true_reward(first, second).tolist() == [reward] * len(pairs)
    assert rouge.words("你好，世界2號 ok") == ["你", "好", "世", "界", "2", "號", "ok"]  # no blanks between words
    assert rouge.words("สวัสดี ๑") == ["ส", "วั", "ส", "ดี", "๑"]  # marks stay with their letter
    assert rouge.words("हिन्दी किताब, ١٢ 한국어") == ["हिन्दी", "किताब", "١٢", "한국어"]
    rng = random.Random(1)
    for _ in range(300):
        ascii_text = "".join(map(chr, rng.choices(range(128), k=60)))
        assert rouge.words(ascii_text) == re.findall(r"[a-z0-9]+", ascii_text.lower())


def test_rouge_l_against_brute_force():
    rng = random.Random(0)
    for _ in range(200):
        a, b = ([rng.choice("abc") for _ in range(rng.randint(1, 8))] for _ in range(2))
        expected = 2 * brute_force_lcs(a, b) / (len(a) + len(b))
        assert rouge.true_reward([" ".join(a)], [" ".join(b)])[0] == pytest.approx(expected)


def test_each_prompt_is_in_one_split_however_the_rows_are_ordered(tmp_path):
    rows = summaries(120)
    doubled = pd.concat([rows, rows.head(20).assign(prompt=lambda t: t["prompt"].str.upper(), completion="again")])
    corpus = text.build(params(), given(tmp_path / "a", demonstrations=doubled), ("here",))
    reordered = given(tmp_path / "b", demonstrations=doubled.sample(frac=1, random_state=1))
    shuffled = text.build(params(), reordered, ("here",))
    more = text.build(params(), given(tmp_path / "c", demonstrations=pd.concat([summaries(160), doubled])), ("here",))

    pd.testing.assert_frame_equal(corpus.prompts, shuffled.prompts)
    pd.testing.assert_frame_equal(corpus.demonstrations, shuffled.demonstrations)
    assert set(splits(corpus).items()) <= set(splits(more).items())
    demonstrated = {corpus.tokenizer.decode(ids).casefold() for ids in corpus.demonstrations["prompt_ids"]}
    completed = {corpus.tokenizer.decode(ids).casefold() for ids in corpus.prompts["prompt_ids"]}
    assert len(demonstrated) + len(completed) == 120 and not demonstrated & completed
    assert set(corpus.prompts["split"]) == {"train", "validation", "test"}
    ids, with_more = (dict(zip(c.prompts["prompt"], c.prompts["prompt_id"], strict=True)) for c in (corpus, more))
    assert len(set(with_more.values())) == len(with_more) and ids.items() <= with_more.items()
    elsewhere = text.build(params(), tmp_path / "a", ("elsewhere",))
    test = [{p.casefold() for p, s in splits(c).items() if s == "test"} for c in (corpus, elsewhere)]
    assert test[0] != test[1]


def test_splits_of_the_data_set_are_kept(tmp_path):
    rows = summaries(60).assign(split=["train"] * 30 + ["valid"] * 15 + ["test"] * 15)
    corpus = text.build(params(), given(tmp_path, demonstrations=rows), ("here",))
    for split, first, last in (("validation", 30, 45), ("test", 45, 60)):
        assert {p for p, s in splits(corpus).items() if s == split} == set(rows["prompt"][first:last])


def test_judge_and_policies_see_different_debates(tmp_path):
    chosen = params(reward="judge", judge=0.4, group="topic", group_until="_")
    rows = comparisons(40, topics=10)
    corpus = text.build(chosen, given(tmp_path, preferences=rows), ("here",))

    topics = dict(zip(rows["chosen"], rows["topic"].str.split("_").str[0]))
    judged = {topics[c] for c in corpus.judge_pairs["chosen"]}
    of = {split: {topics[c] for c in table["chosen"]} for split, table in corpus.pairs.groupby("split")}
    assert [len(judged), *map(len, (of["test"], of["validation"], of["train"]))] == [4, 2, 2, 2]
    assert len(judged.union(*of.values())) == 10
    assert len(corpus.pairs) + len(corpus.judge_pairs) == len(rows)
    shown = corpus.tokenizer.batch_decode(list(corpus.demonstrations["completion_ids"]), skip_special_tokens=True)
    assert {s[1:] for s in shown if "good" in s} == {c for c, t in topics.items() if t in judged | of["train"]}
    assert not set(corpus.judge_pairs["prompt_id"]) & set(corpus.prompts["prompt_id"])


def test_two_data_sets_share_their_held_out_prompts(tmp_path):
    """A post that one data set trains on and the other holds out is held out."""
    demonstrations = summaries(60).assign(split=["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    preferences = comparisons(40, topics=5, first=30).assign(split=["validation"] * 20 + ["train"] * 60)
    chosen = params(reward="judge", judge=0.5)
    corpus = text.build(chosen, given(tmp_path, demonstrations=demonstrations, preferences=preferences), ("here",))

    assert {post(i) for i in range(50, 60)} <= {p for p, s in splits(corpus).items() if s == "test"}
    assert {p for p, s in splits(corpus).items() if s == "train"} == {post(i) for i in range(60, 70)}
    shown = set(corpus.tokenizer.batch_decode(list(corpus.demonstrations["prompt_ids"])))
    whole = tokens.encode_prompts(corpus.tokenizer, [Asked(post(i)) for i in range(30)], 100)
    assert shown == set(corpus.tokenizer.batch_decode([prompt.ids for prompt in whole]))
    pairs = corpus.pairs.merge(corpus.prompts, on="prompt_id", suffixes=("", "_of_prompt"))
    assert len(pairs) == len(corpus.pairs) and (pairs["split"] == pairs["split_of_prompt"]).all()
    assert set(corpus.judge_pairs["chosen"]) <= set(preferences["chosen"][:20])


def test_prompts_are_cut_in_the_middle_and_completions_at_the_end(tmp_path):
    tokenizer = encoding.train_tokenizer([post(i) for i in range(50)], 400)
    long, short, line = post(1, words=200), post(2, words=3), " ".join(WORDS * 9)
    encoded = tokens.encode_prompts(tokenizer, [Asked(text) for text in (long, short, line)], 40)
    cut = [prompt.ids for prompt in encoded]
    assert [len(cut[0]), len(cut[2])] == [40, 40]
    assert [prompt.length for prompt in encoded] == [len(tokenizer(text).input_ids) for text in (long, short, line)]
    decoded = tokenizer.decode(cut[0])
    assert decoded.endswith("\n\nTL;DR:") and long.startswith(decoded.removesuffix("\n\nTL;DR:"))
    assert tokenizer.decode(cut[1]) == short
    assert line.startswith(tokenizer.decode(cut[2][:20])) and line.endswith(tokenizer.decode(cut[2][20:]))

    ids = tokenizer(" a cat").input_ids
    written = tokens.encode_completions(tokenizer, [Asked("a")] * 2, [" a cat\n", "a cat " * 9], len(ids) + 1)
    assert [list(completion.ids) for completion in written] == [
        [*ids, tokenizer.eos_token_id], tokenizer(" a cat a cat").input_ids[: len(ids) + 1]
    ]  # fmt: skip
    assert [completion.length for completion in written] == [len(ids) + 1, 9 * len(ids) + 1]
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_what_a_report_is_told_and_what_has_to_be_imported():
    overlap, judged = text.facts(params()), text.facts(params(reward="judge", judge=0.4))
    assert overlap.truth.startswith("ROUGE-L (F1, 0 to 1)") and judged.truth is None and overlap.high is None
    assert text.needs(params()) == {"demonstrations": ("FILE", "prompt/completion rows")}
    assert text.needs(params(reward="judge", judge=0.4, tokenizer="model")) == {
        "preferences": ("FILE", "prompt/chosen/rejected rows"),
        "model": ("PATH", "a tokenizer.json or model folder"),
    }


def test_the_true_reward_of_a_text_is_its_overlap_with_the_reference(tmp_path):
    corpus = text.build(params(), given(tmp_path, demonstrations=summaries(80)), ("here",))
    asked = corpus.prompts.iloc[:3]
    found = text.reward(corpus, tmp_path, None)(asked, asked["reference_ids"].tolist())
    assert list(found) == [*(name for name, *_ in text.COLUMNS), "true_reward"]
    assert (found["true_reward"] == found["rouge_l"]).all() and found["true_reward"].min() > 0.5


def test_pairs_keep_the_strength_of_their_label_where_columns_are_named_for_it(tmp_path):
    rows = comparisons(40, topics=10).assign(votes_chosen=[3 + i % 3 for i in range(80)])
    rows["votes_rejected"] = 5 - rows["votes_chosen"]
    folder, judged = given(tmp_path, preferences=rows), {"reward": "judge", "judge": 0.4}
    expected = dict(zip(rows["chosen"], rows["votes_chosen"] - rows["votes_rejected"]))
    corpus = text.build(params(**judged, strength=["votes_chosen", "votes_rejected"]), folder, ("here",))
    for pairs in (corpus.pairs, corpus.judge_pairs):
        assert pairs["strength"].tolist() == [expected[chosen] for chosen in pairs["chosen"]]
    assert "strength" not in text.build(params(**judged), folder, ("here",)).pairs
    with pytest.raises(UserError, match="lacks the column surely"):
        text.build(params(**judged, strength="surely"), folder, ("here",))
    for wrong in (["a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="strength"):
            params(strength=wrong)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does ls -a do?", "What does ls -A do?"),
        ("How much is a Masse?", "How much is a Maße?"),
        ("if x:\n    go()\n    stop()", "if x:\n    go()\nstop()"),
    ],
)
def test_prompts_that_only_roles_take_for_one_are_learnt_as_they_are_written(tmp_path, one, other):
    rows = comparisons(40, topics=10)
    mine = [(one, "this", "that", "t"), (other, "that", "this", "t"), (one, "so", "no", "t"), (other, "so", "no", "t")]
    rows = pd.concat([rows, pd.DataFrame(mine, columns=rows.columns)]).assign(split=["test"] * 44 + ["train"] * 40)
    folder = given(tmp_path / "a", preferences=rows)
    shuffled = given(tmp_path / "b", preferences=rows.sample(frac=1, random_state=3))
    corpus = text.build(params(reward="judge", judge=0.3), folder, ("here",))
    again = text.build(params(reward="judge", judge=0.3), shuffled, ("here",))
    pd.testing.assert_frame_equal(corpus.pairs, again.pairs)
    pairs = pd.concat([corpus.pairs, corpus.judge_pairs])
    pairs = pairs[pairs["chosen"].isin(["this", "that", "so"])]
    asked = [corpus.tokenizer.decode(ids) for ids in pairs["prompt_ids"]]
    found = sorted(zip(asked, pairs["chosen"], pairs["rejected"]))
    assert found == sorted(row[:3] for row in mine) and pairs["prompt_id"].nunique() == 1
    assert "both ways round" not in {rule["rule"] for rule in corpus.rules if rule["rows"]}


@pytest.mark.slow
def test_a_corpus_comes_out_the_same_in_every_process(tmp_path):
    given(tmp_path, demonstrations=summaries(80))
    program = f"""
from pathlib import Path
from stages.worlds import text
from tests.test_text import params
out = Path("{tmp_path}") / __import__("sys").argv[1]
out.mkdir()
text.build(params(), Path("{tmp_path}"), ("here",)).save(out)
"""
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, name], cwd=ROOT, check=True)
    one, two = (
        {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and "tokenizer/tokenizer.json" in one and "rules.json" in one and len(one) == 6
    corpus = corpora.load(tmp_path / "one")
    assert corpus.world["eos"] == corpus.tokenizer.eos_token_id and corpus.world["pad"] == corpus.tokenizer.pad_token_id
    unseen = "Zürich \t 雪 ✓"
    assert corpus.tokenizer.decode(corpus.tokenizer(unseen).input_ids) == unseen


def test_a_tokenizer_that_was_given_is_used(tmp_path):
    folder = given(tmp_path, demonstrations=summaries(40))
    encoding.train_tokenizer(summaries(40)["prompt"], 300).backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert len(text.build(params(tokenizer="tokenizer.json"), folder, ("here",)).tokenizer) == 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "judge"}, "holds no preferences"),
        ({"tokenizer": "model"}, "does not exist"),
        ({"validation": 0.0}, "no prompt for validation"),
        ({"group": "topic"}, "lacks the column topic"),
    ],
)
def test_params_that_the_data_cannot_meet(tmp_path, changes, message):
    folder = given(tmp_path / "here", demonstrations=summaries(40))
    with pytest.raises(UserError, match=message):
        text.build(params(**changes), folder, ("here",))
