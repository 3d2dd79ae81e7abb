"""Token ids of prompts and completions are those of TRL's own DPO trainer, for every kind of tokenizer.

One of them is real: Pythia's, where ../shared has it. The others are trained here, each for one trait.
"""

import json
import string
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from stages.records.errors import UserError
from stages.worlds import encoding, forms, tokens
from stages.worlds.tokens import Asked

CASES = Path(__file__).parent / "cases"
PYTHIA = Path(__file__).parents[2] / "shared/data/gpt_neox_20b_tokenizer.json"
SAID = [
    "Describe the timber meadow, the pepper and the number 0.", "lantern orchard bridge copper glacier", "And then?",
    "You answer briefly.", "naïve café straße łódź", "Опиши фонарь", "SUBREDDIT: r/x\nPOST: a b c\n\nTL;DR:",
]  # fmt: skip
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MANY = (  # a turn ends in three tokens, of which the second is no special one
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]:\n{{ message['content'] | trim }}<|a|>\n<|b|>"
    "{% endfor %}{% if add_generation_prompt %}[assistant]:\n{% endif %}"
)
WORDED = (  # a turn ends in words
    "{% for message in messages %}### {{ message['role'] }}\n{{ message['content'] }}\n### end\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)
THOUGHT = (  # what is asked to go on ends otherwise than what went on
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<|thought|>\n{% endif %}"
)


def trained(model, trainer, special=(), template=None, eos=None, pad=None, bos=None, unk=None, **parts):
    """A tokenizer of these parts, trained on a few sentences."""
    made = Tokenizer(model)
    for name, part in parts.items():
        setattr(made, name, part)
    made.train_from_iterator(SAID * 3, trainer)
    if special:
        made.add_special_tokens([*special])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, pad_token=pad, bos_token=bos, unk_token=unk)
    fast.chat_template = template
    return fast


def byte_level(special=("</s>",), eos="</s>", size=420, **more):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    return trained(
        models.BPE(), trainer, special, eos=eos, decoder=decoders.ByteLevel(),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False), **more,
    )  # fmt: skip


def unigram(**more):
    trainer = trainers.UnigramTrainer(
        vocab_size=250, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False,
        initial_alphabet=[*string.printable],
    )  # fmt: skip
    made = trained(
        models.Unigram(), trainer, ("<s>", "</s>"), eos="</s>", bos="<s>", unk="<unk>",
        pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace(), **more,
    )  # fmt: skip
    number = made.convert_tokens_to_ids("<s>")
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", number)]
    )
    return made


def word_piece(**more):
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    made = trained(
        models.WordPiece(unk_token="[UNK]"), trainer, eos="[SEP]", unk="[UNK]", decoder=decoders.WordPiece(),
        normalizer=normalizers.BertNormalizer(), pre_tokenizer=pre_tokenizers.BertPreTokenizer(), **more,
    )  # fmt: skip
    numbers = [(token, made.convert_tokens_to_ids(token)) for token in special[1:]]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=numbers
    )
    return made


def of_trl(tokenizer, rows: list[dict]) -> list[dict]:
    """What TRL's DPO trainer makes of such rows."""
    config = SimpleNamespace(**{**DPOConfig(bf16=False).__dict__, "max_length": None, "dataset_num_proc": None})
    made = DPOTrainer._prepare_dataset(
        SimpleNamespace(_tokenizer=tokenizer), Dataset.from_list(rows), tokenizer, config, "train"
    )
    return [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in made]


def ours(tokenizer, prompts: list[Asked], chosen: list[str], rejected: list[str]) -> list[dict]:
    written = tokens.encode_prompts(tokenizer, prompts, 500)
    answers = [tokens.encode_completions(tokenizer, prompts, texts, 500) for texts in (chosen, rejected)]
    assert not [one for encoded in (written, *answers) for one in encoded if one.fault]
    return [
        {"prompt_ids": p.ids.tolist(), "chosen_ids": c.ids.tolist(), "rejected_ids": r.ids.tolist()}
        for p, c, r in zip(written, *answers)
    ]


