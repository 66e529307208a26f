"""inv2: whoever is killed, at whatever point, the next start finds every acknowledged entry and goes on.

``KEYONG_CRASH_CYCLES`` sets how often (50 by default; 1,000 with ``make crash``), ``KEYONG_CRASH_SEED`` what chance does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults import consortium, forked
from tests.faults.cycles import Cycles

CYCLES = int(os.environ.get("KEYONG_CRASH_CYCLES", "50"))
SEED = int(os.environ.get("KEYONG_CRASH_SEED", "20260722"))


@pytest.mark.timeout(120 + 10 * CYCLES)
def test_inv2_kill_9_at_any_point(isolating: None, tmp_path: Path) -> None:
    with consortium.running(tmp_path) as parties:
        cycles = Cycles(parties, SEED, inject=forked.can_inject())
        try:
            cycles.run(CYCLES)
        finally:
            print(f"\n{cycles.told}", file=sys.stderr)
