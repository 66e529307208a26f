"""Memory and processor time of processes, on real ones."""

from __future__ import annotations

import os
import subprocess
import sys

from keyong.bench.processes import Peak, below, cpu_seconds, pss_bytes, rss_bytes, until_quiet

HOLDER = """
import subprocess, sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
child = subprocess.Popen([sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"],
                         stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""


def _holder(size: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_peak_counts_a_process_and_its_children_but_not_what_is_left_out() -> None:
    with _holder(60_000_000) as process:
        family = below([process.pid])
        assert len(family) == 2 and os.getpid() not in family
        with Peak(lambda: [process.pid]) as peak:
            pass
        with Peak(lambda: [process.pid], frozenset([process.pid])) as without:
            pass
        assert process.stdin is not None
        process.stdin.close()
    assert peak.total > peak.single > 60_000_000
    assert without.total < 60_000_000
    assert peak.samples >= 1


def test_what_is_gone_holds_nothing() -> None:
    with _holder(1) as process:
        assert rss_bytes(process.pid) >= pss_bytes(process.pid) > 0
        assert process.stdin is not None
        process.stdin.close()
    assert (rss_bytes(process.pid), pss_bytes(process.pid), cpu_seconds(process.pid)) == (0, 0, 0.0)
    assert below([process.pid]) == {}


def test_quiet_is_found_at_once_where_nothing_runs() -> None:
    with _holder(1) as process:
        waited = until_quiet(below([process.pid]), window=0.2, limit=5)
        assert process.stdin is not None
        process.stdin.close()
    assert waited < 5
