"""The schema of params.yaml: every section, typed and bounded; anything else is refused before work begins."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.records.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Section(BaseModel):
    """A mapping with exactly the keys below; integers are no strings, and NaN or infinity is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Compute(Section):
    device: Literal["cpu", "cuda"] = Field(description="never chosen by what the machine happens to have")
    dtype: Literal["float32", "bfloat16"]
    threads: Count = Field(description="per stage; part of the result, as the thread count changes bits")
    device_batch: int = Field(ge=0, description="sequences or pairs in one backward pass; 0: the whole batch")


class RoadCorpus(Section):
    world: Literal["roads"]
    rows: Count
    columns: Count
    removed: Share
    map_seed: int
    horizon: Count
    reward: Literal["arrival", "overlap"]
    demonstrations: Count
    shortest: Share
    impossible: Share
    verdicts: Share
    split: Literal["starts", "prompts", "regions"]
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _fits(self):
        if self.rows * self.columns > 64:
            raise ValueError("rows x columns must not exceed 64, the number of town names")
        return self


class TextCorpus(Section):
    world: Literal["text"]
    reward: Literal["rouge_l", "judge"]
    tokenizer: Annotated[int, Field(ge=258)] | str = Field(
        description="size of a byte-level BPE vocabulary to train, or a name below data/inputs/<setting>"
    )
    max_prompt: Annotated[int, Field(ge=8)]
    max_completion: Annotated[int, Field(ge=2)]
    demonstrations: Share = 0.0
    judge: Share = 0.0
    validation: Share
    test: Share
    group: str | None = None
    group_until: str | None = None

    @model_validator(mode="after")
    def _leaves_some(self):
        if max(self.demonstrations, self.judge) + self.validation + self.test > 1:
            raise ValueError("the shares demonstrations (or judge), validation and test exceed 1")
        return self


class Network(Section):
    hidden_size: Count
    layers: Count
    heads: Count


class Training(Section):
    learning_rate: Positive
    epochs: Positive
    batch: Count


class Base(Section):
    model: Network | str = Field(description="a new GPT-NeoX, or a causal LM: a folder below data/inputs, or a hub id")
    steps: Count
    batch: Count
    learning_rate: Positive
    judge: Training | None = Field(default=None, description="of the reward model that scores policies (labelled data)")


class Preferences(Section):
    pairs: Count
    prompts: PositiveShare = 1.0
    held_out: Count
    temperature: Positive
    noise: Positive = Field(default=1.0, description="the true reward is divided by it before Bradley-Terry")


class Reward(Training):
    local_beta: Positive


class Verification(Section):
    halvings: Count


class Offline(Section):
    steps: Count
    batch: Count
    learning_rate: Positive
    beta: Positive
    points: Count


class Sample(Section):
    completions: Annotated[int, Field(ge=2)]
    best_of: Count
    beta: Positive
    temperature: Positive

    @model_validator(mode="after")
    def _enough(self):
        if self.best_of > self.completions:
            raise ValueError(f"best_of = {self.best_of} needs at least as many completions (found {self.completions})")
        return self


class Online(Section):
    steps: Count
    prompts: Count
    completions: Annotated[int, Field(ge=2)]
    temperature: Positive
    learning_rate: Positive
    beta: Positive
    points: Count


class Evaluate(Section):
    completions: Count
    temperature: Positive
    prompts: int = Field(ge=0)


class Arm(Section):
    """A recipe; where it names steps, a learning rate or a beta, that counts instead of the stage's."""

    loss: list[str] = Field(min_length=1, description="losses of TRL's DPO trainer, summed; or rloo alone")
    labels: Literal["reward", "local", "true"] | None = Field(
        default=None, description="who ranks an online arm's samples; who labels an offline arm's pairs anew"
    )
    rounds: Count | None = Field(default=None, description="how often an online arm draws fresh samples")
    prompts: PositiveShare = Field(default=1.0, description="share of the train prompts that an online arm samples for")
    steps: Count | None = None
    learning_rate: Positive | None = None
    beta: Positive | None = None

    @model_validator(mode="after")
    def _rloo_stands_alone(self):
        if "rloo" in self.loss and len(self.loss) > 1:
            raise ValueError("loss: rloo cannot be summed with the losses of another trainer")
        return self


