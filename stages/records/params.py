"""What params.yaml and studies/NAME.yaml say besides settings: the study, the theory, claims."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.records.settings import Count, Name, Positive, Section


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
    restored: list[str] = Field([])  # replicates (setting-seed) that are taken as published; `roads run` says which
    verification: list[Name] = Field([])  # settings whose verifiers are also trained on fewer and fewer pairs

    @model_validator(mode="after")
    def _names_nothing_twice(self):
        for key in ("settings", "seeds", "verifiers", "arms", "judged_on", "verification"):
            items = getattr(self, key)  # a seed that is there twice would count as two seeds that agree
            if len(set(items)) != len(items):
                raise ValueError(f"{key} lists {max(items, key=items.count)} twice")
        return self

    @model_validator(mode="after")
    def _verifies_something(self):
        if self.verification and not self.verifiers:
            raise ValueError(f"verification names {self.verification[0]}, but verifiers lists none to measure")
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


class Claim(Section):
    """A statement of the paper, and the contrast that decides it; `roads claims` says by git when it was declared."""

    hypothesis: str  # main, H1 to H6 (paper, section 5), Razin, or dial
    statement: str
    study: Name  # the study whose cells decide
    measure: str  # of a term that names none; see stages/evidence/claims/contrasts.py
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
