"""The ledger of one party: append, read, prove, disclose."""

from __future__ import annotations

import math
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from federation.crypto import SigningKey
from federation.errors import UsageError
from federation.ledger import export as _export
from federation.ledger import tiles as _tiles
from federation.ledger._last_signed import heed, locked, read_last_signed, write_last_signed
from federation.ledger._reading import entry_data, entry_fields, newest_note, statements
from federation.ledger.bundle import encode_bundle
from federation.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from federation.ledger.entry import Clock, Entry, decode, utc_now
from federation.ledger.errors import LedgerUnavailableError, LedgerUnreadableError, ProofError
from federation.ledger.merkle import EMPTY_ROOT, consistency_proof, inclusion_proof
from federation.ledger.note import FormerKey, Note, NoteSignature, VerifierKey, parse_note
from federation.ledger.store import (
    DATABASE,
    FORMAT,
    LAST_SIGNED,
    SCHEMA,
    Readers,
    connect,
    make_file,
    newer,
    node_source,
    reading,
)
from federation.ledger.writer import HANDOVER, KEPT_KEY, Appended, Apply, Submission, Writer

_PAGE = 256
LEAST_FREE_BYTES = 16 * 2**20
"""Below this the ledger counts as not writable: SQLite's log of a full group, and some room to say so."""
ERASURE = "erasure"


