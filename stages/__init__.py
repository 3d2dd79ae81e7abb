"""What is computed: one file per DVC stage, run as ``python -m stages.X`` and read from top to bottom.

What ``python -m stages.X`` does first, before its own imports begin, is here: it finds the environment in which it has
to compute (stages/records/numerics.py), which libraries read while they are imported, and glibc even before that.
"""

import os
import sys

# While ``python -m`` still locates the module, and only then, sys.argv[0] is "-m".
if sys.argv[0] == "-m" and (named := sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])])[-1].startswith("stages."):
    from stages.records import numerics

    wanted = numerics.wanted(named[-1].removeprefix("stages."), sys.argv[1:])
    numerics.start_again(numerics.environment(os.environ, wanted))