class Setting(Section):
    compute: Compute
    corpus: RoadCorpus | TextCorpus = Field(discriminator="world")
    base: Base
    preferences: Preferences
    reward: Reward
    offline: Offline
    sample: Sample
    online: Online
    evaluate: Evaluate
    verification: Verification | None = None
    arms: dict[Name, Arm]

    def arm(self, name: str) -> tuple[Arm, Offline | Online]:
        """A recipe, and the section of its stage with what the recipe changes."""
        arm = self.arms[name]
        changes = {key: found for key in ("steps", "learning_rate", "beta") if (found := getattr(arm, key)) is not None}
        return arm, (self.online if arm.rounds else self.offline).model_copy(update=changes)

    @model_validator(mode="after")
    def _rounds_divide_steps(self):
        for name in self.arms:
            arm, chosen = self.arm(name)
            if arm.rounds and chosen.steps % arm.rounds:
                raise ValueError(f"arms.{name}.rounds = {arm.rounds} does not divide online.steps = {chosen.steps}")
            if arm.loss == ["rloo"]:
                if arm.rounds != chosen.steps:
                    raise ValueError(f"arms.{name}: rloo samples at every step; write rounds: {chosen.steps}")
                if {self.online.temperature, self.sample.temperature} != {1.0}:
                    raise ValueError(f"arms.{name}: rloo needs samples at temperature 1, in sample and online")
        return self


class Comparisons(Section):
    """A tabular data set of the theory stage."""

    pairs: Count
    skew: Annotated[float, Field(ge=0)]
    votes: Positive
    spread: Literal["all", "compared"]


class Dial(Section):
    vocabulary: Annotated[int, Field(ge=2)]
    horizon: Count
    scale: Positive
    dimensions: list[Count] = Field(min_length=1)
    pairs: list[Count] = Field(min_length=1)
    votes: list[Positive] = Field(min_length=1)
    seeds: Count

    @model_validator(mode="after")
    def _fits(self):
        full = self.vocabulary**self.horizon - 1
        if full > 255:
            raise ValueError("vocabulary ** horizon must not exceed 256, as all trajectories are enumerated")
        if max(self.dimensions) > full:
            raise ValueError(f"dimensions must not exceed {full}, which is every reward on {full + 1} trajectories")
        if len(set(self.pairs)) != len(self.pairs):
            raise ValueError("pairs lists a number twice")
        return self


class Theory(Section):
    trees: list[Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=2, max_length=2)]] = Field(min_length=1)
    prompts: Count
    memories: list[Annotated[int, Field(ge=0)]]
    betas: list[Positive] = Field(min_length=1)
    references: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)
    seeds: Count
    starts: Count
    dimensions: list[Count] = Field(min_length=1)
    data: dict[Name, Comparisons] = Field(min_length=1)
    dial: Dial

    @model_validator(mode="after")
    def _fits(self):
        for vocabulary, horizon in self.trees:
            if vocabulary**horizon > 256:
                raise ValueError(f"trees: {vocabulary} ** {horizon} exceeds 256; all trajectories are enumerated")
        return self


