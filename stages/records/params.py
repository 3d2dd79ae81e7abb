"""params.yaml, read and checked: studies, theory and claims here, what a setting may say in settings.py.

Anything unknown is refused before work begins. A stage asks by ``declared``, or by sections.of for those of a setting.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.records.sections import PATH, checked, narrowed, read, subset
from stages.records.settings import Count, Name, Positive, Section, Setting


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
    worlds: list[Name] = Field(min_length=1)  # those with a corpus and a base policy of their own
    variants: dict[Name, Name]  # the others: whose corpus and base policy they take
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    looks: Count = 1  # how often its claims were judged, by fewer seeds or other numbers; p counts so many times
    offline: list[Name]
    offline_relabelled: list[Name]
    online: list[Name]
    online_from_offline: list[Name]
    verification: list[Name]  # settings whose verifiers are trained on fewer and fewer pairs

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
        listed = {"settings": self.settings, "seeds": self.seeds, "verification": self.verification, "arms": self.arms}
        for name, items in listed.items():  # a seed that is there twice would count as two seeds that agree
            if len(set(items)) != len(items):
                raise ValueError(f"{name} lists {max(items, key=items.count)} twice")
        if self.online_from_offline and "offline" not in self.offline:
            raise ValueError("online_from_offline starts from the arm offline: add it to offline")
        return self


class Claim(Section):
    """A statement of the paper, and the contrast that decides it; `roads claims` says by git when it was declared."""

    hypothesis: str  # main, H1 to H6 (paper, section 5), Razin, or dial
    statement: str
    study: Name  # the study whose cells decide
    measure: str  # of a term that names none; see stages/evidence/contrasts.py
    contrast: str  # sum of terms setting.arm or setting.arm.measure, each with a factor or without
    expect: Literal["more", "no_more", "same"]  # more than 0; not above margin; within +- margin
    margin: Positive  # the smallest effect that would matter, in the measure's unit
    unit: str
    paper: str  # the paper's own number
    looks: Count | None = None  # in place of the study's, where the numbers of this claim were seen more often
    family: Name = "declared"  # Holm's correction is over its claims; `late` or late_...: declared after the study ran

    def looked_at(self, study: Study) -> int:
        """How often it was judged; p counts so many times."""
        return self.looks or study.looks

    @property
    def late(self) -> bool:
        """Whether it says of itself that it was declared after its study ran."""
        return self.family == "late" or self.family.startswith("late_")


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

    @model_validator(mode="after")
    def _models_are_inputs_of_their_own(self):
        for where, study in [("study", self.study), *((f"studies.{n}", s) for n, s in self.studies.items())]:
            for world in study.worlds:  # a variant takes over the base policy, whatever its own section says
                model = self.settings[world].base.model
                if isinstance(model, str) and not model.startswith(f"data/inputs/{world}/"):
                    raise ValueError(
                        f"settings.{world}.base.model is {model}, which base@{world} of {where} would not "
                        f"watch: run `roads import {world} {model}`, then write "
                        f"data/inputs/{world}/{model.rpartition('/')[2]}"
                    )
        return self


def load(path: str | Path = PATH) -> Params:
    """All params, checked. Raises UserError that names the key, what was found and what is allowed."""
    return checked(Params, read(path), path)


def declared(*names: str) -> Any:
    """The sections of params.yaml with these names (``study``, ``claims``), and nothing else.

    Raises UserError if one is missing, or as ``load``; asking the result for another raises AttributeError.
    """
    return checked(narrowed(Params, names), subset(read(PATH), names), PATH)
