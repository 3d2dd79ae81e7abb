"""What params.yaml and studies/NAME.yaml may say: every key typed and bounded, every file of a room asked for its own.

Will take the place of settings.py, whose sections it has where they stay.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from stages.records import arms, rooms, settings
from stages.records.arms import known
from stages.records.errors import UserError
from stages.records.settings import (
    Count,
    Evaluate,
    Name,
    Positive,
    PositiveShare,
    Section,
    Share,
    Training,
    Verification,
)

NAME = r"[A-Za-z0-9_]+"
Loss = Literal[tuple(loss for loss in get_args(settings.Loss) if loss != "rloo")]  # type: ignore[valid-type]


class Study(Section):
    name: Name
    settings: list[Name] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    looks: Count = 1  # how often its claims were judged, by fewer seeds or other numbers; p counts so many times
    redraw: Literal[
        "preferences", "world"
    ]  # what a seed draws anew: all from there on, or map, corpus and base as well
    verifiers: list[Name]  # that are trained and judged, beside those that arms name
    arms: list[Name] = Field(min_length=1)  # in the order of the report; the name of a grid stands for all of its arms
    judged_on: list[Name] = Field([])  # arms on whose own completions the verifiers are judged too
    verification: list[Name] = Field([])  # settings whose verifiers are also trained on fewer and fewer pairs

    @model_validator(mode="after")
    def _names_nothing_twice(self):
        for key in ("settings", "seeds", "verifiers", "arms", "judged_on", "verification"):
            items = getattr(self, key)  # a seed that is there twice would count as two seeds that agree
            if len(set(items)) != len(items):
                raise ValueError(f"{key} lists {max(items, key=items.count)} twice")
        return self


class Compute(settings.Compute):
    tokens: Count  # in one forward pass at most; changes memory and speed only
    rows: Count  # completions decoded at once; changes memory and speed only
    vocabulary: Count  # entries whose probabilities are computed at once


class Base(settings.Base):
    loss_on: Literal["all", "completion"]  # what of a demonstration is learnt: prompt and completion, or that alone


class Preferences(settings.Preferences):
    design: Name  # a file of stages/designs
    options: dict[str, Any] = Field({})  # of the design
    pool: int = Field(ge=0)  # completions per prompt to choose from; 0: as many as the design needs


class Sample(Section):
    completions: Annotated[int, Field(ge=2)]
    temperature: Positive


class Offline(Section):
    steps: Count
    batch: Count
    learning_rate: Positive
    beta: Positive


class Online(Section):
    steps: Count
    prompts: Count
    completions: Annotated[int, Field(ge=2)]
    temperature: Positive
    learning_rate: Positive
    beta: Positive


class Curve(Section):
    points: Count  # measurements while an arm trains
    completions: Count  # in each of them, or more while they have fewer tokens than ``tokens``
    tokens: Count


class Arm(Section):
    """See arms.py. Where it names steps, a learning rate and so on, that counts instead of its setting's section."""

    start: Name = arms.BASE
    labels: Name | None = None  # the verifier that ranks completions, or labels pairs anew
    rounds: Count | None = None  # how often it draws fresh samples; without, it learns from the preference pairs
    share: PositiveShare = 1.0  # of the train prompts, that it samples for
    loss: list[Loss] | None = Field(None, min_length=1)  # of TRL's DPO trainer, summed
    method: Name | None = None  # a file of stages/methods
    options: dict[str, Any] = Field({})  # of the method
    pick: Literal["best", "soft"] | None = None  # the best of ``of`` samples, or a draw by exp(score / beta)
    of: Count | None = None
    steps: Count | None = None
    batch: Count | None = None
    prompts: Count | None = None
    completions: Annotated[int, Field(ge=2)] | None = None
    temperature: Positive | None = None
    learning_rate: Positive | None = None
    beta: Positive | None = None
    grid: dict[str, list] = Field({})  # key -> values: one arm for each combination


SAYS = {  # what an arm of each kind may say, and what it must
    "none": ({"start"}, set()),
    "pick": ({"pick", "labels", "of", "beta"}, {"labels"}),
    "offline": ({"start", "labels", "loss", "method", "options", *Offline.model_fields}, set()),
    "online": ({"start", "labels", "rounds", "share", "loss", "method", "options", *Online.model_fields}, {"labels"}),
}
KIND = {"none": "that trains nothing", "pick": "that picks", "offline": "without rounds", "online": "with rounds"}


class Setting(Section):
    """A setting with all that it extends. Its corpus has the options of its world, each verifier those of its file."""

    compute: Compute
    corpus: Any
    base: Base
    preferences: Preferences
    verifiers: Any
    sample: Sample
    offline: Offline
    online: Online
    curve: Curve
    evaluate: Evaluate
    verification: Verification | None = None
    arms: dict[Name, Arm]


