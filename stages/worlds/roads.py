"""The road world: a small language whose true reward is known.

Towns lie on a grid; some roads between neighbours are gone. A prompt names a goal and a start, a completion is a route
of exactly ``horizon`` towns. Travellers rarely know the way, so their routes (the demonstrations) mostly get lost; each
ends in a verdict, from which a language model learns to judge routes better than to plan them. This is the maze of the
paper as text: the reward marks the goal, while a policy must know the way from everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import model_validator
from tokenizers import Tokenizer, models, pre_tokenizers

from stages.records.seeds import generator
from stages.records.settings import Count, Section, Share
from stages.worlds.corpora import Corpus
from stages.worlds.facts import Column, Facts

if TYPE_CHECKING:  # importing it takes seconds, which the schema of params.yaml, Options, does not have
    from transformers import PreTrainedTokenizerFast

TOWNS = """Arden Bexley Corfe Dunmore Elstow Farley Garsdale Hythe Ilkley Jarrow Kelso Ludlow Malton Norham Oakham
Penrith Quorn Ripon Selby Thirsk Ulver Verwood Wigton Yarm Zeal Alston Brough Castor Dent Egton Frome Goole
Hexham Ingham Keld Lydd Masham Neston Ottery Pickle Reeth Skipton Tring Upwey Wooler Ashby Bampton Crook
Deal Ely Fowey Glossop Holt Ivinghoe Jevington Kirkby Leyburn Mere Narborough Olney Poole Rothbury Settle
Tetbury""".split()
VERDICTS = ["arrived", "lost", "impossible"]
PADDING, UNKNOWN = "<pad>", "<unknown>"
SCALE = 6.0  # the largest true reward; with it Bradley-Terry labels are informative but noisy
COLUMNS: tuple[Column, ...] = (("arrived", "arrived", 2, 0, 1),)  # of a completion, beside its true reward
TRUTH = {  # what the true reward is, by Options.reward
    "arrival": "a rule, 0 to 6: half for a legal route, half for a legal route that ends at the goal",
    "overlap": "a rule, 0 to 6: half for a legal route, half for the share of moves that agree with a hidden route",
}


class Options(Section):
    """The section ``corpus`` of a road setting."""

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


@dataclass(frozen=True)
class Map:
    """Who is whose neighbour: ``roads`` is a symmetric boolean matrix, shape (towns, towns)."""

    roads: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """Least number of moves between towns, shape (towns, towns)."""
        towns = len(self.roads)
        steps = np.where(np.eye(towns, dtype=bool), 0, np.where(self.roads, 1, towns))
        for middle in range(towns):
            steps = np.minimum(steps, steps[:, [middle]] + steps[[middle], :])
        return steps


def draw_map(rows: int, columns: int, removed: float, *of: object) -> Map:
    """A grid of towns with the share ``removed`` of its roads taken away, in random order, while it stays connected."""
    towns = rows * columns
    grid = [(t, t + 1) for t in range(towns) if (t + 1) % columns] + [(t, t + columns) for t in range(towns - columns)]
    roads = np.zeros((towns, towns), dtype=bool)
    for a, b in grid:
        roads[a, b] = roads[b, a] = True
    left = round(removed * len(grid))
    for index in generator("map", rows, columns, *of).permutation(len(grid)):
        if left == 0:
            break
        a, b = grid[index]
        roads[a, b] = roads[b, a] = False
        if Map(roads).distances[a, b] >= towns:
            roads[a, b] = roads[b, a] = True
        else:
            left -= 1
    return Map(roads)


def pairs_at(world: Map, horizon: int) -> np.ndarray:
    """All (goal, start) with the goal reachable from the start in exactly ``horizon`` moves, shape (pairs, 2)."""
    walks = np.linalg.matrix_power(world.roads.astype(np.int64), horizon) > 0
    starts, goals = np.nonzero(walks & ~np.eye(len(walks), dtype=bool))
    return np.stack([goals, starts], axis=1)


def travel(
    world: Map, prompts: np.ndarray, horizon: int, shortest: float, impossible: float, rng: np.random.Generator
) -> np.ndarray:
    """One traveller's route for each (goal, start), shape (prompts, horizon)."""
    goals, here = prompts[:, 0], prompts[:, 1]
    distances = world.distances
    route = np.empty((len(prompts), horizon), dtype=np.int64)
    for move in range(horizon):
        jumps, knows = rng.random(len(here)) < impossible, rng.random(len(here)) < shortest
        anywhere = rng.integers(len(world.roads), size=len(here))
        open_roads = world.roads[here]
        nearer = open_roads & (distances[here, goals][:, None] > distances[:, goals].T)
        choices = np.where((knows & nearer.any(axis=1))[:, None], nearer, open_roads)
        step = np.argmax(np.where(choices, rng.random(choices.shape), -1.0), axis=1)
        here = route[:, move] = np.where(jumps, anywhere, step)
    return route


