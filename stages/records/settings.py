"""What a setting in params.yaml may say: every section typed and bounded. All that a stage depends on of the schema."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stages.records import rooms
from stages.records.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
IMPORTED = re.compile(r"data/inputs/[A-Za-z0-9_]+/[A-Za-z0-9_-][\w.-]*")  # what DVC tracks of a setting's inputs
# The losses of TRL's DPO trainer (a test compares them).
Loss = Literal["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
               "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]  # fmt: skip
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Section(BaseModel):
    """A mapping with exactly the keys below; integers are no strings, and NaN or infinity is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Compute(Section):
    device: Literal["cpu", "cuda"]  # never chosen by what the machine happens to have
    dtype: Literal["float32", "bfloat16"]
    numerics: Literal["portable", "native"]  # which kernels of the CPU; see stages/records/numerics.py
    threads: Count  # per stage; part of the result, as the thread count changes bits
    device_batch: int = Field(ge=0)  # sequences or pairs (a method: whole groups) in one backward pass; 0: the batch


class Network(Section):
    hidden_size: Count
    layers: Count
    heads: Count


class Training(Section):
    learning_rate: Positive
    epochs: Positive
    batch: Count


class Base(Section):
    model: Network | str  # a new GPT-NeoX, or a causal LM that was imported: data/inputs/<setting>/model
    steps: Count
    batch: Count
    learning_rate: Positive
    judge: Training | None = None  # of the reward model that scores policies (labelled data)

    @model_validator(mode="after")
    def _was_imported(self):
        if isinstance(self.model, str) and not IMPORTED.fullmatch(self.model):
            raise ValueError(
                f"model {self.model} is not below data/inputs/SETTING/, so nothing would notice if it changed: run "
                f"`roads import SETTING {self.model}`, then write data/inputs/SETTING/model"
            )
        return self


class Preferences(Section):
    pairs: Count
    prompts: PositiveShare = 1.0
    held_out: Count
    temperature: Positive
    noise: Positive  # the true reward is divided by it before Bradley-Terry


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

    loss: list[Loss] | None = Field(None, min_length=1)  # of TRL's DPO trainer, summed; or else
    method: str | None = None  # a file of stages/methods
    options: Any = Field({}, validate_default=True)  # of the method: its Options, once they are checked
    labels: Literal["reward", "local", "true"] | None = None  # who ranks samples, or labels pairs anew
    rounds: Count | None = None  # how often an online arm draws fresh samples
    prompts: PositiveShare = 1.0  # share of the train prompts that an online arm samples for
    steps: Count | None = None
    learning_rate: Positive | None = None
    beta: Positive | None = None

    def over(self, section: "Offline | Online") -> "Offline | Online":
        """The section of the arm's stage with what the arm changes in it."""
        changes = {key: getattr(self, key) for key in ("steps", "learning_rate", "beta")}
        return section.model_copy(update={key: value for key, value in changes.items() if value is not None})

    @field_validator("method")
    @classmethod
    def _is_a_file_of_the_room(cls, name: str | None) -> str | None:
        try:
            if name is not None:
                rooms.load("methods", name)
        except UserError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return name

    @field_validator("options")
    @classmethod
    def _are_the_methods(cls, given: Any, info: ValidationInfo) -> Any:
        if method := info.data.get("method"):
            return rooms.load("methods", method).Options.model_validate(given)
        if given and "method" in info.data:
            raise ValueError("only a method has options: write method: NAME, or take them away")
        return given

    @model_validator(mode="after")
    def _says_what_it_minimises(self):
        if (self.loss is None) == (self.method is None):
            raise ValueError("write either loss (a list of TRL's) or method (a file of stages/methods)")
        if self.method and not (self.labels and self.rounds):
            raise ValueError(
                f"{self.method} learns from completions with scores, and pairs have none: write labels and rounds"
            )
        return self


def _of_its_world(given: Any) -> Section:
    """The section ``corpus`` as the file of stages/worlds that it names wants it, which alone is loaded for that."""
    if not isinstance(given, dict) or not isinstance(name := given.get("world"), str):
        raise ValueError("names no world: write world: NAME, of a file in stages/worlds")
    try:
        return rooms.load("worlds", name).Options.model_validate(given)
    except UserError as error:
        raise ValueError(str(error).removesuffix(".")) from None


class Setting(Section):
    compute: Compute
    corpus: Annotated[Any, PlainValidator(_of_its_world)]  # Options of its world
    base: Base
    preferences: Preferences
    reward: Reward
    offline: Offline
    sample: Sample
    online: Online
    evaluate: Evaluate
    verification: Verification | None = None
    arms: dict[Name, Arm]

    @model_validator(mode="after")
    def _samples_suffice(self):
        if self.online.completions > self.sample.completions:
            raise ValueError(
                f"online.completions = {self.online.completions} needs at least as many in sample.completions (found "
                f"{self.sample.completions}), of which the first round is made"
            )
        return self

    @model_validator(mode="after")
    def _rounds_divide_steps(self):
        for name, arm in self.arms.items():
            chosen = arm.over(self.online if arm.rounds else self.offline)
            if arm.rounds and chosen.steps % arm.rounds:
                raise ValueError(f"arms.{name}.rounds = {arm.rounds} does not divide online.steps = {chosen.steps}")
            if arm.method and rooms.load("methods", arm.method).EVERY_STEP:
                if arm.rounds != chosen.steps:
                    raise ValueError(f"arms.{name}: {arm.method} samples at every step; write rounds: {chosen.steps}")
                if {self.online.temperature, self.sample.temperature} != {1.0}:
                    raise ValueError(f"arms.{name}: {arm.method} needs samples at temperature 1, in sample and online")
        return self
