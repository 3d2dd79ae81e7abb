"""What `roads import` is given: a file, a folder of data or a model, or an id of the hub; and which files are meant.

What a configuration and a split are, the library ``datasets`` decides, by README.md and by the names of files, on a
folder of empty files with these names: so the same is chosen here and on the hub, before anything is fetched.
"""

import errno
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flows.pipeline.objects import is_object
from stages.records.errors import UserError
from stages.worlds.files import FORMATS, HUB_NAME, split_of
from stages.worlds.inputs import SPLITS, inside

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@([\w./-]+))?")  # owner/name@revision
MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja")
CARD = "README.md"
KNOWN = {"config_name", "data_files", "data_dir", "default", "description", "version"}  # what a card says of files
Splits = dict[str, list[str]]  # name of a split -> its files, in order, as paths in the data set


@dataclass(frozen=True)
class Found:
    """A source on this machine."""

    path: Path  # of a file or folder
    origin: dict[str, str]  # ``source``, and of a hub id ``type`` and ``revision``; of a folder of data its choice
    splits: Splits | None = None  # of a folder of data, files below ``path``


def found(source: str, scratch: Path, config: str, split: str) -> Found:
    """A source on this machine: fetched from the hub if it is an id. Symbolic links that lead out or nowhere are
    refused."""
    if not source.strip():
        raise UserError("No source is named: give a file, a folder, or the owner/name of a hub repository.")
    try:
        path, hub_id = Path(source).expanduser(), HUB_ID.fullmatch(source)
    except RuntimeError as error:
        raise UserError(f"{source} does not exist ({error}): give the whole path.") from error
    if not path.exists():
        if not hub_id or source.endswith((*FORMATS, ".gz")):
            raise UserError(
                f"{source} does not exist: give a file, a folder, or the owner/name (or owner/name@revision) of a hub "
                "repository."
            )
        return _fetched(hub_id[1], hub_id[2], scratch / "hub", config, split)
    _refuse_odd([path.name])
    for link in path.rglob("*") if path.is_dir() else ():
        if not link.exists():
            raise UserError(f"{link} is a link that leads nowhere: replace it by the file itself, or remove it.")
        if not link.resolve().is_relative_to(path.resolve()) and not is_object(link.resolve()):
            raise UserError(f"{link} is a link that leads out of {path}: replace it by the file itself.")
    origin = {"source": path.resolve().name}
    if not path.is_dir() or (path / "config.json").exists():
        if config or split:
            raise UserError(
                f"{source} is no folder of data: --config and --split choose among what such a folder, or a data set "
                "on the hub, holds."
            )
        return Found(path, origin)
    if (splits := of_disk(path)) is not None:
        if config:
            raise UserError(f"{source} is a folder of save_to_disk, which has no configurations: leave out --config.")
        return _chosen(path, origin, "", splits, split, source)
    names = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
    return _chosen(path, origin, *of_hub_layout(names, card(path), config, source), split, source)


def _refuse_odd(names: Iterable[str]) -> None:
    """Raise UserError if a data file's name cannot be written in a sentence, or a line: it is no UTF-8, or has a line
    end in it."""
    for name in names:
        if name.endswith(FORMATS) and not name.isprintable():
            raise UserError(f"{name!a} is no name for a file of data: rename it, in characters that can be printed.")


def _chosen(folder: Path, origin: dict, config: str, splits: Splits, asked: str, source: str) -> Found:
    wanted = choose(splits, asked, source)
    choice = {"config": config} if config else {}
    return Found(folder, origin | choice | {"splits": ", ".join(wanted)}, wanted)


