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
SIGNED_BYTES = 1800
"""About what a receipt and an invocation have on average."""
_SAMPLE = 2000


@dataclass(frozen=True)
class Run:
    """One run of the command: its seconds, what it printed, its peak memory."""

    seconds: float
    printed: dict[str, Any]
    peak: Peak


def measure(entries: int = ENTRIES) -> list[Figure]:
    """Make a ledger of so many entries and verify it both ways; times are for the published number of entries."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        founder = Party(Path(name), "institute")
        founder.run(
            "consortium", "init", "--name", "Benchmark", "--member", "institute", "--entity", "Benchmark Institute",
            "--address", "127.0.0.1:1",
        )  # fmt: skip
        root = founder.run("whoami")["consortium"]["fingerprint"]
        home = Home(founder.home)
        with bar(mark("entries written")) as advance:
            write_history(home, entries, advance)
        with home.open_ledger() as ledger, ledger.reader() as connection:
            size = ledger.size
            checkpoints = int(connection.execute("SELECT count(*) FROM checkpoint").fetchone()[0])
        fast = _run(founder, root, "--hashes-only")
        full = _run(founder, root)
    statements = int(full.printed["integrity"]["statements"])
    if statements < entries or fast.printed["integrity"]["entries"] != size:
        raise DemoError("the verifier looked at {count} statements of {entries}", count=statements, entries=entries)
    return figures(size, statements, checkpoints, full, fast, bare_seconds(statements + checkpoints))


def figures(size: int, statements: int, checkpoints: int, full: Run, fast: Run, bare: float) -> list[Figure]:
    """The figures of both runs; with fewer entries than published, times grow in proportion and the note says so."""
    scale = FULL_ENTRIES / size
    held = f"{size:,} entries, {statements:,} statements and {checkpoints:,} checkpoints verified"
    if size < FULL_ENTRIES:
        held += f"; measured {full.seconds:.2f} s and {fast.seconds:.2f} s, scaled to {FULL_ENTRIES:,} entries"
    compared = "bare Ed25519 verification of as many signatures by two threads, same run"
    return [
        published(
            "verify-seconds", full.seconds * max(1.0, scale), compared_with=compared, other=bare * max(1.0, scale),
            note=held,
        ),
        published("verify-hashes-seconds", fast.seconds * max(1.0, scale)),
        Figure("verify-entries-per-second", size / full.seconds, "1/s"),
        Figure("verify-memory", full.peak.total / MEGABYTE, "MB", note="peak of the sum of PSS over its processes"),
    ]  # fmt: skip


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
