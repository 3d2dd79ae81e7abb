"""The room of preference designs: one file per way to choose which completions are compared, and its name here.

A file brings ``needs`` (how many completions per prompt the pool must hold) and ``choose`` (which of them are
compared, in the order in which labels are asked).
"""

NAMES = ("plain",)
