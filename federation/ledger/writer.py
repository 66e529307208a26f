"""The single writer: a thread that turns what many callers submit into groups, one durable transaction each.

A group is committed as soon as the queue is quiet; only while several callers are busy does it wait for more, at most
10 ms or 256 entries, so an idle ledger answers at once. One group is: lock, BEGIN IMMEDIATE, re-read the head (another
process of the same home may have moved it), entries, tree, one signed checkpoint, COMMIT, last-signed file, replies.

If COMMIT fails, it may still have happened: the connection is thrown away and a fresh one asked whether our last leaf
is there. That alone proves nothing: after an fsync that failed, what the page cache shows need never reach the disk, and
a later fsync of the same pages may succeed without writing them (Rebello et al., "Can Applications Recover from fsync
Failures?", USENIX ATC 2020). So the whole log is written back into the database and synced there before the entry is
acknowledged, and the head is read and checked anew, whatever this process knew of it. A checkpoint that was signed for a
transaction that did not happen never leaves this process's memory.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from federation.crypto import SigningKey
from federation.ledger._guard import ApplyGuard, is_storage_fault
from federation.ledger._head import Head, load_head
from federation.ledger._last_signed import locked, write_last_signed
from federation.ledger.checkpoint import Checkpoint, sign_checkpoint
from federation.ledger.entry import (
    NONCE_BYTES,
    Clock,
    Entry,
    Field,
    check_kind,
    check_sealed,
    encode,
    format_time,
    seal_all,
)
from federation.ledger.errors import EntryRefusedError, LedgerUnavailableError
from federation.ledger.merkle import leaf_hash
from federation.ledger.note import VerifierKey
from federation.ledger.store import DATABASE, connect

HANDOVER: Final = "key-handover"
"""The last entry under a key."""
KEPT_KEY: Final = "key-kept"
"""Takes a handover back."""
GROUP_ENTRIES = 256
GROUP_SECONDS = 0.010
_QUIET_SECONDS = 0.0005
# Not spelled as a caller would: a prepared statement is reused by its text, past the guard.
_COMMIT = "COMMIT /* ledger */"
_ROLLBACK = "ROLLBACK /* ledger */"

Apply = Callable[[sqlite3.Connection], Mapping[str, object] | None]


@dataclass(frozen=True, slots=True)
class Appended:
    """A durable entry: where it is, when it was written, and the signed state that first held it."""

    index: int
    leaf_hash: bytes
    time: str
    size: int
    root: bytes
    last: LastEntry | None = field(default=None, repr=False, compare=False)
    """What a proof of it needs, where it is the last one of that state."""


@dataclass(frozen=True, slots=True, repr=False)
class LastEntry:
    """The last entry of a signed state: its bytes and fields, the tree's right edge before it, the signed checkpoint."""

    data: bytes
    fields: Mapping[str, Field]
    edge: tuple[bytes, ...]
    note: bytes


@dataclass(slots=True, repr=False)
class Submission:
    """What a caller wants written, sealed, with the future that will say what became of it."""

    kind: str
    fields: Mapping[str, Field]
    ref: int | None
    apply: Apply | None
    future: Future[Appended] = field(default_factory=Future)

    @classmethod
    def make(cls, kind: str, fields: Mapping[str, object], ref: int | None, apply: Apply | None) -> Submission:
        """Seal the fields in the caller's thread, so that a bad entry is refused before it is queued."""
        if ref is not None and (type(ref) is not int or ref < 0):
            raise EntryRefusedError("an entry refers to an earlier entry by its index")
        return cls(check_kind(kind), seal_all(fields), ref, apply)


