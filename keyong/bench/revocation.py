"""From `agreement revoke` to the last process gone and the round told: on real processes, over TLS."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from federation.home import Home
from keyong import agreeing
from keyong.bench.figure import Figure
from keyong.bench.line import PURPOSE, Line, stand
from keyong.bench.processes import below
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.client import Client
from keyong.demo.consortium import agree, until
from keyong.text import mark

BUSY_APP = Path(__file__).parent / "busy_app"
CHILDREN = 20
_WAIT_SECONDS = 120.0


def measure(revocations: int = 5) -> list[Figure]:
    """End an agreement under a job that is at work, again and again; the slowest counts."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), 1)
        with bar(mark("revocations")) as advance:
            for number in range(revocations):
                taken.append(_revoke(line, number))
                advance(number + 1, revocations)
    note = (
        f"the slowest of {revocations}: the command's signature, its ledger entry and the end of {CHILDREN + 1} processes at the"
        " node, and the news that it fell out of the round at the requester, over the coordinator"
    )
    return [published("revocation-told-seconds", max(taken), spread=(min(taken), max(taken)), note=note)]


def _revoke(line: Line, number: int) -> float:
    (node,) = line.nodes
    (agreement,) = agree(
        line.coordinator, line.nodes, dataset="rows", title=f"Told {number}", purpose=PURPOSE, app=BUSY_APP, count=1,
        expires="1d", min_participants=None, protection="none",
    )  # fmt: skip
    command = line.coordinator.command(
        "--format", "json", "job", "run", str(BUSY_APP), "--purpose", PURPOSE, "--yes", "--min-participants", "1"
    )
    service = line.services[0].pid
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        told: list[float] = []
        reader = Thread(target=_await_fall, args=(job, told))
        reader.start()
        try:
            until(lambda: len(below([service])) > CHILDREN + 1, "no job runs at {name}", node.name, _WAIT_SECONDS)
            handles = [os.pidfd_open(process) for process in below([service]) if process != service]
            with Client(Home(node.home)) as client:
                began = time.perf_counter()
                agreeing.revoke(client, str(agreement["id"]))
                gone = _gone(handles)
            reader.join(_WAIT_SECONDS)
            if not told:
                raise TimeoutError("nobody was told that the node fell out")
            return max(gone, told[0]) - began
        finally:
            job.terminate()


def _await_fall(job: subprocess.Popen[str], told: list[float]) -> None:
    """When the requester hears that the node fell out, or denied the second try of the step that was killed."""
    assert job.stdout is not None
    for row in job.stdout:
        if row.startswith("{") and json.loads(row).get("event") in ("fell-out", "denied"):
            told.append(time.perf_counter())
            return


def _gone(handles: list[int]) -> float:
    """When the last of some processes has ended."""
    watched = select.poll()
    for handle in handles:
        watched.register(handle, select.POLLIN)
    left = set(handles)
    while left:
        for handle, _ in watched.poll(_WAIT_SECONDS * 1000):
            watched.unregister(handle)
            left.discard(handle)
    ended = time.perf_counter()
    for handle in handles:
        os.close(handle)
    return ended
