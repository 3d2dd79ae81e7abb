"""What is computed: one file a DVC stage, run as ``python -m stages.X`` and read from top to bottom.

Importing torch, transformers and TRL takes seconds. When `roads run` has started a stage server, which has them
imported already, ``python -m stages.X`` hands itself over to it here, before its own imports begin.
"""

import os
import sys

# While ``python -m`` still locates the module, and only then, sys.argv[0] is "-m".
if sys.argv[0] == "-m" and os.environ.get("ALL_ROADS_SERVER"):
    from stages.client import hand_over

    hand_over(os.environ["ALL_ROADS_SERVER"])
