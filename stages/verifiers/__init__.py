"""The room of reward models: one file per kind, and its name here. docs/adding.md shows how to add one.

A file brings ``Options`` (its section in params.yaml), ``POLICY`` (whether what it trains is a policy that an arm can
start from), ``LINE`` (what a report says it is), ``train`` and ``judge``. The schema reads the first three without
PyTorch, so what needs it is imported inside the functions.
"""

NAMES = ("global", "local", "oracle")
