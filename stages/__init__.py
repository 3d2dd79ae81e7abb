"""What is computed: one file a DVC stage, run as ``python -m stages.X`` and read from top to bottom.

What ``python -m stages.X`` does first, before its own imports begin, is here. It finds the environment in which it has
to compute (stages/records/numerics.py). And importing torch, transformers and TRL takes seconds: when `roads run` has
started a stage server, which has them imported already in that environment, the stage hands itself over.
"""

import os
import sys

# While ``python -m`` still locates the module, and only then, sys.argv[0] is "-m".
if sys.argv[0] == "-m":
    from stages.client import hand_over, module_run
    from stages.records import numerics

    module = module_run()
    if module not in (None, "stages.serve", "stages.client"):
        environment = numerics.environment(os.environ, numerics.wanted(module.removeprefix("stages."), sys.argv[1:]))
        if os.environ.get("ALL_ROADS_SERVER"):
            hand_over(os.environ["ALL_ROADS_SERVER"], module, environment)
        numerics.start_again(environment)