PLAIN = {
    "a byte-level BPE without BOS": byte_level,
    "pad is EOS": lambda: byte_level(pad="</s>"),
    "a Unigram with a blank before each text, and BOS": unigram,
    "a WordPiece with a frame": word_piece,
    "real: Pythia's": lambda: encoding.load_tokenizer(PYTHIA),
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("apart", ["", "\n", "\n\n"])
def test_plain_texts_are_what_trl_makes_of_them(kind, apart):
    if kind.startswith("real") and not PYTHIA.exists():
        pytest.skip("no ../shared here, which has Pythia's tokenizer")
    tokenizer = PLAIN[kind]()
    asked, chosen, rejected = [SAID[0] + apart, SAID[6] + apart], [SAID[1], SAID[2]], [SAID[3], SAID[1]]
    rows = [
        {"prompt": text, **{name: ("" if apart else " ") + answer for name, answer in (("chosen", c), ("rejected", r))}}
        for text, c, r in zip(asked, chosen, rejected)
    ]
    theirs = of_trl(tokenizer, rows)
    if kind == "a WordPiece with a frame":  # TRL has EOS twice: its own, and the frame's end
        for row in theirs:
            assert all(row[name][-2:] == [tokenizer.eos_token_id] * 2 for name in ("chosen_ids", "rejected_ids"))
            row.update({name: row[name][:-1] for name in ("chosen_ids", "rejected_ids")})
    mine = ours(tokenizer, [Asked(text) for text in asked], chosen, rejected)
    assert mine == theirs
    if not apart:  # a blank at a prompt's end is the answer's, as most tokenizers join it with the word behind it
        assert ours(tokenizer, [Asked(f"{text} ") for text in asked], chosen, rejected) == mine


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind != "a WordPiece with a frame"])
def test_code_keeps_its_indentation_as_in_trl(kind):
    if kind.startswith("real") and not PYTHIA.exists():
        pytest.skip("no ../shared here, which has Pythia's tokenizer")
    tokenizer = PLAIN[kind]()
    code = {"prompt": "def f(x):\n", "chosen": "    return x", "rejected": "    pass  "}
    found = forms.of_row(code, "preferences", False)
    (mine,) = ours(tokenizer, [Asked(found["prompt"])], [found["chosen"]], [found["rejected"]])
    (theirs,) = of_trl(tokenizer, [code | {"rejected": "    pass"}])
    for side in ("chosen_ids", "rejected_ids"):
        assert tokenizer.decode(mine["prompt_ids"] + mine[side]) == tokenizer.decode(
            [*tokenizer(code["prompt"] + code[side[:-4]].rstrip()).input_ids, tokenizer.eos_token_id]
        )
    assert len(mine["chosen_ids"]) >= len(theirs["chosen_ids"]), "where TRL cuts within a token, nothing is lost"


CHATS = {
    "ChatML": lambda: byte_level(("<|im_start|>", "<|im_end|>", "</s>"), template=CHATML),
    "ChatML, pad is a turn's end": lambda: byte_level(
        ("<|im_start|>", "<|im_end|>", "</s>"), pad="<|im_end|>", template=CHATML),
    "ChatML, pad is EOS": lambda: byte_level(("<|im_start|>", "<|im_end|>"), "<|im_end|>", pad="<|im_end|>",
                                             template=CHATML),
    "a turn ends in several tokens": lambda: byte_level(("<|a|>", "<|b|>", "</s>", "<s>"), bos="<s>", template=MANY),
    "a turn ends in words": lambda: byte_level(template=WORDED),
    "what is asked to go on ends otherwise": lambda: byte_level(("<|im_start|>", "<|im_end|>", "<|thought|>", "</s>"),
                                                                template=THOUGHT),
    "a Unigram with a blank before each text": lambda: unigram(template=CHATML.replace("<|im_end|>", "</s>")),
}  # fmt: skip


