"""A setting that takes over the corpus and the base policy of another, so that the two differ in nothing else.

In: the other setting's corpus and base policy. Out: the same bytes under the variant's name (DVC stores them once).
"""

import shutil

from stages.records import artifacts
from stages.records.command import command


def run(setting: str, of: str) -> None:
    """Write data/corpus/<setting> and data/base/<setting>."""
    for kind in ("corpus", "base"):
        source = artifacts.reading(f"data/{kind}/{of}")
        with artifacts.writing(f"data/{kind}/{setting}") as out:
            shutil.copytree(source, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(artifacts.MANIFEST))


if __name__ == "__main__":
    command(run)
