"""The command ``keyong``.

The contract with whoever runs it: data on stdout, narration on stderr; errors as ``error: …`` and ``hint: …`` in
lower case; exit code 0 ok, 1 internal, 2 usage, 3 denied, 4 verification failed, 5 unavailable, 130 interrupted.
"""

from __future__ import annotations

import sys

from keyong.cli._run import run

__all__ = ["main", "run"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))
