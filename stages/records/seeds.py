"""Random numbers that belong to a thing, not to the order of calls.

Every draw is keyed by (setting, seed, purpose, item...). A counter-based generator (Philox) makes the draws of item i
independent of which other items are drawn in the same call, so batch size, sharding and resumption change nothing.
"""

import hashlib

import numpy as np


def key(*parts: object) -> int:
    """A 63-bit integer from the type-tagged parts: ("ab", "c") and ("a", "bc"), or 1 and "1", never meet."""
    preimage = "".join(f"{type(p).__name__}:{len(str(p))}:{p};" for p in parts)
    return int.from_bytes(hashlib.sha256(preimage.encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> np.random.Generator:
    """The generator that belongs to ``parts``."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def uniforms(parts: tuple, first: int, count: int, length: int) -> np.ndarray:
    """Uniforms in [0, 1) of items first .. first + count - 1, shape (count, length).

    Row i depends on ``parts``, on first + i and on nothing else: each item owns a block of the Philox counter (four
    64-bit numbers a counter value).
    """
    blocks = -(-length // 4)
    bits = np.random.Philox(key=key(*parts), counter=first * blocks)
    return np.random.Generator(bits).random((count, blocks * 4))[:, :length]
