"""How soon processes end: those of a job at the word of a revocation, and the same ones, without sandbox and line, by SIGKILL."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from keyong.bench.processes import below, cpu_seconds
from sandbox import Runtime

WAIT_SECONDS = 120.0
_PROGRAM = """
import sys
from importlib import import_module
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import_module(sys.argv[2]).train(None, SimpleNamespace(run_config={"children": int(sys.argv[3])}))
"""


def bare_kill(runtime: Runtime, app: Path, children: int, until: Callable[[Callable[[], bool]], None]) -> float:
    """Run an app's client part as a plain process, and end it by SIGKILL; the seconds until no process of it is left.

    Args:
        runtime: whose Python and packages it runs on.
        app: its folder; the client part's module is ``client_app`` in its one package, with a function ``train``.
        children: how many it forks.
        until: waits for a condition.
    """
    (module,) = app.glob("*/client_app.py")
    with subprocess.Popen(
        [str(runtime.python), "-c", _PROGRAM, str(app), f"{module.parent.name}.client_app", str(children)],
        env={"PYTHONPATH": str(runtime.path / "site-packages"), "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it says so when all is imported and forked
            until(lambda: at_work(below([process.pid]), children + 1))
            processes = sorted(below([process.pid]))
            return until_gone(processes, lambda: _kill(processes))
        except BaseException:
            _kill(below([process.pid]))
            raise


def until_gone(processes: Iterable[int], act: Callable[[], object]) -> float:
    """Seconds from the act's begin to the end of the last process; the act may take longer."""
    watched = select.poll()
    handles = set()
    for process in processes:
        try:
            handles.add(os.pidfd_open(process))
        except ProcessLookupError:
            continue
    for handle in handles:
        watched.register(handle, select.POLLIN)
    left = set(handles)
    began = time.perf_counter()
    acting = Thread(target=act)
    acting.start()
    try:
        while left:
            for handle, _ in watched.poll(WAIT_SECONDS * 1000):
                watched.unregister(handle)
                left.discard(handle)
        return time.perf_counter() - began
    finally:
        acting.join()
        for handle in handles:
            os.close(handle)


def at_work(processes: Collection[int], count: int) -> bool:
    """Whether there are as many, and they have computed for a while since."""
    if len(processes) < count:
        return False
    before = sum(map(cpu_seconds, processes))
    time.sleep(0.5)  # what is measured is a job at work
    return sum(map(cpu_seconds, processes)) > before + 0.1


def _kill(processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
