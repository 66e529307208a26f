"""The head of a stored ledger, loaded with every check that is cheap enough to make each time it is loaded."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from federation.ledger._last_signed import check_not_rolled_back, read_last_signed, write_last_signed
from federation.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from federation.ledger.entry import decode
from federation.ledger.errors import (
    CheckpointMissingError,
    ForkError,
    HeadError,
    LedgerRolledBackError,
    LedgerUnavailableError,
    LedgerUnreadableError,
    UnsignedEntriesError,
)
from federation.ledger.merkle import Frontier, TileHash, frontier_at, leaf_hash, range_root
from federation.ledger.note import VerifierKey
from federation.ledger.store import DATABASE, connect, node_source

_NO_LEAF = bytes(32)


@dataclass(slots=True)
class Head:
    """Where the next entry goes: the tree's frontier, the last leaf and time, the last signed note."""

    frontier: Frontier
    root: bytes
    leaf: bytes
    time: str
    note: bytes
    kind: str = ""
    """Of the last entry."""

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.frontier.size

    def append(self, leaf: bytes, time: str, kind: str) -> list[TileHash]:
        """Move over one entry; the root is computed by ``seal``, once a group."""
        self.leaf = leaf
        self.time = time
        self.kind = kind
        return self.frontier.append(leaf)

    def seal(self) -> bytes:
        """Compute and return the root."""
        self.root = self.frontier.root()
        return self.root

    def copy(self) -> Head:
        """Return an independent copy, so that a failed group leaves this one as it was."""
        return Head(self.frontier.copy(), self.root, self.leaf, self.time, self.note, self.kind)


def load_head(
    folder: Path, vkey: VerifierKey, known: Head | None, connection: sqlite3.Connection | None = None
) -> Head:
    """Return the head the database has now; the caller holds the folder's lock.

    Where it is still the one we ``known``, that is all. Else it is read and checked: against the signed checkpoint, the
    tree, the last-signed file (repaired if a crash left it behind) and what we knew.

    Raises:
        LedgerRolledBackError, ForkError, CheckpointMissingError: the database went back, or aside.
        HeadError, UnsignedEntriesError, LedgerUnreadableError, KeySubstitutionError, ...: it was changed.
    """
    if connection is None:
        try:
            with closing(connect(folder / DATABASE)) as own:
                return load_head(folder, vkey, known, own)
        except sqlite3.Error as error:
            raise LedgerUnavailableError("the ledger cannot be opened: {reason}", reason=str(error)) from error
    row = connection.execute("SELECT size, root FROM head WHERE one = 1").fetchone()
    if row is None:
        raise LedgerUnreadableError("the ledger has no head")
    size, root = row
    if known is not None and (size, root) == (known.size, known.root):
        return known
    signed = _last_checkpoint(connection, vkey)
    checkpoint = signed.checkpoint
    if (checkpoint.size, checkpoint.root) != (size, root):
        raise HeadError(
            "the ledger's head is not the one that was signed last", hint="keyong verify names what was changed"
        )
    last = connection.execute("SELECT idx, leaf, data FROM entry ORDER BY idx DESC LIMIT 1").fetchone()
    if last is not None and last[0] >= size:
        raise UnsignedEntriesError("entry {index} follows the last signed checkpoint", index=last[0])
    node = node_source(connection)
    frontier = frontier_at(size, node)
    if frontier.root() != root:
        raise HeadError("the stored tree does not have the signed root", hint="keyong verify names what was changed")
    if known is not None:
        _check_extends(known, size, signed, connection)
    on_file = read_last_signed(folder, vkey)
    check_not_rolled_back(on_file, size, signed.note, node)
    if on_file is None or on_file.checkpoint.size < size:
        write_last_signed(folder, signed.note)
    if last is None:
        return Head(frontier, root, _NO_LEAF, "", signed.note)
    if leaf_hash(last[2]) != last[1]:
        raise HeadError("the last entry is not the one that was signed", hint="keyong verify names what was changed")
    entry = decode(last[2], last[0])
    return Head(frontier, root, last[1], entry.time, signed.note, entry.kind)


def _last_checkpoint(connection: sqlite3.Connection, vkey: VerifierKey) -> SignedCheckpoint:
    row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    if row is None:
        raise CheckpointMissingError("the ledger holds no signed checkpoint")
    return open_checkpoint(row[0], vkey)


def _check_extends(known: Head, size: int, signed: SignedCheckpoint, connection: sqlite3.Connection) -> None:
    """The database under a running process must only ever grow."""
    if size < known.size:
        raise LedgerRolledBackError(
            "the ledger went back from {known} to {size} entries while it was open", known=known.size, size=size
        )
    if range_root(0, known.size, node_source(connection)) != known.root:
        raise ForkError("the ledger was exchanged while it was open", evidence=(known.note, signed.note))
