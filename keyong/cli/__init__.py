"""The command ``keyong``.

The contract with whoever runs it: data on stdout, narration on stderr; errors as ``error: …`` and ``hint: …`` in
lower case; exit code 0 ok, 1 internal, 2 usage, 3 denied, 4 verification failed, 5 unavailable, 130 interrupted.
"""

from __future__ import annotations

import gc
import sys

from keyong.cli._run import run

__all__ = ["main", "run"]


def main() -> None:
    """Run the command line and exit with its code."""
    code = run(sys.argv[1:])
    if "duckdb" not in sys.modules:  # whose types, left lying, are told to the terminal one by one
        gc.freeze()  # or the interpreter, ending, looks through what was imported for garbage: a fifth of a short command
    sys.exit(code)
