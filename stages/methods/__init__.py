"""The room of methods: what an arm may minimise in place of a loss of TRL's, on all completions of a prompt.

A file of it brings ``Options`` (what an arm says under ``options``), ``EVERY_STEP`` (whether it is right only on
completions that the policy has just drawn, at temperature 1), and ``loss`` of a Batch; see rloo.py. As params.yaml is
checked by these files, none of them imports torch before ``loss`` is called.
"""

NAMES = ("rloo",)
