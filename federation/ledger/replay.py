"""The rules by which a history is judged, entry by entry. Pure: rows in, findings out, or the named error.

For each entry, in this order:

1. it stands at the next index: not twice (``DuplicateIndexError``), not after a gap (``EntryMissingError``);
2. its stored hash, where there is one, is the hash of its bytes (``EntryModifiedError`` or ``StoredHashError``: the
   next entry's ``prev``, or the signed root, says which of the two was changed);
3. its bytes are a canonical envelope that states the index it stands at (``EntryMissingError``,
   ``EntryReorderedError``, ``EntryInsertedError``);
4. it names the leaf hash of the entry before it (``EntryModifiedError``);
5. the columns that repeat its parts agree with it (``StoredColumnError``);
6. it is not older than the entry before it (``TimestampRollbackError``);
7. each opened field opens its commitment (``FieldModifiedError``); where all fields must be there, one that is not was
   recorded as erased (``FieldMissingError``);
8. each subtree it completes has the stored hash (``TileError``);
9. a checkpoint signed over it as the last entry verifies, and states the recomputed root (``CheckpointMismatchError``).

What others hold (receipts, older checkpoints) is compared at its size; a difference is a ``ForkError``, raised only
after the history's own rules held, with both signed notes as evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from federation.ledger._faults import chain_fault, hash_fault, order_fault
from federation.ledger._findings import CLOSING, ERASURE, INTENT, NO_LEAF, Findings, Position
from federation.ledger._pages import Terms, accept
from federation.ledger._rows import Page, Row
from federation.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from federation.ledger.entry import Entry, Field, check_field, decode
from federation.ledger.errors import (
    CheckpointMismatchError,
    DuplicateIndexError,
    EntryMissingError,
    EntryModifiedError,
    FieldMissingError,
    FieldModifiedError,
    ForkError,
    StoredColumnError,
    TileError,
    TimestampRollbackError,
)
from federation.ledger.merkle import Frontier, TileHash, leaf_hash
from federation.ledger.note import VerifierKey

OnEntry = Callable[[Entry, Mapping[str, Any]], int | None]
"""Sees an entry with its opened values; may say how many things in it it checked."""
TileSource = Callable[[int, int], object]
_REPEATED, _REPEATED_BYTES = 4096, 128


@dataclass(slots=True)
class Held:
    """What somebody outside holds: the state signed at a size, and perhaps an entry's bytes."""

    signed: SignedCheckpoint
    index: int | None = None
    data: bytes | None = None