class Ledger:
    """An append-only, signed history in a folder (``ledger.db``, ``ledger.checkpoint``, ``ledger.lock``).

    Thread-safe. Several processes of one home may have the same folder open.
    """

    def __init__(
        self, folder: Path, origin: str, key: SigningKey, clock: Clock, former: tuple[FormerKey, ...] = ()
    ) -> None:
        self.folder = folder
        self.origin = origin
        self.vkey = VerifierKey(origin, key.public, former=former)
        self._database = folder / DATABASE
        self._readers = Readers(self._database)
        self._writer = Writer(folder, self.vkey, key, clock)
        self.observe: Callable[[float, bool], None] | None = None
        """Told of each entry: seconds until it was durable or refused, and whether it is durable."""

    @classmethod
    def create(cls, folder: Path, origin: str, key: SigningKey, clock: Clock = utc_now) -> Self:
        """Begin a ledger in ``folder`` (which exists) and sign its empty state.

        Raises:
            UsageError: there is one already.
        """
        folder = Path(folder)
        note = sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), key)
        with locked(folder):
            try:
                make_file(folder / DATABASE)
                connection = connect(folder / DATABASE)
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    if connection.execute("SELECT 1 FROM sqlite_master").fetchone() or read_last_signed(
                        folder, VerifierKey(origin, key.public)
                    ):
                        raise UsageError("{folder} already holds a ledger", folder=folder)
                    for statement in SCHEMA:
                        connection.execute(statement)
                    connection.execute("INSERT INTO checkpoint (size, note) VALUES (0, ?)", (note,))
                    connection.execute("INSERT INTO head (one, size, root) VALUES (1, 0, ?)", (EMPTY_ROOT,))
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                    connection.execute("COMMIT")
                finally:
                    connection.close()
            except (sqlite3.Error, OSError) as error:
                raise LedgerUnavailableError("the ledger cannot be created: {reason}", reason=str(error)) from error
            write_last_signed(folder, note)
        return cls.open(folder, key, clock)

    @classmethod
    def open(cls, folder: Path, key: SigningKey, clock: Clock = utc_now, former: tuple[FormerKey, ...] = ()) -> Self:
        """Open the ledger in ``folder`` for appending, after checking its head; ``former`` are the keys it had before ``key``.

        Raises:
            LedgerRolledBackError: it is older than the last checkpoint it signed.
            ForkError: it is not the history it signed.
            KeySubstitutionError, HeadError, CheckpointMissingError, ...: it was changed, or ``key`` is another's.
            LedgerUnavailableError: it is not there or cannot be read.
        """
        folder = Path(folder)
        with reading(folder / DATABASE) as connection:
            row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        if row is None:
            raise LedgerUnreadableError("the ledger holds no signed checkpoint")
        ledger = cls(folder, Checkpoint.parse(parse_note(row[0]).text).origin, key, clock, former)
        ledger._writer.check()
        return ledger

    def close(self) -> None:
        """Write what was submitted, then close."""
        self._writer.close()
        self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------------

    def submit(
        self, kind: str, fields: Mapping[str, object], *, ref: int | None = None, apply: Apply | None = None
    ) -> Future[Appended]:
        """Queue an entry; the future is done after COMMIT.

        Args:
            kind: ``[a-z][a-z0-9.-]*``, in the clear.
            fields: name to JSON value (committed as canonical JSON) or bytes (committed as they are).
            ref: index of the earlier entry that this one settles, in the clear: an outcome's intent.
            apply: runs in the writer's thread, in the entry's transaction, before the entry is written, and may return
                further fields. If it raises, this entry alone is undone and the future holds the exception. It must be
                quick (everybody waits) and leave the transaction to the ledger.

        Raises:
            EntryRefusedError, CanonicalError: the entry breaks the format; nothing was queued.
        """
        began = time.perf_counter()
        future = self._writer.submit(Submission.make(kind, fields, ref, apply))
        if (observe := self.observe) is not None:
            future.add_done_callback(
                lambda done: observe(time.perf_counter() - began, not done.cancelled() and done.exception() is None)
            )
        return future

    def check_writable(self) -> None:
        """Raise :class:`LedgerUnavailableError` where an entry written now would not be taken; nothing is written."""
        free = shutil.disk_usage(self.folder).free if self._database.is_file() else 0
        if free < LEAST_FREE_BYTES:
            raise LedgerUnavailableError(
                "the ledger could not be written: {reason}",
                hint="free the disk or mend the folder's permissions, then try again; nothing was written",
                reason=f"{free // 2**20} MiB free",
            )
        self._writer.transact(lambda connection: connection.execute("SELECT size FROM head").fetchone())

    def append(
        self, kind: str, fields: Mapping[str, object], *, ref: int | None = None, apply: Apply | None = None
    ) -> Appended:
        """Write an entry and return once it is durable; arguments as for ``submit``.

        Raises:
            LedgerUnavailableError: it is not acknowledged; rely on nothing.
            Exception: whatever ``apply`` raised.
        """
        return self.submit(kind, fields, ref=ref, apply=apply).result()

    def erase(self, index: int, names: Collection[str], reason: str, by: str = "") -> Appended:
        """Delete salt and payload of fields of entry ``index``, and record that as an ``erasure`` entry.

        The commitments stay, so every proof still holds; without the salt they tell nothing about the values.

        Args:
            reason: why; ``by``: whoever decided it. Both are on record and cannot be erased.
        """
        if self.entry(index).kind == ERASURE:
            raise UsageError("what was erased, and why, cannot be erased itself")

        def delete(connection: sqlite3.Connection) -> None:
            for name in names:
                found = connection.execute("DELETE FROM field WHERE idx = ? AND name = ?", (index, name))
                if found.rowcount != 1:
                    raise UsageError("entry {index} has no field {field} to erase", index=index, field=name)

        appended = self.append(ERASURE, {"fields": sorted(names), "reason": reason, "by": by}, ref=index, apply=delete)
        connection = connect(self._database)
        try:
            # The old pages also stand in the -wal file until it is written back.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        return appended

    def ensure_schema(self, name: str, version: int, ddl: str | Sequence[str]) -> None:
        """Bring the caller's tables ``name`` to ``version`` by ``ddl``; call it for 1, 2, ... in order.

        Raises:
            UsageError: a version in between was left out.
        """

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT version FROM schema_version WHERE name = ?", (name,)).fetchone()
            current = row[0] if row else 0
            if current >= version:
                return
            if current != version - 1:
                raise UsageError(
                    "schema {name} cannot go from version {current} to {version}",
                    name=name,
                    current=current,
                    version=version,
                )
            for statement in [ddl] if isinstance(ddl, str) else ddl:
                for one in statements(statement):
                    connection.execute(one)
            connection.execute(
                "INSERT INTO schema_version (name, version) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                (name, version),
            )

        self._writer.transact(work)

    def check_schema(self, name: str, known: int) -> None:
        """Refuse the caller's tables ``name`` where a newer release brought them beyond version ``known``.

        Raises:
            StoreNewerError: this release would misread them.
        """
        if (found := self.schema_version(name)) > known:
            raise newer(f"{DATABASE} ({name})", found, known)

    def schema_version(self, name: str) -> int:
        """Return the stored version of the caller's tables ``name``, 0 where there are none."""
        with self.reader() as connection:
            row = connection.execute("SELECT version FROM schema_version WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def add_cosignatures(self, note: bytes, witnesses: Sequence[VerifierKey]) -> tuple[str, ...]:
        """Keep the cosignatures under one of our checkpoints; returns the names of the witnesses that hold.

        Raises:
            ProofError: not a checkpoint that we signed.
            NoteSignatureError, ...: a signature does not hold.
        """
        opened = open_checkpoint(note, self.vkey, witnesses)
        incoming = parse_note(note)
        known = {(key.name, key.key_id) for key in witnesses}

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT note FROM checkpoint WHERE size = ?", (opened.checkpoint.size,)).fetchone()
            stored = parse_note(row[0]) if row else None
            if stored is None or stored.text != incoming.text:
                raise ProofError("this checkpoint of {size} entries is not one of ours", size=opened.checkpoint.size)
            new = [one for one in incoming.signatures if (one.name, one.key_id) in known]
            merged = Note(stored.text, tuple(dict.fromkeys((*stored.signatures, *new))))
            connection.execute(
                "UPDATE checkpoint SET note = ? WHERE size = ?", (merged.encode(), opened.checkpoint.size)
            )

        self._writer.transact(work)
        return opened.witnesses

    def hand_over(self, successor: SigningKey, fields: Mapping[str, object]) -> bytes:
        """Write the last entry under this key; returns its checkpoint, signed by this key and by the one that takes over.

        Nothing is written after it but by the successor (see ``open``'s ``former``), or once :meth:`keep_key` took it back. A
        handover that was begun before is gone on with.
        """
        with self.reader() as connection:
            last = connection.execute("SELECT kind FROM entry ORDER BY idx DESC LIMIT 1").fetchone()
        if last is None or last[0] != HANDOVER:
            self.append(HANDOVER, fields)
        merged = b""

        def countersign(connection: sqlite3.Connection) -> None:
            nonlocal merged
            note = parse_note(newest_note(connection))
            checkpoint = Checkpoint.parse(note.text)
            added = parse_note(sign_checkpoint(checkpoint, successor)).signatures
            merged = Note(note.text, tuple(dict.fromkeys((*note.signatures, *added)))).encode()
            connection.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (merged, checkpoint.size))

        self._writer.transact(countersign)
        own = {(self.vkey.name, key.key_id) for key in (self.vkey, VerifierKey(self.vkey.name, successor.public))}
        return _only(merged, own)

    def keep_key(self, fields: Mapping[str, object]) -> None:
        """Take back a handover that nobody else took: this key goes on."""
        self.append(KEPT_KEY, fields)

    def heed(self, note: bytes) -> None:
        """Compare with a checkpoint of ours that somebody else holds; see `federation.ledger._last_signed.heed`."""
        signed = open_checkpoint(note, self.vkey)
        with locked(self.folder), self.reader() as connection:
            heed(self.folder, signed, self._size(connection, None), newest_note(connection), node_source(connection))

    # -- reading ------------------------------------------------------------------------------------------------------

    def reader(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give a read-only connection that sees one snapshot."""
        return self._readers.reading()

    @property
    def size(self) -> int:
        """How many entries are durable."""
        with self.reader() as connection:
            return int(connection.execute("SELECT size FROM head").fetchone()[0])

    def checkpoint_time(self) -> datetime:
        """Return when the newest state was signed."""
        return datetime.fromtimestamp((self.folder / LAST_SIGNED).stat().st_mtime, UTC)

    def idle_seconds(self) -> float:
        """How long ago the newest state was signed, by this machine's clock; infinite where there is none yet."""
        try:
            return time.time() - (self.folder / LAST_SIGNED).stat().st_mtime
        except OSError:
            return math.inf

    def checkpoint(self) -> bytes:
        """Return the signed note over the newest state, with the cosignatures it has."""
        with self.reader() as connection:
            return newest_note(connection)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Yield the envelopes ``start`` to ``stop`` as they are when each page is read."""
        while stop is None or start < stop:
            last = start + _PAGE if stop is None else min(stop, start + _PAGE)
            with self.reader() as connection:
                rows = connection.execute(
                    "SELECT idx, data FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, last)
                ).fetchall()
            if not rows:
                return
            yield from (decode(data, index) for index, data in rows)
            start = rows[-1][0] + 1

    def entry(self, index: int) -> Entry:
        """Return one envelope."""
        with self.reader() as connection:
            return decode(entry_data(connection, index), index)

    def fields(self, index: int) -> dict[str, Any]:
        """Return the values of entry ``index`` (JSON, or bytes); erased fields are absent."""
        with self.reader() as connection:
            return {name: field.value() for name, field in entry_fields(connection, index).items()}

    def find(self, *, kind: str | None = None, ref: int | None = None, start: int = 0) -> Iterator[Entry]:
        """Yield the envelopes of a kind, or that refer to an entry, from ``start`` on."""
        while True:
            with self.reader() as connection:
                rows = connection.execute(
                    "SELECT idx, data FROM entry WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR ref = ?2)"
                    " AND idx >= ?3 ORDER BY idx LIMIT ?4",
                    (kind, ref, start, _PAGE),
                ).fetchall()
            yield from (decode(data, index) for index, data in rows)
            if len(rows) < _PAGE:
                return
            start = rows[-1][0] + 1

    # -- proving ------------------------------------------------------------------------------------------------------

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the inclusion proof of entry ``index`` in the tree of ``size`` entries (now, if None)."""
        with self.reader() as connection:
            return inclusion_proof(index, self._size(connection, size), node_source(connection))

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Return the proof that the tree of ``new`` entries (now, if None) extends the tree of ``old``."""
        with self.reader() as connection:
            return consistency_proof(old, self._size(connection, new), node_source(connection))

    def receipt_bundle(self, index: int, disclose: Collection[str] | None = None) -> bytes:
        """Return entry, fields (all, or those named), inclusion proof and signed checkpoint: verifiable offline."""
        with self.reader() as connection:
            note = newest_note(connection)
            size = Checkpoint.parse(parse_note(note).text).size
            data = entry_data(connection, index)
            proof = inclusion_proof(index, size, node_source(connection))
            fields = entry_fields(connection, index)
        chosen = {name: one for name, one in fields.items() if disclose is None or name in disclose}
        return encode_bundle(data, chosen, index, size, proof, note)

    def bundle_of(self, appended: Appended) -> bytes:
        """Return what ``receipt_bundle`` returns of an entry that was just written; mostly without reading anything."""
        last = appended.last
        if last is None:
            return self.receipt_bundle(appended.index)
        # Beside the last leaf of a tree stand the complete subtrees before it, the smallest one next to it (RFC 6962, 2.1.1).
        return encode_bundle(last.data, last.fields, appended.index, appended.size, last.edge[::-1], last.note)

    def export(self, path: Path, *, disclose: Callable[[Entry], Collection[str]]) -> None:
        """Write the whole history to one file, with the fields that ``disclose`` names for each entry."""
        with self.reader() as connection:
            _export.write_export(connection, Path(path), disclose)

    def write_tiles(self, folder: Path) -> int:
        """Write the history to ``folder`` in the C2SP layout, or what of it is not there yet; returns how many files."""
        with self.reader() as connection:
            return _tiles.write_tiles(connection, Path(folder))

    def _size(self, connection: sqlite3.Connection, wanted: int | None) -> int:
        size = int(connection.execute("SELECT size FROM head").fetchone()[0])
        if wanted is not None and wanted > size:
            raise ProofError("the ledger has {size} entries, not {wanted}", size=size, wanted=wanted)
        return size if wanted is None else wanted


def _only(data: bytes, keys: Collection[tuple[str, bytes]]) -> bytes:
    """A note with the signatures of these keys alone."""
    note = parse_note(data)
    kept: tuple[NoteSignature, ...] = tuple(one for one in note.signatures if (one.name, one.key_id) in keys)
    return Note(note.text, kept).encode()
