"""What was read from a store, kept for as long as nobody commits to it: a fresh answer without the query.

SQLite counts, for each connection, the commits of all others, of this process or of another one (``PRAGMA data_version``,
https://www.sqlite.org/pragma.html#pragma_data_version). Looking at the count takes a hundredth of the time of a query
through the object mapper, so what has to be asked anew with every step of a job can be.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Engine

MOST = 1024
_T = TypeVar("_T")


class KeptAnswers:
    """Answers of one store, thread-safe. Who shares one must not change what it gets."""

    def __init__(self, engine: Engine) -> None:
        from sqlalchemy import event

        self._path = engine.url.database or ""
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._answers: dict[Hashable, Any] = {}
        event.listen(engine, "engine_disposed", lambda _: self.close())

    def get(self, question: Hashable, ask: Callable[[], _T]) -> _T:
        """The answer as it is now: the one that was kept, where nothing was committed since; else ``ask`` is asked.

        Where the store cannot be looked at, ``ask`` is asked too, and says so in its own words.
        """
        with self._lock:
            # Looked at before it is read: what comes in between is seen by the next look.
            seen = self._look()
            if seen is None or seen != self._seen or len(self._answers) >= MOST:
                self._answers.clear()
                self._seen = seen
            if seen is not None and question in self._answers:
                kept: _T = self._answers[question]
                return kept
            answer = ask()
            if seen is not None:
                self._answers[question] = answer
            return answer

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            self._drop()

    def _look(self) -> int | None:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            self._drop()
            return None

    def _drop(self) -> None:
        self._answers.clear()
        self._seen = None
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