def _fetched(hub_id: str, revision: str | None, folder: Path, config: str, split: str) -> Found:
    """A data set's or model's files from the hub, and where they came from. The revision is resolved to its commit
    first, so that what is named is what is fetched. Only the data that are meant, or safetensors with json and
    tokenizer files."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    def look(kind: str) -> dict[str, str]:
        commit = HfApi().repo_info(hub_id, repo_type=kind, revision=revision).sha
        return {"source": hub_id, "type": kind, "revision": commit}

    def fetch(patterns: list[str]) -> None:
        kind, commit = origin["type"], origin["revision"]
        snapshot_download(hub_id, repo_type=kind, revision=commit, local_dir=folder, allow_patterns=patterns)

    try:
        try:
            origin = look("dataset")
        except RepositoryNotFoundError:
            origin = look("model")
            if config or split:
                raise UserError(f"{hub_id} is a model: --config and --split are for data sets.") from None
        if origin["type"] == "model":
            fetch(list(MODEL_FILES))
            found = Found(folder, origin)
        else:
            names = HfApi().list_repo_files(hub_id, repo_type="dataset", revision=origin["revision"])
            if CARD in names:
                fetch([CARD])
            layout = of_hub_layout(names, card(folder), config, hub_id)
            found = _chosen(folder, origin, *layout, split, hub_id)
            fetch(patterns(found.splits or {}))
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
        raise UserError(f"{hub_id} on the hub holds none of {', '.join(MODEL_FILES)}: convert it, then import that.")
    return found


def card(folder: Path) -> str:
    """The README.md of a data set, "" where there is none."""
    path = folder / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def of_disk(folder: Path) -> Splits | None:
    """The splits of a folder that save_to_disk has written; None if it is no such folder."""
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return None
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # whatever its JSON or its tables may raise
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{folder} is not a whole folder of save_to_disk ({why}): save it again.") from error
    tables = dict(found) if isinstance(found, DatasetDict) else {str(found.split or "train"): found}
    return {
        split: [str(inside(folder, os.path.relpath(file["filename"], folder)).relative_to(folder)) for file in files]
        for split, files in ((split, table.cache_files) for split, table in tables.items())
    }


def of_hub_layout(names: Iterable[str], said: str, config: str, source: str) -> tuple[str, Splits]:
    """The configuration that is meant, "" where the data set names none, and its splits.

    names: of all files, relative to the data set's folder; said: its README.md; config: the one asked for, if any;
    source: what a refusal calls the data set. Raises UserError if there is no such configuration, several and none
    asked for, or no data file in it; or if it says how its files are to be read, such as names for their columns, which
    an import, that keeps files as they are, does not follow.

    Where the data set names no files, those that ``datasets`` passes over as they have no split (heldout.jsonl beside
    train.jsonl) are splits of their own here, for ``choose`` to ask about; and the case of a name says nothing.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    names = [*names]
    _refuse_odd(names)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        try:
            data = DatasetCard(said).data if said.startswith("---") else DatasetCardData()
            configs = MetadataConfigs.from_dataset_card_data(data)
            chosen = config or configs.get_default_config_name() or ""
            if configs and chosen not in configs:
                unknown = f"has no configuration {chosen}" if chosen else "has several configurations"
                raise UserError(f"{source} {unknown}: say --config with one of {', '.join(configs)}.")
            if config and not configs:
                raise UserError(f"{source} names no configurations: leave out --config {config}.")
            about = configs.get(chosen, {})
            if options := sorted(set(about) - KNOWN):
                raise UserError(
                    f"{source} says in {CARD} how its files are to be read ({options[0]}), which an import does not "
                    "follow: write them as plain columns, and import these."
                )
            named = "data_files" in about
            places = {name if named else name.lower(): name for name in names}
            if len(places) < len(names):
                raise UserError(f"{source} has files whose names differ in case alone: rename them.")
            for place in (inside(root, name) for name in places):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            below = about.get("data_dir") or "."
            base = inside(root, below if named else below.lower())
            patterns = sanitize_patterns(about["data_files"]) if named else get_data_patterns(str(base))
            outside = [one for several in patterns.values() for one in several if "://" in one or ".." in one]
            if outside or any(one.startswith("/") for several in patterns.values() for one in several):
                raise UserError(f"{source} names files in {CARD} that are not its own: import these by themselves.")
            found = DataFilesDict.from_patterns(patterns, base_path=str(base))
        except UserError:
            raise
        except Exception as error:  # whatever its YAML may raise, and what stands in that
            why = " ".join(str(error).replace(scratch, "").split())[:200].rstrip(".")
            raise UserError(f"{source} is no data set in hub layout ({why}): import one file of it.") from error
        splits = {
            str(split): [places[os.path.relpath(file, root)] for file in files if file.endswith(FORMATS)]
            for split, files in found.items()
        }
        if not named:
            below = os.path.relpath(base, root)
            splits = _with_passed_over(splits, [name for name in names if Path(name.lower()).is_relative_to(below)])
    splits = {split: files for split, files in splits.items() if files}
    if not splits:
        raise UserError(f"{source} holds no data file: give {', '.join(FORMATS)}, or a folder with such files.")
    return chosen, splits


def _with_passed_over(splits: Splits, names: list[str]) -> Splits:
    """The splits and, under their own names, the data files that are in none of them and have the format of one."""
    from datasets.data_files import FILES_TO_IGNORE

    def form(name: str) -> str | None:
        known = HUB_NAME.fullmatch(Path(name).name)
        return known[2].removesuffix(".gz") if known else None

    known = {name for files in splits.values() for name in files}
    forms, others = {form(name) for name in known}, {}
    for name in names:
        if name not in known and form(name) in forms - {None} and Path(name).name not in FILES_TO_IGNORE:
            stem = HUB_NAME.fullmatch(Path(name).name)[1]
            others.setdefault(Path(name).name if stem in splits else stem, []).append(name)
    return splits | others


def choose(splits: Splits, asked: str, source: str) -> Splits:
    """The splits that are meant; asked: their names with commas between, or "" for all.

    Raises UserError where a name is none of the data set's, says neither train, validation nor test, or where several
    would be mixed that nobody asked for.
    """
    has = f"{source} has the splits {', '.join(splits)}"
    wanted = [name.strip() for name in asked.split(",")] if asked else list(splits)
    if unknown := [name for name in wanted if name not in splits]:
        raise UserError(f"{has}, and not {unknown[0]!r}: say --split with some of them.")
    if unclear := [name for name in wanted if split_of(name) is None]:
        raise UserError(
            f"{has}, and {unclear[0]} says none of {', '.join(SPLITS)} before its first _: say --split with those to "
            "import."
        )
    stand_for = [split_of(name) for name in wanted]
    if not asked and (mixed := [name for name, split in zip(wanted, stand_for) if stand_for.count(split) > 1]):
        raise UserError(f"{has}, of which {' and '.join(mixed[:2])} would be mixed: say --split with those to import.")
    return {name: splits[name] for name in wanted}


def named(splits: Splits, folder: Path) -> list[tuple[Path, str]]:
    """The files of these splits, and their names in hub layout."""
    found = []
    for split, files in splits.items():
        for number, name in enumerate(files):
            format_ = HUB_NAME.fullmatch(Path(name).name)[2]
            found.append((folder / name, f"{split}-{number:05d}-of-{len(files):05d}{format_}"))
    return found


def patterns(splits: Splits) -> list[str]:
    """What of a hub repository is to be fetched: these files, and nothing whose name they happen to describe."""
    return [glob.escape(name) for files in splits.values() for name in files]
