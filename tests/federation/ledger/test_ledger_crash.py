"""No acknowledged entry is lost to kill -9, and what is left always verifies.

``KEYONG_CRASH_CYCLES`` sets how often the writer is killed (10 by default; 1000 for the published figure).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from federation.crypto import SigningKey
from federation.ledger import Ledger, verify_ledger

CYCLES = int(os.environ.get("KEYONG_CRASH_CYCLES", "10"))
SCRIPT = Path(__file__).with_name("crash_writer.py")
ROOT = Path(__file__).parents[3]


A_LEDGER = 50
"""Kills of one ledger, which is verified whole after each: of a longer one the last would take minutes."""


def test_kill_9_at_random_moments(tmp_path: Path, key: SigningKey) -> None:
    chance = random.Random(7)
    for first in range(0, CYCLES, A_LEDGER):
        folder = tmp_path / f"ledger-{first}"
        folder.mkdir()
        _kill(folder, key, chance, min(A_LEDGER, CYCLES - first))


def _kill(folder: Path, key: SigningKey, chance: random.Random, cycles: int) -> None:
    with Ledger.create(folder, "keyong/test/crash", key) as ledger:
        vkey = ledger.vkey
    acknowledged: dict[int, str] = {}
    for _ in range(cycles):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        wanted = chance.randrange(1, 120)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == wanted:
                process.kill()
        process.stdout.close()
        process.wait()
        assert process.returncode == -9
        for line in lines:
            if line.endswith("\n"):
                index, leaf = line.split()
                assert int(index) not in acknowledged
                acknowledged[int(index)] = leaf
        verdict = verify_ledger(folder, vkey)
        assert verdict.entries > max(acknowledged)
    with Ledger.open(folder, key) as ledger, ledger.reader() as connection:
        stored = {index: leaf.hex() for index, leaf in connection.execute("SELECT idx, leaf FROM entry")}
    assert len(acknowledged) >= cycles
    assert {index: stored.get(index) for index in acknowledged} == acknowledged
