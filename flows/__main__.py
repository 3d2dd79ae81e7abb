"""``python -m flows``: the same as ``roads``."""

from flows.cli import main

main()