class Nothing(Section):
    """It has no options."""


class Local(Training):
    beta: Positive  # its reward is beta x log(policy / base)


FORMER = {"roads": "RoadCorpus", "text": "TextCorpus"}  # sections, until the files of stages/worlds have them
# What files of rooms that are not built yet are going to say of themselves.
UNBUILT: dict[str, dict[str, Any]] = {
    "verifiers": {
        "global": SimpleNamespace(Options=Training, POLICY=False),
        "local": SimpleNamespace(Options=Local, POLICY=True),
        "oracle": SimpleNamespace(Options=Nothing, POLICY=False),
    },
    "designs": {"plain": SimpleNamespace(Options=Nothing)},
    "methods": {"rloo": SimpleNamespace(Options=Nothing, EVERY_STEP=True)},
}


def shape(found: dict, where: str) -> type[Section]:
    """The schema of a setting with the options of the world and of the verifiers that it names, where it has them."""
    fields: dict[str, Any] = {}
    if "corpus" in found:
        world = file_of("worlds", found["corpus"].get("world"), f"{where}.corpus.world").Options
        fields["corpus"] = create_model("Corpus", __base__=world, held_out=(Share, ...), draw=(int, ...)), ...
    if "verifiers" in found:
        own = {}
        for name, given in found["verifiers"].items():
            mapping(given, f"{where}.verifiers.{name}")
            file = file_of("verifiers", given.get("verifier", name), f"{where}.verifiers.{name}")
            own[name] = create_model(name, __base__=file.Options, verifier=(Name, name)), ...
        fields["verifiers"] = create_model("Verifiers", __base__=Section, **own), ...
    return create_model("Setting", __base__=Setting, **fields)


def file_of(room: str, name: Any, where: str) -> Any:
    """The file of a room. Raises UserError for a name that it lacks, with the nearest."""
    try:
        names = rooms.names(room)
    except ModuleNotFoundError:
        known(name, UNBUILT[room], where, f"stages/{room}")
        return UNBUILT[room][name]
    known(name, names, where, f"the names in stages/{room}/__init__.py")
    former = getattr(settings, FORMER.get(name, ""), None)
    return SimpleNamespace(Options=former) if former else rooms.load(room, name)


def options(room: str, name: str, given: dict, where: str) -> None:
    """Raise UserError for options that a file of a room does not know."""
    checked(file_of(room, name, where).Options, given, f"{where}.options")


def mapping(found: Any, where: str, needed: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
    """Raise UserError if it is no mapping with names as keys, lacks a key, or has one too many."""
    if not isinstance(found, dict):
        raise UserError(f"{where or 'all of it'} must be a mapping (found {found!r}): write `name: value` lines.")
    for key in found:
        named(key, where)
        if allowed or needed:
            known(key, allowed or needed, f"{where or 'its first level'}", "the keys that are allowed")
    for key in needed:
        if key not in found:
            raise UserError(f"{'.'.join(filter(None, [where, key]))} is missing: add it.")


def named(key: Any, where: str) -> None:
    """Raise UserError if a key is no name, as paths, stages and runs are called by it."""
    if not isinstance(key, str) or not re.fullmatch(NAME, key):
        raise UserError(f"{where or 'the first level'}: {key!r} is no name: write letters, digits and _ alone.")


def checked(schema: type[Section], data: Any, where: str) -> Any:
    """``data`` as the schema has it. Raises UserError with the path of the first key that is wrong."""
    try:
        return schema.model_validate(data)
    except ValidationError as errors:
        found = errors.errors()  # an unknown key before the one that is missing, as it may be meant for that
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        loc = [str(part) for part in first["loc"] if part not in ("Network", "str", "int", "[key]")]
        at, given = ".".join([where, *loc]), first["input"]
        if first["type"] == "extra_forbidden":
            fields = _fields(schema, first["loc"][:-1])
            near = get_close_matches(loc[-1], fields, n=1, cutoff=0.0)
            raise UserError(
                f"{at} is not a known key{f'; the nearest is {near[0]}' if near else ''}: correct it."
            ) from None
        if first["type"] == "missing":
            raise UserError(f"{at} is missing: add it.") from None
        shown = "" if isinstance(given, dict | list) else f" (found {given!r})"
        raise UserError(f"{at}: {first['msg'].removeprefix('Value error, ')}{shown}: correct it.") from None


def _fields(schema: Any, loc: Iterable) -> list[str]:
    """The keys that the section allows to which a path leads."""
    for part in loc:
        of_part = [kind.model_fields[part].annotation for kind in _sections(schema) if part in kind.model_fields]
        if of_part:
            schema = of_part[0]
        elif get_origin(schema) is dict:
            schema = get_args(schema)[1]
    return [key for kind in _sections(schema) for key in kind.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections among what a key may be."""
    return [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
