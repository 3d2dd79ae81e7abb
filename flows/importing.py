"""`roads import SETTING SOURCE`: data, models and tokenizers enter the project here, checked, and in no other way.

    data/inputs/<setting>/demonstrations/   rows with an answer: one file, or <split>-00000-of-00001.<format> and so on
    data/inputs/<setting>/preferences/      rows with a chosen and a rejected answer, in the same way
    data/inputs/<setting>/model/            a causal LM: config.json, safetensors, tokenizer
    data/inputs/<setting>/tokenizer.json    a tokenizer alone

DVC tracks the folder of a setting; git holds only its .dvc file. There, under ``meta: sources:``, stands where each of
the four came from: the name of a file or folder, or a hub id with the commit that was fetched; of a data set of several
files the configuration and splits; the SHA-256; and what the person said of its licence and where it is from.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline.content import differences
from stages.records.artifacts import sha256
from stages.records.errors import UserError

if TYPE_CHECKING:  # it imports pandas, which `roads run` can do without where there is nothing to do
    from flows.sources import Found

INPUTS = Path("data/inputs")
TOKENIZER = "tokenizer.json"


def import_input(
    setting: str,
    source: str,
    root: Path = Path("."),
    licence: str = "",
    origin: str = "",
    config: str = "",
    split: str = "",
) -> str:
    """Check ``source``, put a copy of it below data/inputs/<setting>, let DVC track it, and say what was imported.

    licence, origin: what the person says of them; where that is nothing, what was said of the same bytes before stays.
    config, split: the configuration of a data set in a folder or on the hub, and names of splits with commas between.

    source: a data file, a folder in hub layout or of save_to_disk, a model folder, a tokenizer.json, or the id of a
    data set or model on the Hugging Face hub, as owner/name or owner/name@revision: what is fetched is the commit that
    the revision (else the default branch) stands for now. Data goes through the rules that need no trained tokenizer,
    and what they would do is said. Raises UserError when the setting reads no input, when anything in the source is
    wrong, or when it cannot be stored; what was there before then stays as it was.
    """
    from flows import sources

    _text_corpus(setting, root)
    with scratch(root, source) as folder:
        given = sources.found(source, folder, config, split)
        return place(given, setting, folder, root, licence=licence, origin=origin)


@contextlib.contextmanager
def scratch(root: Path, source: str) -> Iterator[Path]:
    """A folder for what is fetched and copied, gone at the end; what the disk refuses is said in one sentence."""
    (root / ".roads").mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root / ".roads", prefix="import-") as folder:
            yield Path(folder)
    except OSError as error:
        what = "no disk space left" if error.errno == errno.ENOSPC else f"{error.filename}: {error.strerror}"
        raise UserError(f"{source} was not imported, nothing changed ({what}): put it right and try again.") from error


def place(
    given: Found,
    setting: str,
    folder: Path,
    root: Path,
    licence: str = "",
    origin: str = "",
    known_rows: tuple[str, list[dict]] | None = None,
) -> str:
    """As ``import_input``, of a source that was found; folder: for copies; known_rows: of ``read_rows``, if that was
    done already."""
    corpus = _text_corpus(setting, root)
    name, files, what, ruled = _checked(given, setting, corpus, root, known_rows)
    new, digest = _copied(files, folder / f"{name}-new")
    with _placed(new / name if name == TOKENIZER else new, root / INPUTS / setting / name, folder):
        told = {"licence": " ".join(licence.split()), "from": " ".join(origin.split())}
        known = given.origin | {"sha256": digest} | {key: words for key, words in told.items() if words}
        _track(root, INPUTS / setting, name, known)
    found = given.origin
    chosen = f" (splits {found['splits']})" if "splits" in found else ""
    fetched = f", {found['source']} at commit {found['revision']} of the hub" if "revision" in found else ""
    return (
        f"{INPUTS / setting / name} now holds {what}{chosen}{fetched} (SHA-256 {digest}): "
        f"commit {INPUTS / setting}.dvc and {INPUTS / '.gitignore'}." + (f" Rules: {ruled}." if ruled else "")
    )


def missing_input(setting: str, params, root: Path = Path(".")) -> str | None:
    """The import that a setting needs before it can run, as a sentence; None if all it reads is there.

    params: the setting's section, stages.records.settings.Setting.
    """
    from stages.records import rooms

    folder = INPUTS / setting
    wanted = rooms.load("worlds", params.corpus.world).needs(params.corpus)
    needs = {folder / name: f"roads import {setting} {given}` with {what}" for name, (given, what) in wanted.items()}
    if isinstance(params.base.model, str):
        needs[Path(params.base.model)] = f"roads import {setting} PATH-OR-HUB-ID` with a causal LM"
    if not needs:
        return None
    tracked = (root / f"{folder}.dvc").exists()
    for path, command in needs.items():
        if not (root / path).exists():
            fetch = f"run `dvc pull {folder}.dvc`, or if that does not bring it, " if tracked else "run "
            return f"{path} holds nothing: {fetch}`{command}."
    return None if tracked else _unrecorded(folder)


def _unrecorded(folder: Path) -> str:
    return (
        f"{folder} holds data of which there is no record ({folder}.dvc): run `dvc add {folder}` if it is to be used."
    )


def _text_corpus(setting: str, root: Path):
    """The section ``corpus`` of a setting. Raises UserError if it reads no imports, or root is not the project."""
    from stages import worlds
    from stages.records import reading

    found = reading.setting(setting, root)
    if found.corpus.world not in worlds.IMPORTED:
        kinds = " or ".join(worlds.IMPORTED)
        raise UserError(f"Setting {setting} makes its own data: only one with corpus.world: {kinds} reads imports.")
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root.resolve()} is not the project's folder (it has no .dvc): run this from there.")
    return found.corpus


def read_rows(given: Found, group: str | None = None, strength: Sequence[str] = ()) -> tuple[str, list[dict]]:
    """What kind of data was found, and its rows (stages/worlds/rows.py). Raises UserError."""
    from stages.worlds import files, rows

    placed = None
    if given.splits is not None:
        placed = [(file, files.split_of_file(Path(name))) for file, name in _named(given)]
    with _without_collector():
        return rows.read(given.path, group, strength, placed)


def _named(given: Found) -> list[tuple[Path, str]]:
    from flows import sources

    return [(given.path, given.path.name)] if given.splits is None else sources.named(given.splits, given.path)


def _checked(
    given: Found, setting: str, corpus, root: Path, known_rows: tuple[str, list[dict]] | None
) -> tuple[str, list[tuple[Path, str]], str, str]:
    """Name below the setting's folder, files to copy and their names, what it is in words, and what rules do to it;
    raises UserError.

    corpus: stages.worlds.text.Options.
    """
    from flows import sources
    from stages.worlds import inputs, rows, rules, text

    path = given.path
    if path.is_dir() and (path / "config.json").exists():
        inputs.check_model(path)
        _tried(path, corpus, root / INPUTS / setting)
        parts = sorted(file for pattern in sources.MODEL_FILES for file in path.glob(pattern) if file.is_file())
        return "model", [(file, file.name) for file in parts], f"a model of {len(parts)} files", ""
    if path.is_file() and _is_tokenizer(path):
        inputs.check_tokenizer(path)
        return TOKENIZER, [(path, TOKENIZER)], "a tokenizer", ""
    folder = root / INPUTS / setting
    known = isinstance(corpus.tokenizer, str) and (folder / corpus.tokenizer).exists()
    about = text.about(corpus, text.tokenizer_of(corpus, folder) if known else None)
    tally = rules.Tally(setting, corpus.max_dropped, corpus.max_cut)
    kind, read = known_rows or read_rows(given, corpus.group, corpus.strengths)
    with _without_collector():
        rules.on_texts(read, kind, about, tally)
    return kind, _named(given), rows.in_words(kind, read), tally.said()


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """No search for cycles among a million rows, which have none: it takes a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _is_tokenizer(path: Path) -> bool:
    """Whether a file is meant as a tokenizer.json, and not as data: by its name, or by what stands in it."""
    from stages.worlds.files import first_value

    if path.name == TOKENIZER or path.suffix != ".json":
        return path.name == TOKENIZER
    first = first_value(path)
    model = first.get("model") if isinstance(first, dict) else None
    return isinstance(model, dict) and "vocab" in model  # rows may well say of which model they are