class Study(Section):
    settings: list[Name] = Field(min_length=1)
    worlds: list[Name] = Field(min_length=1, description="those with a corpus and a base policy of their own")
    variants: dict[Name, Name] = Field(description="the others: whose corpus and base policy they take")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    offline: list[Name]
    offline_relabelled: list[Name]
    online: list[Name]
    online_from_offline: list[Name]
    verification: list[Name] = Field(description="settings whose verifiers are trained on fewer and fewer pairs")

    @property
    def arms(self) -> list[str]:
        """The arms with a policy of their own, in the order of the report."""
        return [*self.offline, *self.offline_relabelled, *self.online, *self.online_from_offline]

    @model_validator(mode="after")
    def _consistent(self):
        if sorted([*self.worlds, *self.variants]) != sorted(self.settings):
            raise ValueError("every one of settings must be in worlds or be a key of variants, and in one of them only")
        if astray := set(self.variants.values()) - set(self.worlds):
            raise ValueError(f"variants take over from {min(astray)}, which is not among worlds")
        if astray := set(self.verification) - set(self.settings):
            raise ValueError(f"verification names {min(astray)}, which is not among settings")
        if len(set(self.arms)) != len(self.arms):
            raise ValueError("an arm is listed twice")
        if self.online_from_offline and "offline" not in self.offline:
            raise ValueError("online_from_offline starts from the arm offline: add it to offline")
        return self


class Claim(Section):
    """A statement of the paper, and the contrast that decides it, declared before the study runs."""

    hypothesis: str = Field(description="main, H1 to H6 (paper, section 5), Razin, or dial")
    statement: str
    study: Name = Field(description="the study whose cells decide")
    measure: str = Field(description="of a term that names none; see stages/evidence/claims.py")
    contrast: str = Field(description="sum of terms setting.arm or setting.arm.measure, each with a factor or without")
    expect: Literal["more", "no_more", "same"] = Field(description="more than 0; not above margin; within +- margin")
    margin: Positive = Field(description="the smallest effect that would matter, in the measure's unit")
    unit: str
    paper: str = Field(description="the paper's own number")


class Params(Section):
    study: Study
    studies: dict[Name, Study]
    theory: Theory
    claims: dict[Name, Claim]
    settings: dict[Name, Setting]

    @model_validator(mode="after")
    def _studies_name_what_exists(self):
        for where, study in [("study", self.study), *((f"studies.{n}", s) for n, s in self.studies.items())]:
            for setting in study.settings:
                if setting not in self.settings:
                    raise ValueError(f"{where}.settings names {setting}, but there is no settings.{setting}: add it")
                arms = self.settings[setting].arms
                for arm in study.arms:
                    if arm not in arms:
                        raise ValueError(f"{where} names the arm {arm}: add settings.{setting}.arms.{arm}")
                for arm in [*study.online, *study.online_from_offline]:
                    if arms[arm].labels is None or arms[arm].rounds is None:
                        raise ValueError(f"settings.{setting}.arms.{arm} is an online arm: give it labels and rounds")
                for arm in [*study.offline, *study.offline_relabelled]:
                    if arms[arm].rounds or arms[arm].labels != (None if arm in study.offline else "reward"):
                        raise ValueError(
                            f"settings.{setting}.arms.{arm}: an offline arm has no rounds, and labels (the reward "
                            "model's, `labels: reward`) exactly if the study lists it in offline_relabelled"
                        )
        return self


def read(path: str | Path) -> Any:
    """The YAML file as plain data (YAML 1.2, so 1e-3 is a number and `no` a word). Raises UserError."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return YAML(typ="safe", pure=True).load(file)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run this from the project's folder.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None


def load(path: str | Path = "params.yaml") -> Params:
    """All params, checked. Raises UserError that names the key, what was found and what is allowed."""
    data = read(path)
    try:
        return Params.model_validate(data)
    except ValidationError as errors:
        first = errors.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("roads", "text", "Network", "str"))
        found = first["input"]
        shown = "" if isinstance(found, dict | list) or first["type"] == "missing" else f" (found {found!r})"
        what = {"extra_forbidden": "is not a known key", "missing": "is missing"}.get(first["type"], first["msg"])
        raise UserError(
            f"{path}: {where or 'a study'}: {what.removeprefix('Value error, ')}{shown}; "
            "the allowed keys and values are in stages/records/params.py."
        ) from None


def setting(name: str) -> Setting:
    """The params of one setting. Raises UserError if there is none of that name."""
    settings = load().settings
    if name not in settings:
        raise UserError(f"params.yaml has no settings.{name}: add it, or use one of {', '.join(settings)}.")
    return settings[name]
