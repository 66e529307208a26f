"""Keeps what is shown up to the ledger: the index as entries come, the verdict as time allows."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from federation.errors import KeyongError, VerificationError
from federation.ledger.store import reading
from keyong.pages.index import covered
from keyong.pages.judging import Judgement, fault, judge
from keyong.pages.source import Source

LOOK_SECONDS = 2.0
"""Between looks at a ledger that may have grown."""
JUDGED_AGAIN_SECONDS = 60.0
"""Least between two verifications of a growing ledger; ten times what the last one took, where that is more."""


class Watch:
    """Two threads beside the server; used as a context."""

    def __init__(self, source: Source, fingerprint: str) -> None:
        self.source = source
        self.judgement: Judgement | None = None
        """None until the first verification is done."""
        self.size = 0
        self.indexed = 0
        self._fingerprint = fingerprint
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._index, self._judge)]

    def __enter__(self) -> Watch:
        with self.source.index.reader() as connection:
            self.indexed = covered(connection)
        self.size = self._counted()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _counted(self) -> int:
        with reading(self.source.database) as connection:
            return int(connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0])

    def _index(self) -> None:
        while True:
            with contextlib.suppress(KeyongError):  # a ledger that cannot be read now says so on its pages
                self.size = self._counted()
                self.indexed = self.source.index.bring_up(self._advanced, self._stopping.is_set)
            if self._stopping.wait(LOOK_SECONDS):
                return

    def _advanced(self, done: int, total: int) -> None:
        self.indexed, self.size = done, total

    def _judge(self) -> None:
        # Spawned, not forked: this process has threads.
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_until_told)
        try:
            while not self._stopping.is_set():
                began, size = time.monotonic(), self.size
                self.judgement = self._judged(pool)
                pause = max(JUDGED_AGAIN_SECONDS, 10 * (time.monotonic() - began))
                while self.source.is_export or self.size == size or time.monotonic() < began + pause:
                    if self._stopping.wait(LOOK_SECONDS):
                        return
        except BrokenProcessPool:
            return  # ended with us, by the same signal
        finally:
            for process in list((pool._processes or {}).values()) if self._stopping.is_set() else ():
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)

    def _judged(self, pool: ProcessPoolExecutor) -> Judgement | None:
        running: Future[Judgement] = pool.submit(judge, self.source.path, self._fingerprint)
        while not self._stopping.is_set():
            try:
                return running.result(LOOK_SECONDS)
            except TimeoutError:
                continue
            except VerificationError as error:
                return fault(error)
            except KeyongError:
                return self.judgement
        return self.judgement


def _until_told() -> None:
    """In the verifying process: Ctrl-C is for the server, which then ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
