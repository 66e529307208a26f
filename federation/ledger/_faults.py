"""Which way a history was tampered with: the rules say that something is wrong, what surrounds it says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from federation.ledger._rows import Row
from federation.ledger.checkpoint import SignedCheckpoint
from federation.ledger.entry import Entry, decode
from federation.ledger.errors import (
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryReorderedError,
    LedgerError,
    LedgerUnreadableError,
    StoredHashError,
)
from federation.ledger.merkle import Frontier


def hash_fault(
    leaf: bytes, index: int, following: Row | None, before: Frontier, final: SignedCheckpoint | None
) -> LedgerError:
    """The stored hash and the bytes disagree: whichever the rest of the history confirms was not changed.

    Args:
        leaf: hash of the bytes of entry ``index``, which ``following`` comes after.
        before: the tree of the entries before it.
        final: the newest checkpoint, where it is known.
    """
    if following is not None:
        authentic = _prev(following) == leaf.hex()
    else:
        frontier = before.copy()
        frontier.append(leaf)
        authentic = final is not None and final.checkpoint.root == frontier.root()
    if authentic:
        return StoredHashError("the stored hash of entry {index} was changed", index=index)
    return EntryModifiedError("entry {index} was changed after it was written", index=index)


def order_fault(entry: Entry, index: int, following: Row | None, rest: Iterator[Row]) -> LedgerError:
    """``entry`` states another index than the one it stands at: put in, moved, or what stood between is gone."""
    if entry.index < index:
        return EntryInsertedError(
            "there are two entries that claim to be entry {index}: one was inserted", index=entry.index
        )
    later = chain([following] if following is not None else [], rest)
    if any(_states_index(row, index) for row in later):
        return EntryReorderedError("entry {index} does not stand in its place", index=index)
    return EntryMissingError("entry {index} is missing", index=index)


def chain_fault(leaf: bytes, index: int, following: Row | None) -> LedgerError:
    """``prev`` does not match: this entry was changed, unless the next one vouches for it."""
    vouched = following is None or _prev(following) == leaf.hex()
    changed = index - 1 if vouched and index else index
    return EntryModifiedError("entry {index} was changed after it was written", index=changed)


def _prev(row: Row) -> str:
    try:
        return decode(row.data, row.place).prev
    except LedgerUnreadableError:
        return ""


def _states_index(row: Row, index: int) -> bool:
    try:
        return decode(row.data, row.place).index == index
    except LedgerUnreadableError:
        return False
