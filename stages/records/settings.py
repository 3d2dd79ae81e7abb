"""What a setting in params.yaml may say: every section typed and bounded. All that a stage depends on of the schema."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.records.arms import BASE

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0)]
IMPORTED = re.compile(r"data/inputs/[A-Za-z0-9_]+/[A-Za-z0-9_-][\w.-]*")  # what DVC tracks of a setting's inputs
# The losses of TRL's DPO trainer (a test compares them).
Loss = Literal["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
               "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]  # fmt: skip
NAME = r"[A-Za-z0-9_]+"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]


class Section(BaseModel):
    """A mapping with exactly the keys below; integers are no strings, and NaN or infinity is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Compute(Section):
    device: Literal["cpu", "cuda"]  # never chosen by what the machine happens to have
    dtype: Literal["float32", "bfloat16"]
    numerics: Literal["portable", "native"]  # which kernels of the CPU; see stages/records/numerics.py
    threads: Count  # per stage; part of the result, as the thread count changes bits
    device_batch: int = Field(ge=0)  # sequences or pairs (a method: whole groups) in one backward pass; 0: the batch
    tokens: Count  # in one forward pass at most; changes memory, speed and log-probabilities (measured: 2e-6)
    rows: Count  # completions decoded at once; changes the same
    vocabulary: Count  # entries whose probabilities are computed at once


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
    loss_on: Literal["all", "completion"]  # what of a demonstration is learnt: prompt and completion, or that alone
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
    design: Name  # a file of stages/designs: which completions are compared
    options: dict[str, Any] = Field({})  # of the design
    pairs: Count
    prompts: PositiveShare = 1.0
    held_out: Count
    temperature: Positive
    noise: Positive  # the true reward is divided by it before Bradley-Terry


class Verification(Section):
    halvings: Count


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


class Evaluate(Section):
    completions: Count
    temperature: Positive
    prompts: int = Field(ge=0)


class Arm(Section):
    """See arms.py. Where it names steps, a learning rate and so on, that counts instead of its setting's section."""

    start: Name = BASE
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

    @property
    def trained(self) -> bool:
        """Whether it has a policy of its own."""
        return bool(self.loss or self.method)


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
