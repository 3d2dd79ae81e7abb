"""`roads import SETTING SOURCE`: data, models and tokenizers enter the project here, checked, and in no other way.

    data/inputs/<setting>/demonstrations/   prompt/completion rows
    data/inputs/<setting>/preferences/      prompt/chosen/rejected rows
    data/inputs/<setting>/model/            a causal LM: config.json, safetensors, tokenizer
    data/inputs/<setting>/tokenizer.json    a tokenizer alone

DVC tracks the folder of a setting; git holds only its .dvc file. There, under ``meta: sources:``, stands where each of
the four came from: the name of a file or folder, or a hub id with the commit that was fetched, the SHA-256, and what
the person said of its licence and where it is from.
"""

import contextlib
import errno
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flows.pipeline.content import differences
from flows.pipeline.objects import is_object
from stages.records.artifacts import sha256
from stages.records.errors import UserError

INPUTS = Path("data/inputs")
TOKENIZER = "tokenizer.json"
HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@([\w./-]+))?")  # owner/name@revision
MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja")
DATA_FILES = ("*.parquet", "*.jsonl", "*.jsonl.gz")


def import_input(setting: str, source: str, root: Path = Path("."), licence: str = "", origin: str = "") -> str:
    """Check ``source``, put a copy of it below data/inputs/<setting>, let DVC track it, and say what was imported.

    licence, origin: what the person says of them; where that is nothing, what was said of the same bytes before stays.

    source: a data file, a folder in hub layout, a model folder, a tokenizer.json, or the id of a data set or model on
    the Hugging Face hub, as owner/name or owner/name@revision: what is fetched is the commit that the revision (else
    the default branch) stands for now. Data goes through the rules that need no trained tokenizer, and what they would
    do is said. Raises UserError when the setting reads no input, when anything in the source is wrong, or when it
    cannot be stored; what was there before then stays as it was.
    """
    corpus = _text_corpus(setting, root)
    (root / ".roads").mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root / ".roads", prefix="import-") as scratch:
            path, found = _found(source, Path(scratch))
            name, files, what, ruled = _checked(path, setting, corpus, root)
            new, digest = _copied(files, Path(scratch) / "new")
            with _placed(new / name if name == TOKENIZER else new, root / INPUTS / setting / name, Path(scratch)):
                given = {"licence": " ".join(licence.split()), "from": " ".join(origin.split())}
                told = {key: words for key, words in given.items() if words}
                _track(root, INPUTS / setting, name, found | {"sha256": digest} | told)
    except OSError as error:
        what = "no disk space left" if error.errno == errno.ENOSPC else f"{error.filename}: {error.strerror}"
        raise UserError(f"{source} was not imported, nothing changed ({what}): put it right and try again.") from error
    fetched = f", {found['source']} at commit {found['revision']} of the hub" if "revision" in found else ""
    return (
        f"{INPUTS / setting / name} now holds {what}{fetched} (SHA-256 {digest}): "
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


def _found(source: str, scratch: Path) -> tuple[Path, dict[str, str]]:
    """The local path of a source, fetched from the hub if it is an id, and where it came from: ``source``, and of a hub
    id also ``type`` and ``revision``. Symbolic links that lead out are refused."""
    path, origin = Path(source).expanduser(), {}
    if not path.exists():
        hub_id = HUB_ID.fullmatch(source)
        if not hub_id or source.endswith((".parquet", ".jsonl", ".gz", ".json")):
            raise UserError(
                f"{source} does not exist: give a file, a folder, or the owner/name (or owner/name@revision) of a hub "
                "repository."
            )
        path, origin = _fetched(hub_id[1], hub_id[2], scratch / "hub")
    if path.is_dir():
        for link in path.rglob("*"):
            if not link.resolve().is_relative_to(path.resolve()) and not is_object(link.resolve()):
                raise UserError(f"{link} is a link that leads out of {path}: replace it by the file itself.")
    return path, origin or {"source": path.resolve().name}


def _fetched(hub_id: str, revision: str | None, folder: Path) -> tuple[Path, dict[str, str]]:
    """A data set's or model's files from the hub, and where they came from. The revision is resolved to its commit
    first, so that what is named is what is fetched. Only data, or safetensors with json and tokenizer files."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    def fetch(kind: str, patterns: tuple[str, ...]) -> dict[str, str]:
        commit = HfApi().repo_info(hub_id, repo_type=kind, revision=revision).sha
        snapshot_download(hub_id, repo_type=kind, revision=commit, local_dir=folder, allow_patterns=list(patterns))
        return {"source": hub_id, "type": kind, "revision": commit}

    try:
        try:
            origin = fetch("dataset", DATA_FILES)
        except RepositoryNotFoundError:
            origin = fetch("model", MODEL_FILES)
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{hub_id} is no path here, and the Hugging Face hub shows no data set or model of that name: correct it, "
            "or log in with `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{hub_id} has no revision {revision} on the Hugging Face hub: give a branch, a tag or a commit of it."
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:  # "no network" comes as an OSError
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{hub_id} is no path here and could not be fetched from the Hugging Face hub (no network? {why}): "
            "download it where there is one and import the folder."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UserError(f"{hub_id} on the hub holds none of {', '.join(DATA_FILES)}: convert it, then import that.")
    return folder, origin


def _checked(path: Path, setting: str, corpus, root: Path) -> tuple[str, list[Path], str, str]:
    """Name below the setting's folder, files to copy, what it is in words, and what rules do to it; raises UserError.

    corpus: stages.worlds.text.Options.
    """
    from stages.worlds import inputs

    if path.is_dir() and (path / "config.json").exists():
        inputs.check_model(path)
        _tried(path, corpus, root / INPUTS / setting)
        files = sorted(file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file())
        return "model", files, f"a model of {len(files)} files", ""
    if path.is_file() and path.suffix == ".json":
        inputs.check_tokenizer(path)
        return TOKENIZER, [path], "a tokenizer", ""
    from stages.worlds import rules, text

    kind, rows = inputs.read(path, corpus.group)
    folder = root / INPUTS / setting
    known = isinstance(corpus.tokenizer, str) and (folder / corpus.tokenizer).exists()
    tally = rules.Tally(setting, corpus.max_dropped, corpus.max_cut)
    rules.on_texts(rows, kind, text.about(corpus, text.tokenizer_of(corpus, folder) if known else None), tally)
    return kind, inputs.data_files(path), f"{len(rows)} rows of {kind}", tally.said()


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


def _copied(files: list[Path], folder: Path) -> tuple[Path, str]:
    """The folder with a copy of the files, and one SHA-256 for all of them (of a single file, its own)."""
    folder.mkdir()
    digests = []
    for file in files:
        copy = folder / (TOKENIZER if file.suffix == ".json" and len(files) == 1 else file.name)
        shutil.copyfile(file, copy)
        digests.append(f"{sha256(copy)}  {copy.name}\n")
    return folder, digests[0][:64] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def _placed(new: Path, place: Path, scratch: Path) -> Iterator[None]:
    """``new`` moved to ``place`` for good if the block succeeds; if not, what was there before is there again."""
    former = scratch / "former"
    try:
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
