"""Random numbers that belong to a thing, not to the order of calls.

Every draw is keyed by (purpose, setting, seed, item): which of PURPOSES it serves, and what it is for. An item is an
id, such as a prompt's, and never a place in a call, so that capping, reordering or adding items, batch size, sharding
and resumption leave the numbers of all other items alone. As a key begins with its purpose, no two purposes share one.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

PURPOSES = {
    # A world; these belong to a setting, or to the params of a map.
    "map": "which roads of the grid are taken away",
    "splits": "which towns or prompts of a map are held out",
    "references": "the reference route of each prompt",
    "hidden routes": "the hidden route of each prompt",
    "demonstrations": "for which prompts travellers write routes, and which of these get a verdict",
    "travels": "the routes of the demonstrations",
    "held-out demonstrations": "which demonstrations nothing is trained on",
    "roles": "the role of a text's prompt: train, validation, test, judge or demonstrations",
    "rows": "the order of a data set's rows",
    "prompts": "the id of a text's prompt, and so the order of prompts",
    # Training: the initial weights and the order of batches, by the libraries' global generators.
    "base": "training the base policy",
    "judge": "training the judge that is the true reward",
    "judge head": "the first weights of the judge's head",
    "reward": "training the global reward model",
    "reward head": "the first weights of the global reward model's head",
    "local reward": "training the local reward model",
    "offline": "training an offline arm",
    "online": "training an online arm",
    # Preferences and samples; a uniform belongs to a prompt, a visit, a completion and a token.
    "given pairs": "which of the pairs that a data set brings are learned from",
    "asked prompts": "the order in which preferences ask prompts",
    "pairs": "the two completions of a pair",
    "labels": "which completion of a pair is preferred",
    "samples": "the stored completions of the base policy",
    "online order": "the order in which an online arm visits prompts",
    "online samples": "the completions that an online arm draws",
    "curve": "the completions behind a learning curve",
    "evaluation": "the completions by which a policy is measured",
    "soft optimum": "which stored completions the soft optimum picks",
    # What needs no randomness of its own, but fixes the libraries' global generators all the same.
    "making preferences": "the global generators while preferences are made",
    "sampling": "the global generators while samples are drawn",
    "scoring": "the global generators while samples are scored",
    "judging": "the global generators while a reward model is judged",
    "evaluating": "the global generators while a policy is evaluated",
    "picking": "the global generators while an arm picks among samples",
    # A model is tried.
    "comparison with a plain forward pass": "the texts on which ways to sample are compared",
    "trial of a model": "the texts on which a model is tried",
    "trial head": "the first weights of the head that is tried",
    # Theory and statistics; the item begins with what it is for.
    "theory": "rewards, policies and data on small trees",
    "dial": "rewards, classes and pairs of the exact dial",
    "examples": "which prompts a report shows",
    "intervals": "which seeds and prompts a bootstrap replicate draws",
    "test": "what tests make up",
}


def key(purpose: str, *of: object) -> int:
    """A 63-bit integer from the purpose and the type-tagged parts of what it is for: ("ab", "c") and ("a", "bc"), or 1
    and "1", never meet. Raises ValueError for a purpose that PURPOSES lacks."""
    if purpose not in PURPOSES:
        raise ValueError(f"Nothing is drawn for {purpose!r}: add it to PURPOSES in stages/records/seeds.py.")
    preimage = "".join(f"{type(p).__name__}:{len(str(p))}:{p};" for p in (purpose, *of))
    return int.from_bytes(hashlib.sha256(preimage.encode()).digest()[:8], "big") >> 1


def generator(purpose: str, *of: object) -> np.random.Generator:
    """The generator that belongs to a purpose and what it is for; raises as ``key``."""
    return np.random.Generator(np.random.Philox(key=key(purpose, *of)))


def order(purpose: str, ids: Sequence[int], *of: object) -> np.ndarray:
    """The places of ``ids`` in a random order, in which further ids would leave the order of these alone; raises as
    ``key``."""
    return np.argsort([key(purpose, *of, int(i)) for i in ids], kind="stable")


class Uniforms:
    """Uniforms in [0, 1) of completions; each belongs to (purpose, of), its prompt's id, the visit to this prompt, the
    completion and the position, and to nothing else. Raises as ``key``.

    Philox is a counter-based generator: with each value of its counter it makes four numbers. The counter's words are
    here (completion, four positions, visit, prompt id), so the completions of one prompt are read one after the other.
    """

    def __init__(self, purpose: str, *of: object):
        self.key = key(purpose, *of)

    def __call__(
        self, ids: Sequence[int] | np.ndarray, visits: Sequence[int] | np.ndarray, count: int, length: int
    ) -> np.ndarray:
        """Shape (prompts, count, length): ``count`` completions of ``length`` tokens for each prompt's id and visit."""
        fours = -(-length // 4)
        found = np.empty((len(ids), fours, count, 4))
        bits = np.random.Philox(key=self.key)
        random, state = np.random.Generator(bits), bits.state  # to set a state is faster than to make a generator
        for place, (prompt, visit) in enumerate(zip(ids, visits, strict=True)):
            for four in range(fours):
                state["state"]["counter"][:] = 0, four, visit, prompt
                bits.state = state
                random.random(out=found[place, four])
        return found.transpose(0, 2, 1, 3).reshape(len(ids), count, fours * 4)[:, :, :length]
