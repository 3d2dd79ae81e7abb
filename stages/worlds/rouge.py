"""ROUGE-L on words as Unicode has them, so that every script counts."""

import unicodedata

import numpy as np
import regex
from rapidfuzz.distance import LCSseq

# Scripts that are written without blanks between words: there each character, with its marks, is a word.
UNSPACED = "".join(rf"\p{{scx={s}}}" for s in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
WORD = regex.compile(
    rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}&&[\p{{L}}\p{{N}}]]]*",
    regex.VERSION1,
)
IGNORABLE = regex.compile(r"\p{Default_Ignorable_Code_Point}+")  # zero width, soft hyphens, joiners: nobody sees them


def true_reward(references: list[str], completions: list[str]) -> np.ndarray:
    """ROUGE-L F1 in [0, 1] of each completion with its reference, shape (completions,).

    With LCS the length of the longest common subsequence of words: F1 = 2 LCS / (words of both). No words at all: 0.
    """
    pairs = [(words(r), words(c)) for r, c in zip(references, completions, strict=True)]
    return np.array([2 * LCSseq.similarity(r, c) / max(len(r) + len(c), 1) for r, c in pairs], dtype=float)


def words(text: str) -> list[str]:
    """Runs of letters (with their marks) and digits, case folded, in form NFKC and without what nobody sees; of ASCII
    text those of [a-z0-9]+.

    NFKC and not NFC, as full-width letters, ligatures and presentation forms are spellings of the same words.
    """
    if not text.isascii():
        seen = IGNORABLE.sub("", unicodedata.normalize("NFKC", text))
        text = unicodedata.normalize("NFKC", seen.casefold())
    return WORD.findall(text.lower())