def _tried(model: Path, corpus, folder: Path) -> None:
    """Raise UserError unless a model passes its trial (stages/learning/trial.py), in a process of its own.

    corpus: stages.worlds.text.Options; ``folder``: of the setting's inputs, which may hold the tokenizer.
    """
    tokenizer: str | Path = ""
    if isinstance(corpus.tokenizer, str):
        tokenizer = (model if corpus.tokenizer == "model" else folder / corpus.tokenizer).resolve()
    words: dict[str, object] = {"folder": model.resolve(), "tokenizer": tokenizer, "max_prompt": corpus.max_prompt}
    words |= {"max_completion": corpus.max_completion}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    command, code = [sys.executable, "-m", "stages.learning.trial", *options], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(said[-1].removeprefix("error: "))


def _copied(files: list[tuple[Path, str]], folder: Path) -> tuple[Path, str]:
    """The folder with a copy of the files under these names, and one SHA-256 for all of them (of a single file, its
    own)."""
    folder.mkdir()
    digests = []
    for file, name in files:
        copy = folder / name
        shutil.copyfile(file, copy)
        digests.append(f"{sha256(copy)}  {copy.name}\n")
    return folder, digests[0][:64] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def _placed(new: Path, place: Path, scratch: Path) -> Iterator[None]:
    """``new`` moved to ``place`` for good if the block succeeds; if not, what was there before is there again, in the
    records of it too."""
    former = scratch / "former"
    try:
        with records_kept(place.parent, scratch):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                place.rename(former)
            new.rename(place)
            yield
    except BaseException:  # Ctrl-C too
        if place.exists() and not new.exists():
            place.rename(new)
        if former.exists():
            former.rename(place)
        raise