def legal(world: Map, prompts: np.ndarray, routes: np.ndarray) -> np.ndarray:
    """Whether every move of a route follows a road, shape (prompts,). A negative entry stands for "no town"."""
    steps = np.concatenate([prompts[:, 1:2], routes], axis=1)
    towns = (routes >= 0).all(axis=1)
    steps = np.maximum(steps, 0)
    return towns & world.roads[steps[:, :-1], steps[:, 1:]].all(axis=1)


def true_reward(world: Map, prompts: np.ndarray, routes: np.ndarray, hidden: np.ndarray | None) -> pd.DataFrame:
    """The columns ``true_reward`` (0 to 6) and ``arrived`` (legal, and ends at the goal) for each route.

    Half of the reward is for a legal route; the other half is for arriving or, where hidden reference routes are
    given, for the share of moves that agree with them.
    """
    allowed = legal(world, prompts, routes)
    arrived = allowed & (routes[:, -1] == prompts[:, 0])
    rest = arrived if hidden is None else (routes == hidden).mean(axis=1)
    return pd.DataFrame({"true_reward": SCALE * (0.5 * allowed + 0.5 * rest), "arrived": arrived})


def vocabulary(towns: int) -> list[str]:
    """The words of the language; a word's position is its token id. Towns come last, in map order."""
    return [PADDING, UNKNOWN, "to", "from", *VERDICTS, *TOWNS[:towns]]


def tokenizer(towns: int) -> PreTrainedTokenizerFast:
    """One token a word."""
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary(towns))}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PADDING, unk_token=UNKNOWN)


class Scorer:
    """The true reward of completions given as token ids; built from a road corpus's ``world`` record."""

    def __init__(self, world: dict):
        self.map = Map(np.array(world["roads"], dtype=bool))
        self.first = len(vocabulary(0))
        self.overlap = world["reward"] == "overlap"

    def __call__(self, prompts: pd.DataFrame, completions: Sequence[Sequence[int]]) -> pd.DataFrame:
        """Columns true_reward and arrived; row i judges completion i for the prompt in row i of ``prompts``."""
        routes = self._towns(np.array(list(completions)))
        ends = self._towns(np.array(prompts["prompt_ids"].tolist()))[:, [1, 3]]
        hidden = self._towns(np.array(prompts["hidden_ids"].tolist())) if self.overlap else None
        return true_reward(self.map, ends, routes, hidden)

    def _towns(self, ids: np.ndarray) -> np.ndarray:
        return np.where(ids >= self.first, ids - self.first, -1)


def needs(params: Options) -> dict[str, tuple[str, str]]:
    """What data/inputs/<setting> must hold: nothing, as the world makes its own data."""
    return {}


