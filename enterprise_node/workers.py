"""Workers in waiting: sandbox sessions that were started, and have imported what job code imports, before there is a job.

One belongs to nobody: its data folder is empty, it has run nothing but the runtime's own code, and it knows neither
dataset nor requester. With a job's INTENT it becomes that job's session, and only that job's: it ends with it. A worker is
what a cold session would be, two or three seconds older; where none waits, a job gets a cold one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

log = structlog.get_logger("keyong.node")

WORKER = ("-m", "keyong_job", "client")
ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
IMPORTS = ("numpy", "pyarrow.parquet", "torch", "keyong_job.client")
"""What job code imports first and what takes longest; what a runtime lacks is left out."""
_MOST = Limits(memory_bytes=1 << 40)
"""A plan says how much its job may have, when it comes; nothing of a job runs before."""
_WAITS = """
import importlib, os, runpy, shutil, sys
worker, names = sys.argv[1:3], sys.argv[3:]
for name in names:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
for name in os.listdir(os.environ["TMPDIR"]):  # torch lays out a cache there; a job finds its scratch empty
    shutil.rmtree(os.path.join(os.environ["TMPDIR"], name), ignore_errors=True)
try:
    from keyong_job.memory import settle
    settle()  # or the job's first step waits for a look through all that was imported here
except ImportError:
    pass
sys.argv = ["-m", *worker[1:]]
runpy._run_module_as_main(worker[0])
"""
AGAIN_SECONDS = 60.0
"""How soon after a worker could not be started another try is made."""


@dataclass(frozen=True)
class Worker:
    """One session on standby and the host's side of its two empty folders."""

    folder: Path
    session: Session
    runtime: tuple[object, ...]

    def fits(self, runtime: Runtime, tier: Tier) -> bool:
        """Whether it may become a job's session: alive, at this tier, and of this very runtime."""
        alive = self.session.ending is None
        return alive and self.session.evidence.tier is tier and self.runtime == _identity(runtime)


class Workers:
    """The pool of one node.

    Args:
        sessions: folder of the node's sessions; whoever clears it at the start clears what a crash left of these, too.
        runtime: what sessions run on.
        size: how many wait; 0 for none.
        imports: what a worker imports before it waits.
    """

    def __init__(self, sessions: Path, runtime: Runtime, size: int, imports: Sequence[str] = IMPORTS) -> None:
        self._sessions = sessions
        self._runtime = runtime
        self._size = size
        self._imports = tuple(imports)
        self._waiting: list[Worker] = []
        self._filling = asyncio.Lock()
        self._not_before = 0.0
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, tier: Tier) -> Worker | None:
        """Return a worker that is the caller's from now on, or None; one that does not fit is thrown away."""
        while self._waiting:
            worker = self._waiting.pop()
            if worker.fits(self._runtime, tier):
                return worker
            self._discard(worker)
        return None

    async def fill(self, tier: Tier) -> None:
        """Start as many as are wanted, one after the other; what cannot be started is tried again later. None at T3 and
        T0, whose sessions cannot be looked at as closely before they are handed over."""
        async with self._filling:
            while (
                tier not in (Tier.T0, Tier.T3)
                and len(self._waiting) < self._size
                and not self._closed
                and time.monotonic() >= self._not_before
            ):
                try:
                    worker = await in_thread(lambda: self._start(tier), undo=self._discard)
                except (SandboxError, OSError) as error:
                    log.warning("no-worker-in-waiting", error=type(error).__name__, reason=str(error))
                    self._not_before = time.monotonic() + AGAIN_SECONDS
                    return
                if self._closed:
                    await asyncio.to_thread(self._discard, worker)
                else:
                    self._waiting.append(worker)

    async def close(self) -> None:
        """End them all; none is started any more."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for worker in waiting:
            await asyncio.to_thread(self._discard, worker)

    def _start(self, tier: Tier) -> Worker:
        folder = self._sessions / f"waiting-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        mounts = []
        for name in ("app", "data"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)  # the session's own user reads it; the folder above keeps others out
            mounts.append(Mount(folder / name, f"/{name}"))
        spec = SessionSpec(
            self._runtime,
            ("-c", _WAITS, *WORKER[1:], *self._imports),
            mounts=tuple(mounts),
            env=ENVIRONMENT,
            limits=_MOST,
            tier=tier,
            standby=True,
        )
        try:
            return Worker(folder, open_session(spec), _identity(self._runtime))
        except BaseException:
            remove_tree(folder)
            raise

    def _discard(self, worker: Worker) -> None:
        try:
            worker.session.close()
        except SandboxError as error:
            log.error("session-not-closed", code=error.code, reason=str(error))
        remove_tree(worker.folder)


def _identity(runtime: Runtime) -> tuple[object, ...]:
    """The runtime as it is now: its name, and the very folder that a session has in view."""
    state = runtime.path.stat()
    return runtime.digest, state.st_dev, state.st_ino, state.st_mtime_ns