@pytest.fixture(params=CHATS)
def chat(request, tmp_path):
    """A tokenizer with a chat template, as its folder gives it."""
    CHATS[request.param]().save_pretrained(tmp_path)
    return tokens.tokenizer_for_chat(tmp_path)


def test_conversations_are_what_trl_makes_of_them_up_to_the_end_of_the_turn(chat):
    rows = [json.loads(line) for line in (CASES / "chat_many_turns.jsonl").read_text().splitlines()]
    rows += [json.loads(line) for line in (CASES / "chat_explicit.jsonl").read_text().splitlines()]
    prompts = [
        Asked(r["prompt"][-1]["content"], tuple((m["role"], m["content"]) for m in r["prompt"][:-1])) for r in rows
    ]
    chosen, rejected = ([row[name][0]["content"] for row in rows] for name in ("chosen", "rejected"))
    eos = chat.eos_token_id
    for mine, theirs in zip(ours(chat, prompts, chosen, rejected), of_trl(chat, rows)):
        assert mine["prompt_ids"] == theirs["prompt_ids"]
        for name in ("chosen_ids", "rejected_ids"):
            behind = [*theirs[name], eos]  # of a template that ends its turns without a special token
            assert mine[name] == behind[: behind.index(eos) + 1]
            assert mine[name].count(eos) == 1 and chat.pad_token_id not in mine[name]


def test_a_blank_at_the_end_of_a_template_is_the_answer_s():
    """As in "[/INST] ": a tokenizer joins it with the word behind it, and then no token ends where the prompt does."""
    tokenizer = byte_level(
        ("<|im_start|>", "<|im_end|>"), "<|im_end|>", template=CHATML.replace("nt\n{% e", "nt: {% e")
    )
    tokenizer.chat_template = tokenizer.chat_template.replace("['role'] }}\n", "['role'] }}: ")
    said = {"prompt": ("user", SAID[0]), "chosen": ("assistant", SAID[1]), "rejected": ("assistant", SAID[2])}
    rows = [{name: [{"role": role, "content": content}] for name, (role, content) in said.items()}]
    (mine,), (theirs,) = ours(tokenizer, [Asked(SAID[0], ())], [SAID[1]], [SAID[2]]), of_trl(tokenizer, rows)
    assert tokenizer.decode(mine["prompt_ids"]).endswith("<|im_start|>assistant:")
    for name in ("chosen_ids", "rejected_ids"):
        together = theirs["prompt_ids"] + theirs[name]
        assert (
            mine["prompt_ids"] + mine[name] == together[: len(together) - together[::-1].index(tokenizer.eos_token_id)]
        )


def test_a_turn_s_end_is_eos(tmp_path):
    ends = {}
    for name, make in CHATS.items():
        make().save_pretrained(tmp_path / name)
        tokenizer = tokens.tokenizer_for_chat(tmp_path / name)
        ends[name] = tokenizer.eos_token
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert ends == {
        "ChatML": "<|im_end|>",
        "ChatML, pad is a turn's end": "<|im_end|>",
        "ChatML, pad is EOS": "<|im_end|>",
        "a turn ends in several tokens": "<|a|>",
        "a turn ends in words": "</s>",
        "what is asked to go on ends otherwise": "<|im_end|>",
        "a Unigram with a blank before each text": "</s>",
    }


def test_without_a_chat_template_a_conversation_is_refused(tmp_path):
    byte_level().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no chat template that can frame a conversation"):
        tokens.tokenizer_for_chat(tmp_path)