def build(params: Options, inputs: Path, of: tuple) -> Corpus:
    """The corpus of a road setting; ``inputs`` is not read.

    Demonstrations are travels of all prompts, as a pretrained model has seen the world.
    """
    world = draw_map(params.rows, params.columns, params.removed, params.map_seed, *of[2:])  # of a seed its own map
    towns = len(world.roads)
    first, words = len(vocabulary(0)), np.array(vocabulary(towns))
    ends = pairs_at(world, params.horizon)

    def travels(prompts: np.ndarray, shortest: float, impossible: float, luck) -> np.ndarray:
        return travel(world, prompts, params.horizon, shortest, impossible, luck)

    def prompt_ids(prompts: np.ndarray) -> np.ndarray:
        to, origin = (np.full(len(prompts), list(words).index(w)) for w in ("to", "from"))
        return np.stack([to, prompts[:, 0] + first, origin, prompts[:, 1] + first], axis=1)

    everywhere = ends
    split = splits(world, ends, params, of)
    ends, split = ends[split != ""], split[split != ""]
    references = travels(ends, params.shortest, params.impossible, generator("references", *of))
    prompts = pd.DataFrame(
        {
            "prompt_id": ends[:, 1] * towns + ends[:, 0],  # of start and goal, whatever other prompts there are
            "split": split,
            "prompt": [" ".join(words[ids]) for ids in prompt_ids(ends)],
            "prompt_ids": prompt_ids(ends).tolist(),
            "reference": [" ".join(words[r + first]) for r in references],
            "reference_ids": (references + first).tolist(),
        }
    )
    if params.reward == "overlap":
        prompts["hidden_ids"] = (_hidden_routes(world, ends, params.horizon, of) + first).tolist()

    rng = generator("demonstrations", *of)
    asked = everywhere[rng.integers(len(everywhere), size=params.demonstrations)]
    routes = travels(asked, params.shortest, params.impossible, generator("travels", *of))
    arrived, allowed = routes[:, -1] == asked[:, 0], legal(world, asked, routes)
    verdicts = np.where(allowed, np.where(arrived, 0, 1), 2) + list(words).index(VERDICTS[0])
    judged = rng.random(len(asked)) < params.verdicts
    completions = [[*r, v] if j else list(r) for r, v, j in zip((routes + first).tolist(), verdicts.tolist(), judged)]
    demonstrations = pd.DataFrame({"prompt_ids": prompt_ids(asked).tolist(), "completion_ids": completions})
    record = {
        "reward": params.reward,
        "roads": world.roads.astype(int).tolist(),
        "max_completion": params.horizon,
        "max_prompt": 4,
        "eos": None,
        "pad": 0,
        "facts": asdict(facts(params)),
    }
    return Corpus(record, tokenizer(towns), demonstrations, prompts)


def facts(params: Options) -> Facts:
    """What a report says of a road setting. Legality alone is worth half of the reward."""
    return Facts(
        title=f"Road world, {params.horizon} move" + ("" if params.horizon == 1 else "s"),
        truth=TRUTH[params.reward],
        unit="true reward (0 to 6)",
        low=0,
        high=6,
        decimals=2,
        columns=COLUMNS,
        marks=(("arrived", 1, "✓ arrived"), ("true_reward", 3, "legal, lost"), ("true_reward", 0, "✗ impossible")),
    )


def reward(corpus: Corpus, base: Path, compute) -> Scorer:
    """The true reward of a completion; no model is asked, so neither ``base`` nor ``compute`` is."""
    return Scorer(corpus.world)


def splits(world: Map, ends: np.ndarray, params, of: tuple) -> np.ndarray:
    """The split of each (goal, start): train, validation, test, or "" for one that is left out, shape (prompts,).

    By ``params.split`` what is held out are
    starts: all prompts from some towns. With single prompts held out, the labels of the other goals from the same
        start speak against the goals that were left out, and the few prompts of a short horizon measure that.
    prompts: single prompts, whose towns all occur in training: the most that tokens can give away.
    regions: both ends of the map. A prompt counts as held out if both its towns lie in one of them, and as train if
        neither lies in any, so that hardly a token of a test prompt or route occurs in training: the least.
    """
    count = len(ends) if params.split == "prompts" else len(world.roads)
    order = generator("splits", *of).permutation(count)
    if params.split == "regions":
        order = np.argsort(world.distances[order[0]], kind="stable")
        order = np.concatenate([order[-round(params.validation * count) :], order])[:count]
    kept = np.cumsum([round(share * count) for share in (params.validation, params.test)])
    held_out = np.full(count, "train", dtype=object)
    held_out[order[: kept[0]]], held_out[order[kept[0] : kept[1]]] = "validation", "test"
    if params.split == "prompts":
        return held_out
    goals, starts = held_out[ends].T
    return starts if params.split == "starts" else np.where(goals == starts, starts, "")


def _hidden_routes(world: Map, ends: np.ndarray, horizon: int, of: tuple) -> np.ndarray:
    """A random walk from each prompt's start, drawn once, shape (prompts, horizon).

    It need not lead to the goal, so that what verdicts teach (who arrives) says nothing about it.
    """
    rng = generator("hidden routes", *of)
    return travel(world, ends, horizon, shortest=0.0, impossible=0.0, rng=rng)
