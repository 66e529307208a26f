"""Seconds to verify a long ledger: everything it holds with two processes, and its hashes alone.

The command itself is measured, ``keyong verify``, start and all. Compared with what its signatures alone cost: as many bare
Ed25519 verifications by two threads, nothing read and nothing parsed; no verifier of this library can be faster.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.crypto import SigningKey
from federation.home import Home
from keyong.bench.figure import Figure
from keyong.bench.history import write_history
from keyong.bench.processes import Peak
from keyong.bench.progress import bar
from keyong.bench.rows import MEGABYTE, published
from keyong.demo.parties import DemoError, Party
from keyong.text import mark

ENTRIES, FULL_ENTRIES = 100_000, 1_000_000
"""A ledger that is not as long as published is verified twice, with so many entries and with as many more: what the command
takes before its first entry is then known apart, and is not multiplied."""
SIGNED_BYTES = 1800
"""About what a receipt and an invocation have on average."""
_SAMPLE = 2000


@dataclass(frozen=True)
class Run:
    """One run of the command: its seconds, what it printed, its peak memory."""

    seconds: float
    printed: dict[str, Any]
    peak: Peak


@dataclass(frozen=True)
class Runs:
    """Both ways to verify a ledger of so many entries."""

    entries: int
    full: Run
    fast: Run


def measure(entries: int = ENTRIES) -> list[Figure]:
    """Make a ledger of so many entries and verify it both ways; times are for the published number of entries.

    Raises:
        DemoError: the verifier did not look at all of them.
    """
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        founder = Party(Path(name), "institute")
        founder.run(
            "consortium", "init", "--name", "Benchmark", "--member", "institute", "--entity", "Benchmark Institute",
            "--address", "127.0.0.1:1",
        )  # fmt: skip
        root = founder.run("whoami")["consortium"]["fingerprint"]
        home = Home(founder.home)
        after = _both(founder, root, _write(home, entries))
        before = after if entries < FULL_ENTRIES else None
        if before is not None:
            after = _both(founder, root, _write(home, entries))
        with home.open_ledger() as ledger, ledger.reader() as connection:
            checkpoints = int(connection.execute("SELECT count(*) FROM checkpoint").fetchone()[0])
    full, size = after.full, after.entries
    statements = int(full.printed["integrity"]["statements"])
    written = entries if before is None else 2 * entries
    if statements < written or after.fast.printed["integrity"]["entries"] != size:
        raise DemoError("the verifier looked at {count} statements of {entries}", count=statements, entries=written)
    return figures(statements, checkpoints, after, before, bare_seconds(statements + checkpoints))


def figures(statements: int, checkpoints: int, after: Runs, before: Runs | None, bare: float) -> list[Figure]:
    """The figures of a ledger as long as published, or drawn on from two shorter ones in a straight line, as the note says."""
    size, full, fast = after.entries, after.full, after.fast
    held = f"{size:,} entries, {statements:,} statements and {checkpoints:,} checkpoints verified"
    times = (full.seconds, fast.seconds)
    if before is not None and size < FULL_ENTRIES:
        held += (
            f"; measured {full.seconds:.2f} s and {fast.seconds:.2f} s, with {before.entries:,} entries"
            f" {before.full.seconds:.2f} s and {before.fast.seconds:.2f} s; drawn on to {FULL_ENTRIES:,}"
        )
        times = (_drawn_on(before.entries, before.full, size, full), _drawn_on(before.entries, before.fast, size, fast))
    compared = "bare Ed25519 verification of as many signatures by two threads, same run"
    scale = max(1.0, FULL_ENTRIES / size)
    return [
        published("verify-seconds", times[0], compared_with=compared, other=bare * scale, note=held),
        published("verify-hashes-seconds", times[1]),
        Figure("verify-entries-per-second", size / full.seconds, "1/s"),
        Figure("verify-memory", full.peak.total / MEGABYTE, "MB", note="peak of the sum of PSS over its processes"),
    ]


def _drawn_on(few: int, short: Run, many: int, long: Run) -> float:
    """Seconds for :data:`FULL_ENTRIES`, by what the entries between both lengths took each."""
    return long.seconds + max(0.0, long.seconds - short.seconds) / (many - few) * (FULL_ENTRIES - many)


def bare_seconds(count: int, threads: int = 2) -> float:
    """Seconds for so many bare verifications by so many threads, from a sample."""
    key = SigningKey.generate()
    data = bytes(SIGNED_BYTES)
    signature, public = key.sign(data), key.public

    def work() -> None:
        for _ in range(_SAMPLE // threads):
            public.verify(signature, data)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - began) / _SAMPLE * count


def _write(home: Home, entries: int) -> int:
    """Append so many entries; returns how many there are then."""
    with bar(mark("entries written")) as advance:
        write_history(home, entries, advance)
    with home.open_ledger() as ledger:
        return ledger.size


def _both(founder: Party, root: str, entries: int) -> Runs:
    fast = _run(founder, root, "--hashes-only")
    return Runs(entries, _run(founder, root), fast)


def _run(founder: Party, root: str, *options: str) -> Run:
    command = founder.command("--format", "json", "verify", str(founder.home), "--root", root, *options)
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with Peak(lambda: [process.pid]) as peak:
            printed, told = process.communicate()
        seconds = time.perf_counter() - began
    if process.returncode:
        raise DemoError("`keyong verify` ended with {exit}: {why}", exit=process.returncode, why=told.strip()[-1000:])
    return Run(seconds, json.loads(printed), peak)
