"""`roads new NAME --data SOURCE`: a study of a person's own data and model, with sizes that fit, in one command.

It reads the data once, measures how long texts are, chooses sizes (flows/fitting.py), writes them into
studies/NAME.yaml beside the reason for each, and imports data and model. The file begins as that of a study with the
same kind of data, so that whoever knows one knows the other.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from flows import fitting, importing, sources
from flows.fitting import Choice, Costs, Lengths, Size
from flows.timings import clock
from stages.records import plain, reading
from stages.records.errors import UserError
from stages.records.settings import NAME

LIKE = {"preferences": "ukp", "demonstrations": "tldr"}  # a study with such data, as which a new one begins
GROUPED = ("group", "group_until")  # what only the data of that study have
OURS = {"learning_rate": 2.0e-5, "beta": 0.1}  # of a model that was brought, until it is tuned


class Given(NamedTuple):
    """What a person brings, read."""

    data: sources.Found
    kind: str
    rows: list[dict]
    model: sources.Found | None

    @property
    def fit(self) -> list[dict]:
        return [row for row in self.rows if "fault" not in row]

    @property
    def prompts(self) -> int:
        """Different ones."""
        return len({row["key"] for row in self.fit})


def start(
    name: str,
    data: str,
    model: str = "",
    root: Path = Path("."),
    config: str = "",
    split: str = "",
    licence: str = "",
    origin: str = "",
) -> list[str]:
    """Write studies/<name>.yaml, import data and model for it, and say what was chosen and why, how long stages take,
    and what comes next.

    Raises UserError for a name that is taken or is none, and for what is wrong with the data or the model; then nothing
    has changed.
    """
    _refuse_taken(name, root)
    with importing.scratch(root, data) as folder:
        given = _read(data, model, folder, config, split)
        found, choices, costs = _fitted(name, given, _tokenizer(given), root)
        with _written(name, given.kind, choices, root):
            said = [importing.place(given.model, name, folder, root)] if given.model else []
            rows = (given.kind, given.rows)
            said.append(importing.place(given.data, name, folder, root, licence, origin, known_rows=rows))
    times = ", ".join(f"{stage} {clock(seconds)}" for stage, seconds in fitting.durations(found, costs).items())
    return [
        *said,
        f"studies/{name}.yaml begins as studies/{LIKE[given.kind]}.yaml; chosen for this data, model and machine:",
        *(f"  {one.key}: {plain.flow(one.value)}  # {one.why}" for one in choices),
        f"One seed takes roughly, in one thread: {times} (offline, online and evaluate: for one arm).",
        f"Next: `roads advise {name}` says from reward models and samples whether going online may pay; `roads run "
        f"--study {name}` trains every road.",
    ]


def _refuse_taken(name: str, root: Path) -> None:
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} is no name of a study: use letters, digits and _ alone.")
    known = set(plain.read(root / plain.PARAMS)["settings"])
    for path in sorted((root / plain.STUDIES).glob("*.yaml")):
        known |= {path.stem, *plain.read(path).get("settings", {})}
    there = importing.INPUTS / name
    if name in known or (root / there).exists() or (root / f"{there}.dvc").exists():
        raise UserError(f"There is a study, a setting or a {there} of the name {name}: choose another, or remove it.")


def _read(data: str, model: str, folder: Path, config: str, split: str) -> Given:
    brought = None
    if model:
        brought = sources.found(model, folder / "model", "", "")
        if not (brought.path / "config.json").exists():
            raise UserError(f"{model} is no model folder (it has no config.json): give one, or the id of a model.")
    found = sources.found(data, folder / "data", config, split)
    kind, rows = importing.read_rows(found)
    given = Given(found, kind, rows, brought)
    if not given.fit:
        raise UserError(f"{data} has no row that is fit to be learnt from: {rows[0]['where']} has {rows[0]['shown']}.")
    if any(row["before"] is not None for row in given.fit) and not model:
        raise UserError(f"{data} holds conversations, which the chat template of a model frames: say --model FOLDER.")
    return given


def _tokenizer(given: Given) -> Any:
    """That of the model, or one that is trained on some of the texts, to measure how long they are."""
    from stages.worlds import encoding, tokens

    if given.model:
        chat = given.fit[0]["before"] is not None
        return tokens.tokenizer_for_chat(given.model.path) if chat else encoding.load_tokenizer(given.model.path)
    some = given.fit[:: math.ceil(len(given.fit) / fitting.LOOKED_AT)]
    return encoding.train_tokenizer([text for row in some for text in (row["prompt"], *_answers(row))], _entries(given))


def _answers(row: dict) -> list[str]:
    from stages.worlds.inputs import ANSWERS

    return [row[column] for column in ANSWERS if column in row]


def _entries(given: Given) -> int:
    """The size of a vocabulary to train: more texts support more entries."""
    return 4096 if len(given.fit) > 5000 else 2048


def _fitted(name: str, given: Given, tokenizer: Any, root: Path) -> tuple[dict[str, Any], list[Choice], Costs]:
    """The setting with what was chosen for it, the choices, and what its costs go by."""
    from stages.worlds.tokens import Asked

    like = plain.read(root / plain.STUDIES / f"{LIKE[given.kind]}.yaml")["settings"][LIKE[given.kind]]
    some = given.fit[:: math.ceil(len(given.fit) / fitting.LOOKED_AT)]
    long = fitting.lengths([(Asked(row["prompt"], row["before"]), _answers(row)) for row in some], tokenizer)
    choices = [*_texts(given, long), *_splits(given)]
    chosen = {one.key: one.value for one in choices}
    if given.model:
        size = fitting.of_model(given.model.path)
    else:
        size = fitting.of_network(like["base"]["model"], _entries(given))
    choices += _training(name, given, size, chosen)
    found = {section: {**values} if isinstance(values, dict) else values for section, values in like.items()}
    for key, value, _ in choices:
        section, _, rest = key.partition(".")
        if "." not in rest:
            found[section][rest] = value
    used = round(given.prompts * found["corpus"]["used"])
    others = round(used * (found["corpus"]["test"] + found["corpus"]["validation"]))
    judged = round(len(given.fit) * found["corpus"]["used"] * found["corpus"]["judge"])
    train = used - others - round(used * max(found["corpus"]["judge"], found["corpus"]["demonstrations"]))
    prompt, completion = (
        fmean(min(length, chosen[f"corpus.max_{what}"]) for length in lengths)
        for what, lengths in (("prompt", long.prompts), ("completion", long.completions))
    )
    return found, choices, Costs(size, prompt, completion, train, others, judged, fitting.speed())


def _texts(given: Given, long: Lengths) -> list[Choice]:
    """How texts become tokens, and how many of these there may be."""
    if given.model:
        found = [Choice("corpus.tokenizer", "model", "that of the model")]
    else:
        found = [Choice("corpus.tokenizer", _entries(given), f"entries to train, for {len(given.fit):,} rows")]
    cut = []
    for key, lengths in (("max_prompt", long.prompts), ("max_completion", long.completions)):
        most = fitting.longest(lengths, fitting.MOST[key])
        cut.append(fitting.too_long(lengths, most))
        found.append(Choice(f"corpus.{key}", most, f"tokens; {cut[-1]:.1%} are longer, the longest {lengths[-1]:,}"))
    allowed = min(1.0, math.ceil(100 * max(cut) + 2) / 100)
    return [*found, Choice("corpus.max_cut", allowed, "share of prompts, and of answers, that may be longer")]


def _splits(given: Given) -> list[Choice]:
    """Which prompts learn and which measure; of many prompts, a share is used at all."""
    wanted = fitting.PAIRS + fitting.TEST + fitting.VALIDATION
    judge = given.kind == "preferences"
    wanted = math.ceil(wanted / (1 - fitting.JUDGE)) if judge else 2 * wanted
    used = min(1.0, math.ceil(1000 * wanted / given.prompts) / 1000)
    prompts = max(1, round(used * given.prompts))
    brought = sorted({row["split"] for row in given.rows} - {"train"})
    found = [Choice("corpus.used", used, f"share of the {given.prompts:,} prompts; all take longer")]
    for split, number in (("validation", fitting.VALIDATION), ("test", fitting.TEST)):
        why = f"share of the prompts, {number} if there are enough"
        if split in brought:
            why = "not used: the data bring their own"
        found.append(Choice(f"corpus.{split}", fitting.share(number, prompts, 0.2 if split == "test" else 0.1), why))
    if judge:
        found.append(Choice("corpus.judge", fitting.JUDGE, "share of the prompts whose pairs train the judge"))
        found.append(Choice("corpus.demonstrations", 0.0, "preferences alone: the base policy learns all answers"))
    else:
        found.append(Choice("corpus.judge", 0.0, "ROUGE-L needs none"))
        found.append(Choice("corpus.demonstrations", 0.5, "share of the prompts that the base policy learns from"))
    return found


def _training(name: str, given: Given, size: Size, chosen: dict[str, Any]) -> list[Choice]:
    """How much is learnt from, in what pieces, and at which rates."""
    apart = max(chosen["corpus.judge"], chosen["corpus.demonstrations"])
    held = chosen["corpus.test"] + chosen["corpus.validation"] + apart
    prompts = given.prompts * chosen["corpus.used"]
    per_prompt = len(given.fit) / given.prompts if given.kind == "preferences" else 1
    pairs = max(16, min(fitting.PAIRS, round(prompts * (1 - held) * per_prompt)))
    steps = max(10, min(fitting.STEPS, pairs // 16))
    tokens = chosen["corpus.max_prompt"] + chosen["corpus.max_completion"]
    batch = fitting.at_once(size, tokens, 16)
    once = "the whole batch" if batch == 0 else "what fits into half of the memory"
    found = [
        Choice("preferences.pairs", pairs, "labelled pairs to learn from"),
        Choice("offline.steps", steps, f"once through them, at most {fitting.STEPS}"),
        Choice("online.steps", steps, "as many"),
        Choice("compute.device_batch", batch, f"pairs in one backward pass: {once}"),
        Choice("sample.completions", 16, "per prompt, for best-of-n and for the first round"),
    ]
    if given.model:
        rate = OURS["learning_rate"]
        rewards = {"learning_rate": rate, "epochs": 1, "batch": 16}
        if given.kind == "preferences":
            found.append(Choice("base.judge", rewards, "as the reward models"))
        found += [
            Choice("base.model", f"data/inputs/{name}/model", f"{size.parameters / 1e6:,.0f} M parameters"),
            Choice("base.steps", min(fitting.STEPS, 100), "optimisation steps, from a model that is trained already"),
            Choice("base.learning_rate", rate, "a common rate for supervised fine-tuning; not tuned"),
            Choice("verifiers.global", rewards, "reward models, at one rate; not tuned"),
            Choice("verifiers.local", {**rewards, "beta": OURS["beta"]}, "its reward is beta x log(policy / base)"),
            Choice("offline.learning_rate", rate / 4, "not tuned"),
            Choice("offline.beta", OURS["beta"], "TRL's default; not tuned"),
            Choice("online.learning_rate", rate / 4, "not tuned"),
            Choice("online.beta", OURS["beta"], "TRL's default; not tuned"),
        ]
    return found


@contextlib.contextmanager
def _written(name: str, kind: str, choices: list[Choice], root: Path) -> Iterator[None]:
    """studies/<name>.yaml, for good if the block succeeds; if not, it and what was imported for it are gone."""
    path, inputs = root / plain.STUDIES / f"{name}.yaml", root / importing.INPUTS
    ignored = inputs / ".gitignore"
    before = ignored.read_text() if ignored.exists() else None
    try:
        path.write_text(_text(name, kind, choices, root), encoding="utf-8")
        reading.prepare(name, root)
        yield
    except BaseException:  # Ctrl-C too
        path.unlink(missing_ok=True)
        shutil.rmtree(inputs / name, ignore_errors=True)
        (inputs / f"{name}.dvc").unlink(missing_ok=True)
        if before is None:
            ignored.unlink(missing_ok=True)
        else:
            ignored.write_text(before)
        raise


def _text(name: str, kind: str, choices: list[Choice], root: Path) -> str:
    """The file of the study, line by line that of a study with such data; what was chosen has its reason as comment."""
    old, chosen, path, seen = LIKE[kind], {one.key: one for one in choices}, [], set()
    lines = []
    for line in (root / plain.STUDIES / f"{old}.yaml").read_text(encoding="utf-8").splitlines():
        if not (found := re.match(r"( *)(\w+):", line)):
            if not line.startswith("#"):
                lines.append(line)
            continue
        indent, key = found.groups()
        path = [*path[: len(indent) // 2], key]
        at = ".".join(path[2:])
        if path[0] == "settings" and len(path) == 2:
            lines.append(f"{indent}{name}:")
        elif path == ["study", "settings"]:
            lines.append(f"{indent}settings: [{name}]")
        elif path[0] == "settings" and at in chosen:
            seen.add(at)
            lines.append(f"{indent}{key}: {plain.flow(chosen[at].value)}  # {chosen[at].why}")
        elif not (path[:1] == ["settings"] and key in GROUPED):
            lines.append(line)
    for one in chosen.values():  # what the other study does not say
        if one.key not in seen:
            section, key = one.key.split(".")
            place = lines.index(f"    {section}:") + 1
            lines.insert(place, f"      {key}: {plain.flow(one.value)}  # {one.why}")
    header = f"# Written by `roads new {name}`, from studies/{old}.yaml; change what you like.\n"
    return header + "\n".join(lines) + "\n"