@dataclass(slots=True)
class _Group:
    """The rows of one transaction, and whom to answer once it is durable."""

    head: Head
    entries: list[tuple[object, ...]] = field(default_factory=list)
    fields: list[tuple[object, ...]] = field(default_factory=list)
    tiles: list[tuple[object, ...]] = field(default_factory=list)
    written: list[tuple[Submission, int, bytes, str]] = field(default_factory=list)
    last: LastEntry | None = None

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the rows gathered so far into the open transaction."""
        connection.executemany(
            "INSERT INTO entry (idx, kind, ref, time, leaf, data) VALUES (?,?,?,?,?,?)", self.entries
        )
        connection.executemany("INSERT INTO field (idx, name, form, salt, payload) VALUES (?,?,?,?,?)", self.fields)
        connection.executemany("INSERT INTO tile (level, number, hash) VALUES (?,?,?)", self.tiles)
        self.entries.clear()
        self.fields.clear()
        self.tiles.clear()

    def add(self, item: Submission, fields: Mapping[str, Field], now: str) -> None:
        """Take ``item`` as the next entry; nothing is changed if it is refused."""
        head = self.head
        index = head.size
        if item.ref is not None and item.ref >= index:
            raise EntryRefusedError("an entry refers to an earlier entry by its index")
        # A clock that was set back must not make the record look forged: time stands still until it has caught up.
        moment = max(now, head.time)
        entry = Entry(
            index,
            item.kind,
            head.leaf.hex(),
            moment,
            secrets.token_hex(NONCE_BYTES),
            item.ref,
            {name: one.commitment() for name, one in fields.items()},
        )
        data = encode(entry)
        leaf = leaf_hash(data)
        self.entries.append((index, item.kind, item.ref, moment, leaf, data))
        self.fields.extend((index, name, one.form, one.salt, one.payload) for name, one in fields.items())
        self.last = LastEntry(data, fields, tuple(head.frontier.stack), b"")
        self.tiles.extend((tile.level, tile.number, tile.hash) for tile in head.append(leaf, moment, item.kind))
        self.written.append((item, index, leaf, moment))


class Writer:
    """Appends to one folder; thread-safe, and safe beside writers of other processes."""

    def __init__(self, folder: Path, vkey: VerifierKey, key: SigningKey, clock: Clock) -> None:
        self._folder = folder
        self._origin = vkey.name
        self._key = key
        self._vkey = vkey
        self._clock = clock
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._head: Head | None = None
        self._file_behind = False
        self._guard = ApplyGuard()

    def submit(self, item: Submission) -> Future[Appended]:
        """Queue ``item``; its future is done after COMMIT, or holds the reason why not."""
        with self._start:
            if self._closed:
                raise LedgerUnavailableError("the ledger is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
                self._thread.start()
            self._queue.put(item)
        return item.future

    def transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run ``work`` in a transaction of its own, without an entry (schema, cosignatures); not through the queue."""
        with locked(self._folder):
            connection = connect(self._folder / DATABASE)
            try:
                connection.execute("BEGIN IMMEDIATE")
                work(connection)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise _unavailable(error) from error
            finally:
                connection.close()

    def check(self) -> Head:
        """Load and check the head now; raises what an append would raise."""
        with locked(self._folder):
            return load_head(self._folder, self._vkey, None)

    def close(self) -> None:
        """Write what is queued, then stop; later calls are refused."""
        with self._start:
            self._closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None:
            thread.join()
        self._drop_connection()

    # -- the writer thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        crowd = 1
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, ended = self._gather(first, crowd)
            crowd = len(group)
            group = [item for item in group if item.future.set_running_or_notify_cancel()]
            try:
                self._write(group)
            except BaseException as error:  # the thread must outlive any group; each caller gets the reason
                self._fail(group, error)
            if ended:
                return

    def _gather(self, first: Submission, crowd: int) -> tuple[list[Submission], bool]:
        """Return the next group; waits only while it is smaller than the last one, and never in a quiet queue."""
        group = [first]
        deadline = time.monotonic() + GROUP_SECONDS
        while len(group) < GROUP_ENTRIES:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                if len(group) >= crowd or time.monotonic() > deadline:
                    break
                try:
                    item = self._queue.get(timeout=_QUIET_SECONDS)
                except queue.Empty:
                    break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _write(self, items: list[Submission]) -> None:
        if not items:
            return
        with locked(self._folder):
            try:
                group, note = self._store(items)
            except (sqlite3.Error, OSError) as error:
                self._distrust()
                raise _unavailable(error) from error
            except BaseException:
                self._distrust()
                raise
            if group.written or self._file_behind:
                self._file_behind = True
                write_last_signed(self._folder, note)
                self._file_behind = False
        size, root = group.head.size, group.head.root
        for item, index, leaf, moment in group.written:
            last = replace(group.last, note=note) if group.last is not None and index == size - 1 else None
            item.future.set_result(Appended(index, leaf, moment, size, root, last))

    def _store(self, items: list[Submission]) -> tuple[_Group, bytes]:
        """Run one transaction; on return it is durable, whatever COMMIT said."""
        if self._connection is None:
            self._connection = connect(self._folder / DATABASE)
            self._connection.set_authorizer(self._guard)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        head = load_head(self._folder, self._vkey, self._head, connection)
        group = _Group(head.copy())
        now = format_time(self._clock())
        for item in items:
            if self._is_handed_over(group.head, item):
                item.future.set_exception(
                    LedgerUnavailableError(
                        "the ledger's key is being exchanged, and its owner has not finished that",
                        hint="finish it: keyong keys rotate",
                        code="ledger-key-exchange",
                    )
                )
                continue
            self._take(connection, group, item, now)
        if not group.written:
            connection.execute(_ROLLBACK)
            self._head = head
            return group, head.note
        group.flush(connection)
        checkpoint = Checkpoint(self._origin, group.head.size, group.head.seal())
        note = sign_checkpoint(checkpoint, self._key)
        group.head.note = note
        connection.execute("INSERT INTO checkpoint (size, note) VALUES (?, ?)", (checkpoint.size, note))
        connection.execute("UPDATE head SET size = ?, root = ? WHERE one = 1", (checkpoint.size, checkpoint.root))
        try:
            connection.execute(_COMMIT)
        except sqlite3.Error:
            self._drop_connection()
            if not self._is_durable(group):
                raise
        self._head = group.head
        return group, note

    def _is_handed_over(self, head: Head, item: Submission) -> bool:
        """Whether the last entry was this key's last one, and the key that took over is not ours."""
        former = self._vkey.former
        ours = bool(former) and former[-1].size == head.size
        return head.kind == HANDOVER and item.kind != KEPT_KEY and not ours

    def _take(self, connection: sqlite3.Connection, group: _Group, item: Submission, now: str) -> None:
        """Add one entry with what it applies; if either is refused, only this entry is undone and its caller told."""
        if item.apply is None:
            try:
                group.add(item, item.fields, now)
            except EntryRefusedError as error:
                item.future.set_exception(error)
            return
        group.flush(connection)  # so that what is applied sees the entries before it
        connection.execute("SAVEPOINT submission")
        try:
            fields = dict(item.fields)
            with self._guard.applying():
                extra = seal_all(item.apply(connection) or {})
            if fields.keys() & extra.keys():
                raise EntryRefusedError("what an entry applies must not name a field twice")
            fields.update(extra)
            check_sealed(fields)
            group.add(item, fields, now)
        except Exception as error:
            if not connection.in_transaction or is_storage_fault(error):
                raise  # a full or failing disk: the whole group is undone
            connection.execute("ROLLBACK TO submission")
            connection.execute("RELEASE submission")
            item.future.set_exception(error)
            return
        connection.execute("RELEASE submission")

    def _is_durable(self, group: _Group) -> bool:
        """Ask a fresh connection whether a COMMIT that raised happened all the same, and make it durable if it did.

        Raises:
            sqlite3.Error: it cannot be made durable.
        """
        _, index, leaf, _ = group.written[-1]
        connection = connect(self._folder / DATABASE)
        try:
            row = connection.execute("SELECT leaf FROM entry WHERE idx = ?", (index,)).fetchone()
            if row is None or row[0] != leaf:
                return False
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        finally:
            connection.close()

    def _fail(self, items: list[Submission], error: BaseException) -> None:
        for item in items:
            if not item.future.done():
                item.future.set_exception(error)

    def _distrust(self) -> None:
        """After a failure: a new connection, and a head that is read and checked against what was signed."""
        self._drop_connection()
        self._head = None

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _unavailable(error: sqlite3.Error | OSError) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        "the ledger could not be written: {reason}",
        hint="free the disk or mend the folder's permissions, then try again; nothing is acknowledged",
        reason=str(error),
    )
