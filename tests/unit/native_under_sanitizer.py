"""Every setting of ``test_backends`` in a C++ update that watches its own memory, or its own threads; a script of its own,
since the sanitizer must be in the process before anything else. Its arguments: which sanitizers, and the folder of the C++."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from test_backends import HAS_BFLOAT16, MAKERS, NATIVE, fresh, inputs, learn_of, together

from robotsac.learner.backends.native import build

UPDATES = 3


def main() -> None:
    """Prints the settings that it has been through."""
    os.environ.pop("LD_PRELOAD")  # the compiler need not be watched
    build.HERE = Path(sys.argv[2])
    build.FLAGS = (*build.FLAGS, f"-fsanitize={sys.argv[1]}", "-fno-sanitize-recover=all", "-g1", "-O1")
    for backend in ("native", "native_bfloat16")[: 1 + HAS_BFLOAT16]:
        for name, changes in NATIVE.items():
            learn = learn_of(**{"threads": 3, "batch_size": 200, **changes})
            algorithm = fresh(learn)
            given = together([inputs(algorithm, learn, seed) for seed in range(UPDATES)])
            MAKERS[backend](algorithm, learn).updates(*given)
            print(f"{backend}: {name}", flush=True)


if __name__ == "__main__":
    main()