@contextlib.contextmanager
def records_kept(folder: Path, scratch: Path) -> Iterator[None]:
    """DVC's and git's records of a setting's ``folder`` as they were before, if the block fails. They are copied first,
    as a full disk has no room for what was in them."""
    records = [folder.with_name(f"{folder.name}.dvc"), folder.with_name(".gitignore")]
    with tempfile.TemporaryDirectory(dir=scratch, prefix="records-") as copies:
        try:
            for record in filter(Path.exists, records):
                shutil.copyfile(record, Path(copies) / record.name)
            yield
        except BaseException:  # Ctrl-C too
            for record in records:
                if (copy := Path(copies) / record.name).exists():
                    copy.rename(record)
                else:
                    record.unlink(missing_ok=True)
            raise


def _track(root: Path, folder: Path, name: str, origin: dict[str, str]) -> None:
    """``dvc add`` of a setting's folder, with where ``name`` in it came from. A .gitkeep there goes, as what git tracks
    DVC cannot.

    One .dvc file records the whole folder, so whatever else is in it must be what it recorded before, byte by byte:
    an import records nothing but what it brings.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    keep = root / folder / ".gitkeep"
    try:
        if keep.exists():
            untrack: list[str | Path] = ["git", "rm", "-q", "--cached", "--ignore-unmatch", folder / ".gitkeep"]
            subprocess.run(untrack, cwd=root, check=True)
            keep.unlink()
        with Repo(str(root)) as repo:
            repo.scm_context.quiet = True  # what to commit, import_input says
            if not (root / f"{folder}.dvc").exists():
                if any(path.name != name for path in (root / folder).iterdir()):
                    raise UserError(f"{_unrecorded(folder)} Else remove it; then import again.")
            else:
                _refuse_unrecorded(repo.stage.load_one(f"{folder}.dvc"), folder, name)
            (stage,) = repo.add([str((root / folder).resolve())])
            if wrong := differences(stage.outs[0]):
                raise UserError(f"{min(wrong)} changed while it was handed to DVC: nothing was imported; try again.")
            meta = stage.meta or {}
            sources = meta.get("sources", {})
            if (former := sources.get(name, {})).get("sha256") == origin["sha256"]:
                origin = {key: former[key] for key in ("licence", "from") if key in former} | origin
            stage.meta = meta | {"sources": sources | {name: origin}}
            stage.dump()
    except (DvcException, subprocess.CalledProcessError, FileNotFoundError) as error:  # the last: no git
        raise UserError(f"{folder} could not be handed to DVC ({error}): nothing was imported; try again.") from error


def _refuse_unrecorded(stage, folder: Path, name: str) -> None:
    """Raise UserError if what a folder holds besides ``name`` is not what its .dvc file (a DVC stage) records."""
    place = str(folder / name)
    wrong = {path: word for path, word in differences(stage.outs[0]).items() if Path(path) != Path(place)}
    wrong = {path: word for path, word in wrong.items() if not path.startswith(f"{place}/")}
    if str(folder) in wrong and set((stage.meta or {}).get("sources", {"?": {}})) <= {name}:
        return  # the cache no longer says what was in the folder, but it was this alone
    for path, word in wrong.items():
        back = f"`dvc checkout --force {folder}.dvc` (or first `dvc pull`) brings back what is recorded"
        raise UserError(
            f"{path} {word} since {folder}.dvc recorded it, which an import of {name} would record too: {back}, `dvc "
            f"commit {folder}.dvc` records what is there; then import again."
        )
