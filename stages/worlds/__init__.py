"""The room of worlds: where prompts come from, and what the true reward of a completion is.

Each file that NAMES lists has

    Options                           the section ``corpus`` of a setting, in which ``world`` is the file's name
    COLUMNS                           what ``reward`` tells of a completion beside its true reward (facts.py)
    needs(options)                    what has to be imported first; {} for a world that makes its own data
    build(options, inputs, setting)   the corpus (corpora.py), with all that a report knows of the world (facts.py)
    reward(corpus, base, compute)     a function (prompt rows, completions) -> frame of true_reward and COLUMNS

and imports neither torch nor transformers before one of its functions needs them: the schema of params.yaml has
``Options`` from it. What else lies here helps these files.
"""

NAMES = ("roads", "text")
IMPORTED = ("text",)  # of these, those that read data/inputs/SETTING
