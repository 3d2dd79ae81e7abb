"""The room of worlds: where prompts come from, and what the true reward of a completion is.

A file of it brings ``Options`` (the section ``corpus`` of a setting), ``build`` and ``reward``; see roads.py.
"""

NAMES = ("roads", "text")
IMPORTED = ("text",)  # of these, those that read data/inputs/SETTING