def test_a_conversation_loses_old_turns_then_the_middle_of_its_last_message(chat):
    before = (
        ("system", "Be brief."),
        ("user", SAID[0]),
        ("assistant", SAID[1]),
        ("user", SAID[2]),
        ("assistant", SAID[3]),
    )
    asked = Asked(" ".join([SAID[0]] * 5), before)
    (whole,) = tokens.encode_prompts(chat, [asked], 1000)
    (without,) = tokens.encode_prompts(chat, [asked._replace(before=before[:1])], 1000)
    (shorter,) = tokens.encode_prompts(chat, [asked], len(without.ids))
    assert shorter.ids.tolist() == without.ids.tolist() and shorter.length == len(whole.ids) == whole.length
    (cut,) = tokens.encode_prompts(chat, [asked], len(without.ids) - 15)
    assert len(cut.ids) == len(without.ids) - 15 and cut.fault is None
    kept, full = cut.ids.tolist(), without.ids.tolist()
    same = next(n for n, (one, other) in enumerate(zip(kept, full)) if one != other)
    assert kept == full[:same] + full[same + 15 :]
    text = chat.decode(full)
    assert chat.decode(full[:same]).count("number") >= 1 and text.endswith(chat.decode(full[-3:]))
    (no_room,) = tokens.encode_prompts(chat, [asked], 6)
    assert no_room.fault == "framed" and len(no_room.ids) == 6


def test_what_a_message_spells_out_is_no_token():
    tokenizer = CHATS["ChatML"]()
    spelled = [
        Asked("go on<|im_end|>", ()),
        Asked("go on", (("user", "a<|im_start|>"), ("assistant", "b"))),
        Asked("go", ()),
    ]
    assert [one.fault for one in tokens.encode_prompts(tokenizer, spelled, 100)] == ["special", "special", None]
    answers = tokens.encode_completions(tokenizer, spelled[2:] * 2, ["yes<|im_end|>", "yes"], 100)
    assert [one.fault for one in answers] == ["special", None]


def test_a_token_that_reaches_from_the_prompt_into_the_answer_is_a_fault():
    tokenizer = byte_level()
    tokenizer.add_tokens(["0. lan"])
    asked = [Asked(SAID[0])] * 2
    assert [one.fault for one in tokens.encode_completions(tokenizer, asked, [SAID[1], SAID[2]], 100)] == [
        "merged",
        None,
    ]


ALTERNATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SILENT = CHATML.replace(
    "{{ message['content'] }}", "{% if message['role'] != 'system' %}{{ message['content'] }}{% endif %}"
)


@pytest.mark.parametrize(("template", "faulty"), [(ALTERNATE, [False, True, True]), (SILENT, [False, True, False])])
def test_what_a_template_refuses_or_leaves_out_is_a_fault(template, faulty):
    tokenizer = byte_level(("<|im_start|>", "<|im_end|>"), "<|im_end|>", template=template)
    asked = [
        Asked("go on", (("user", "a"), ("assistant", "b"))),
        Asked("go on", (("system", "Be kind."),)),
        Asked("go on", (("user", "a"),)),
    ]
    expected = ["template" if fault else None for fault in faulty]
    assert [one.fault for one in tokens.encode_prompts(tokenizer, asked, 100)] == expected
    assert [one.fault for one in tokens.encode_completions(tokenizer, asked, ["yes"] * 3, 100)] == expected


def test_a_template_that_writes_the_date_writes_the_same_every_day():
    dated = "{% if not date_string %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}\n"
    tokenizer = byte_level(("<|im_start|>", "<|im_end|>"), "<|im_end|>", template=dated + CHATML)
    (prompt,) = tokens.encode_prompts(tokenizer, [Asked("go on", ())], 100)
    assert tokenizer.decode(prompt.ids).startswith("26 Jul 2024\n")


def test_a_cut_conversation_keeps_the_system_messages_in_it(chat):
    before = (("user", SAID[0]), ("assistant", SAID[1]), ("system", SAID[3]), ("user", SAID[2]), ("assistant", "b"))
    (without,) = tokens.encode_prompts(chat, [Asked("go on", before[2:])], 1000)
    (cut,) = tokens.encode_prompts(chat, [Asked("go on", before)], len(without.ids))
    assert cut.ids.tolist() == without.ids.tolist()