@dataclass(slots=True)
class Replay:
    """Judges one history; feed it with ``run``, then read the findings.

    Args:
        vkey: the ledger's key.
        witnesses: known witnesses, to count cosignatures by.
        held: what others hold of this ledger, already verified against ``vkey``.
        final: the newest checkpoint, where it is known before the entries are.
        tiles: reads a stored subtree hash, where the history has a store.
        all_fields: every field must be there or recorded as erased (a store), not only those disclosed (an export).
        on_entry: sees each entry with its opened values after it was judged; may raise.
        partial: entries before the first one are judged elsewhere: what refers to them is kept, for ``follow``.
    """

    vkey: VerifierKey
    witnesses: Sequence[VerifierKey] = ()
    held: Iterable[Held] = ()
    final: SignedCheckpoint | None = None
    tiles: TileSource | None = None
    all_fields: bool = False
    on_entry: OnEntry | None = None
    partial: bool = False

    frontier: Frontier = field(default_factory=Frontier)
    time: str = ""
    anchored: int = 0
    anchors: tuple[str, ...] = ()
    open_intents: dict[int, None] = field(default_factory=dict)
    strays: list[tuple[int, int]] = field(default_factory=list)
    erased: int = 0
    withheld: int = 0
    checked: int = 0
    _erasures: list[tuple[int, list[Any]]] = field(default_factory=list)
    _leaf: bytes = NO_LEAF
    _signed_size: int = 0
    _absent: dict[int, set[str]] = field(default_factory=dict)
    _states: dict[int, list[Held]] = field(default_factory=dict)
    _contents: dict[int, list[Held]] = field(default_factory=dict)
    _fork: Held | None = None
    _values: dict[bytes, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.held:
            self.add_held(one)

    @property
    def stray_outcomes(self) -> tuple[int, ...]:
        """Entries that close what no open intent began."""
        return tuple(index for index, _ in self.strays)

    @property
    def forked(self) -> bool:
        """Whether what others hold differs from this history."""
        return self._fork is not None

    def position(self) -> Position:
        """Where the next entry goes."""
        return Position(self.frontier.size, tuple(self.frontier.stack), self._leaf, self.time)

    def begin_at(self, position: Position) -> None:
        """Go on from there, as if all entries before it had been judged: whoever says so has to show it."""
        self._move(position)
        self._signed_size = position.size

    def _move(self, position: Position) -> None:
        self.frontier = Frontier(position.size, list(position.stack))
        self._leaf, self.time = position.leaf, position.time

    def findings(self) -> Findings:
        """What was found in a part of a history, to be joined to what was found before it."""
        return Findings(
            self._signed_size,
            self.anchored,
            self.anchors,
            tuple(self.open_intents),
            tuple(self.strays),
            {index: frozenset(names) for index, names in self._absent.items()},
            tuple(self._erasures),
            self.erased,
            self.withheld,
            self.checked,
        )

    def follow(self, position: Position, findings: Findings) -> None:
        """Take what was found in the part that follows, and ends at ``position``."""
        self._move(position)
        self._signed_size = max(self._signed_size, findings.signed)
        if findings.anchored:
            self.anchored, self.anchors = findings.anchored, findings.anchors
        for index, ref in findings.strays:
            self._close(index, ref)
        self.open_intents.update(dict.fromkeys(findings.open_intents))
        for ref, names in findings.erasures:
            if ref in self._absent:
                self._erase(ref, names)
        self._absent.update({index: set(names) for index, names in findings.absent.items()})
        self.erased += findings.erased
        self.withheld += findings.withheld
        self.checked += findings.checked

    def add_held(self, one: Held) -> None:
        """Compare the history with one more thing that somebody holds."""
        self._states.setdefault(one.signed.checkpoint.size, []).append(one)
        if one.index is not None:
            self._contents.setdefault(one.index, []).append(one)

    def all_held(self) -> list[Held]:
        """Everything that others hold, as it was added."""
        return [one for held in self._states.values() for one in held]

    def held_sizes(self) -> list[int]:
        """The sizes at which others hold a signed state."""
        return sorted(self._states)

    def held_entries(self) -> list[int]:
        """The indices of the entries that others hold."""
        return sorted(self._contents)

    def run(self, pages: Iterable[Page]) -> Iterator[int]:
        """Judge ``pages``; yields how many entries were judged after each, so that the caller can show progress."""
        iterator = iter(pages)
        waiting: Page | None = next(iterator, None)
        while waiting is not None:
            page, waiting = waiting, None
            if not self._accepted(page):
                waiting = self._judge_each(page, iterator)
            yield self.frontier.size
            waiting = waiting or next(iterator, None)

    def _accepted(self, page: Page) -> bool:
        """Take a page that holds as a whole; False, and nothing is changed, where its entries have to be judged each."""
        start, stop = self.frontier.size, self.frontier.size + len(page)
        if any(start <= index < stop for index in self._contents) or any(start < size <= stop for size in self._states):
            return False
        terms = Terms(self.vkey, self.witnesses, self.tiles_hold, self.all_fields)
        found = accept(page, self.position(), terms)
        if found is None:
            return False
        self.follow(found.end, found.findings)
        for entry, row in zip(found.entries, page, strict=True):
            self._show(entry, row)
        return True

    def _judge_each(self, page: Page, following: Iterator[Page]) -> Page | None:
        """Judge each entry of ``page`` by the rules; returns the page after it, if that had to be fetched."""
        after: list[Page] = []

        def beyond() -> Iterator[Row]:
            for one in following:
                after.append(one)
                yield from one

        rest = chain(page, beyond())
        row = next(rest, None)
        for _ in page:
            assert row is not None
            coming = next(rest, None)
            self._judge(row, coming, rest)
            row = coming
        return after[0] if after else None

    def finish(self, final: SignedCheckpoint) -> None:
        """Raise what can only be said at the end: fields gone without record, and forks."""
        if self._absent:
            index = min(self._absent)
            raise FieldMissingError(
                "the field {field} of entry {index} is gone, and no erasure is on record",
                index=index,
                field=min(self._absent[index]),
            )
        if self._fork is not None:
            raise ForkError(
                "the ledger signed two histories: its first {size} entries are not those signed before",
                hint="keep both signed checkpoints (the error carries them) and show them to the other members",
                size=self._fork.signed.checkpoint.size,
                evidence=(self._fork.signed.note, final.note),
            )

    def _judge(self, row: Row, following: Row | None, rest: Iterator[Row]) -> None:
        index = self.frontier.size
        leaf = leaf_hash(row.data)
        self._check_place(row, index)
        if row.columns is not None and row.columns.leaf != leaf:
            raise hash_fault(leaf, index, following, self.frontier, self.final)
        entry = decode(row.data, index)
        if entry.index != index:
            raise order_fault(entry, index, following, rest)
        if entry.prev != self._leaf.hex():
            raise chain_fault(leaf, index, following)
        if row.columns is not None and row.columns[:3] != (entry.kind, entry.ref, entry.time):
            raise StoredColumnError("a column beside entry {index} says something else than the entry", index=index)
        if entry.time < self.time:
            raise TimestampRollbackError("entry {index} claims to be older than the entry before it", index=index)
        self._check_fields(entry, row)
        self._leaf, self.time = leaf, entry.time
        completed = self.frontier.append(leaf)
        if completed and not self.tiles_hold(completed):
            raise TileError(
                "a stored subtree hash that entry {index} completes (tile {number}) is not that of its entries",
                index=index,
                number=completed[0].number,
            )
        self._check_signed(row, index)
        if self._fork is None and index in self._contents:
            self.compare_content(index, row.data)
        if self._fork is None and self.frontier.size in self._states:
            self.compare_state(self.frontier.size, self.frontier.root())
        self._reconcile(entry, row)
        self._show(entry, row)

    def _show(self, entry: Entry, row: Row) -> None:
        if self.on_entry is None:
            return
        known, values = self._values, {}
        for name, one in row.fields.items():
            form, _, payload = one
            if form == "raw":
                values[name] = payload
            elif payload in known:
                values[name] = known[payload]
            else:
                values[name] = self._parsed(one)
        self.checked += self.on_entry(entry, values) or 0

    def _parsed(self, field: Field) -> Any:
        """What ``field`` says in JSON; names and digests are kept, for many entries repeat them."""
        value = field.value()
        if len(field.payload) <= _REPEATED_BYTES and not isinstance(value, dict | list):  # these could be changed
            if len(self._values) >= _REPEATED:
                self._values.clear()
            self._values[field.payload] = value
        return value

    # -- rules ------------------------------------------------------------------------------------------------------

    def _check_place(self, row: Row, index: int) -> None:
        if row.place < index:
            raise DuplicateIndexError("two entries stand at index {index}", index=row.place)
        if row.place > index:
            raise EntryMissingError("entry {index} is missing", index=index)

    def _check_fields(self, entry: Entry, row: Row) -> None:
        for name, one in row.fields.items():
            if name not in entry.fields:
                raise FieldModifiedError(
                    "entry {index} never had the field {field}", index=entry.index, field=name[:64]
                )
            check_field(entry, name, one)
        absent = entry.fields.keys() - row.fields.keys()
        if not absent:
            return
        if not self.all_fields:
            self.withheld += len(absent)
        elif entry.kind == ERASURE:
            raise FieldMissingError(
                "the field {field} of entry {index} is gone: an erasure must say what and why",
                index=entry.index,
                field=min(absent),
            )
        else:
            self._absent[entry.index] = set(absent)

    def _check_signed(self, row: Row, index: int) -> None:
        if row.note is None:
            return
        signed = open_checkpoint(row.note, self.vkey, self.witnesses)
        size = self.frontier.size
        if signed.checkpoint.size != size or signed.checkpoint.root != self.frontier.root():
            if self._signed_size == index and signed.checkpoint.size == size:
                raise EntryModifiedError("entry {index} is not the one that was signed", index=index)
            raise CheckpointMismatchError(
                "entries {first} to {index} are not those of the signed checkpoint",
                first=self._signed_size,
                index=index,
            )
        self._signed_size = size
        if signed.witnesses:
            self.anchored, self.anchors = size, signed.witnesses

    def tiles_hold(self, tiles: Iterable[TileHash]) -> bool:
        """Whether the stored hashes, where there is a store, are these."""
        return self.tiles is None or all(self.tiles(one.level, one.number) == one.hash for one in tiles)

    def compare_state(self, size: int, root: bytes) -> None:
        """Note a fork if others hold another root at ``size``."""
        for one in self._states[size]:
            if one.signed.checkpoint.root != root:
                self._fork = one

    def compare_content(self, index: int, data: bytes) -> None:
        """Note a fork if others hold another entry ``index``."""
        for one in self._contents[index]:
            if one.data != data:
                self._fork = one

    def _reconcile(self, entry: Entry, row: Row) -> None:
        """Judge completeness from envelopes: an intent stays open until an outcome refers to it."""
        if entry.kind == INTENT:
            self.open_intents[entry.index] = None
        elif entry.kind in CLOSING and entry.ref is not None:
            self._close(entry.index, entry.ref)
        elif entry.kind == ERASURE and entry.ref is not None and "fields" in row.fields:
            found = row.fields["fields"].value()
            names = found if isinstance(found, list) else []
            if entry.ref in self._absent:
                self._erase(entry.ref, names)
            elif self.partial:
                self._erasures.append((entry.ref, names))

    def _close(self, index: int, ref: int) -> None:
        """Entry ``index`` closes ``ref``, if that is open."""
        if ref in self.open_intents:
            del self.open_intents[ref]
        else:
            self.strays.append((index, ref))

    def _erase(self, index: int, names: list[Any]) -> None:
        """Take an erasure entry's word: these fields of entry ``index`` were deleted on record."""
        absent = self._absent[index]
        gone = {name for name in absent if name in names}
        self.erased += len(gone)
        absent -= gone
        if not absent:
            del self._absent[index]
