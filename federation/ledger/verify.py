"""Offline verification of a ledger's folder or export: a verdict in three parts, or the named error.

Integrity is what the bytes prove by themselves. Anchoring is what others vouch for: without a witness's cosignature, a
history that its own key holder rewrote and signed anew has integrity too, so it is called "unanchored", never "OK".
Completeness is whether what was begun was also ended. Everything is recomputed from stored bytes; nothing is believed
because it is stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from federation.ledger._hashes import hash_entries
from federation.ledger._last_signed import read_last_signed
from federation.ledger._parts import run_parts
from federation.ledger._rows import Page, paged, stored_pages
from federation.ledger.bundle import verify_bundle
from federation.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from federation.ledger.entry import decode
from federation.ledger.errors import (
    CheckpointMismatchError,
    CheckpointMissingError,
    FieldModifiedError,
    HeadError,
    LedgerRolledBackError,
    TileError,
    TruncatedError,
    UnsignedEntriesError,
)
from federation.ledger.export import ExportReader
from federation.ledger.merkle import range_root
from federation.ledger.note import VerifierKey
from federation.ledger.replay import Held, OnEntry, Replay
from federation.ledger.store import DATABASE, node_source, reading, tile_source

Progress = Callable[[int, int], None]
Anchoring = Literal["unanchored", "partly witnessed", "witnessed"]
Completeness = Literal["not judged", "complete", "open"]
_PROGRESS_EVERY = 1024


@dataclass(frozen=True)
class Verdict:
    """What holds of a history; that there is a verdict means its integrity holds.

    Args:
        entries, root: the size and root that were recomputed and found signed.
        last_time: time of the newest entry.
        anchoring, anchored_size, witnesses: who else signed, up to which size.
        completeness, open_intents, stray_outcomes: intents without an outcome; outcomes that refer to no open intent.
        erased, withheld: fields deleted on record; fields that stayed commitments in an export.
        checked: what ``on_entry`` said that it checked, all together.
    """

    origin: str
    entries: int
    root: bytes
    checkpoint: bytes
    last_time: str
    anchoring: Anchoring
    anchored_size: int
    witnesses: tuple[str, ...]
    completeness: Completeness
    open_intents: tuple[int, ...]
    stray_outcomes: tuple[int, ...]
    erased: int
    withheld: int
    checked: int = 0


def verify_ledger(
    path: Path,
    vkey: VerifierKey | str,
    *,
    witnesses: Sequence[VerifierKey] = (),
    receipts: Iterable[bytes] = (),
    checkpoints: Iterable[bytes] = (),
    hash_only: bool = False,
    on_entry: OnEntry | None = None,
    progress: Progress | None = None,
    processes: int = 1,
) -> Verdict:
    """Verify the ledger at ``path``, a folder (also while it is written to) or an export.

    Args:
        path: folder with ``ledger.db`` and ``ledger.checkpoint``, or an export file.
        vkey: the ledger's key, from a source other than ``path``.
        witnesses: keys (type 04) whose cosignatures count.
        receipts: receipt bundles held by others; ``checkpoints``: signed notes they hold.
        hash_only: recompute the tree and the newest signature only, without reading what the entries say: fields,
            order of times, older checkpoints and completeness are not judged. Folders only; an export is always read.
        on_entry: sees each entry and its opened values, in order; what it raises passes through.
        progress: called with (done, total).
        processes: how many processes may verify parts of a long ledger at once (a folder's; an export is read in one
            go). ``on_entry`` then has to be picklable, and sees the entries of one part in order. Whatever is not as it
            should be is judged again in this process, so that the error does not depend on their number.

    Raises:
        LedgerError: the tampering's own class, with the entry's index (see `federation.ledger.replay`).
        LedgerUnavailableError: it cannot be opened.
    """
    key = VerifierKey.parse(vkey) if isinstance(vkey, str) else vkey
    held = [_from_receipt(one, key) for one in receipts]
    # Where a key was exchanged, the roster holds the state at which it was: no history of this ledger may differ there.
    held += [Held(open_checkpoint(one.note, key)) for one in key.former]
    held += [Held(open_checkpoint(one, key)) for one in checkpoints]
    replay = Replay(key, witnesses, held, on_entry=on_entry)
    path = Path(path)
    if path.is_dir():
        return _verify_folder(path, replay, hash_only, progress, processes)
    return _verify_export(path, replay, progress)


def _from_receipt(data: bytes, key: VerifierKey) -> Held:
    bundle = verify_bundle(data, key)
    return Held(bundle.checkpoint, bundle.entry.index, bundle.data)


def _verify_folder(folder: Path, replay: Replay, hash_only: bool, progress: Progress | None, processes: int) -> Verdict:
    # Before the snapshot: the file is written after COMMIT, so a sound database is never behind it.
    last_signed = read_last_signed(folder, replay.vkey)
    with reading(folder / DATABASE) as connection:
        head = connection.execute("SELECT size, root FROM head WHERE one = 1").fetchone()
        row = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        if head is None or not isinstance(head[0], int):
            raise HeadError("the ledger has no head")
        if row is None or not isinstance(row[0], bytes):
            raise CheckpointMissingError("the ledger holds no signed checkpoint")
        final = open_checkpoint(row[0], replay.vkey, replay.witnesses)
        if last_signed is None:
            raise CheckpointMissingError(
                "the ledger's last-signed checkpoint is missing",
                hint="without ledger.checkpoint beside ledger.db a truncated ledger looks whole",
            )
        replay.final, replay.all_fields = final, True
        # Compared as if somebody outside held it: that is what the file is for.
        replay.add_held(Held(last_signed))
        replay.tiles = tile_source(connection)
        if hash_only:
            _hash_all(folder, connection, replay, head[0], progress, processes)
        elif not run_parts(folder, connection, replay, head[0], processes, progress):
            _run(replay, stored_pages(connection), head[0], progress)
        _check_end(replay, final)
        if head != (replay.frontier.size, replay.frontier.root()):
            raise HeadError("the stored head is not that of the entries")
        if not hash_only:
            _check_orphans(connection, replay)
        return _verdict(replay, final, judged=not hash_only)


def _verify_export(path: Path, replay: Replay, progress: Progress | None) -> Verdict:
    with ExportReader(path) as reader:
        _run(replay, paged(reader.rows()), reader.size, progress)
        count = replay.frontier.size
        if reader.size > count:
            raise TruncatedError("the tail is missing from entry {index} on", index=count)
        if reader.final_note is None:
            raise CheckpointMissingError("the export holds no signed checkpoint")
        final = open_checkpoint(reader.final_note, replay.vkey, replay.witnesses)
        _check_end(replay, final)
        return _verdict(replay, final, judged=True)


def _run(replay: Replay, pages: Iterator[Page], total: int, progress: Progress | None) -> None:
    for done in replay.run(pages):
        if progress is not None and (done % _PROGRESS_EVERY == 0 or done == total):
            progress(done, total)


def _check_end(replay: Replay, final: SignedCheckpoint) -> None:
    """Raise unless the recomputed history ends exactly where its newest signature, and what others hold, say."""
    count = replay.frontier.size
    signed = final.checkpoint
    if signed.size > count:
        raise TruncatedError("the tail is missing from entry {index} on", index=count)
    if signed.size < count:
        raise UnsignedEntriesError("entry {index} follows the last signed checkpoint", index=signed.size)
    if signed.root != replay.frontier.root():
        raise CheckpointMismatchError("the entries do not have the signed root")
    ahead = max(replay.held_sizes(), default=0)
    if ahead > count:
        raise LedgerRolledBackError(
            "the ledger holds {index} entries, but {signed} were signed: the tail was cut, or an old copy restored",
            index=count,
            signed=ahead,
        )
    replay.finish(final)


def _check_orphans(connection: sqlite3.Connection, replay: Replay) -> None:
    size = replay.frontier.size
    row = connection.execute("SELECT idx FROM field WHERE idx NOT BETWEEN 0 AND ? LIMIT 1", (size - 1,)).fetchone()
    if row is not None:
        raise FieldModifiedError("there is a field of entry {index}, but no such entry", index=row[0])
    for level in range(1, 8):
        extra = connection.execute(
            "SELECT number FROM tile WHERE level = ? AND number NOT BETWEEN 0 AND ? LIMIT 1",
            (level, (size >> 8 * level) - 1),
        ).fetchone()
        if extra is not None:
            raise TileError("a stored hash of tree level {level} has no entries", level=8 * level)


def _hash_all(
    folder: Path,
    connection: sqlite3.Connection,
    replay: Replay,
    total: int,
    progress: Progress | None,
    processes: int,
) -> None:
    """Recompute the tree; whatever is not as it should be is named by the full rules."""
    frontier = hash_entries(folder, connection, total, replay.tiles_hold, processes, progress)
    if frontier is None or replay.final is None or frontier.root() != replay.final.checkpoint.root:
        _run(replay, stored_pages(connection), total, None)
        return
    done = frontier.size
    replay.frontier = frontier
    node = node_source(connection)
    last = connection.execute("SELECT data FROM entry WHERE idx = ?", (done - 1,)).fetchone()
    if last is not None:
        replay.time = decode(last[0], done - 1).time
    for size in replay.held_sizes():
        if size <= done:
            replay.compare_state(size, range_root(0, size, node))
    for index in replay.held_entries():
        row = connection.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()
        replay.compare_content(index, row[0] if row else b"")
    if replay.final.witnesses:
        replay.anchored, replay.anchors = done, replay.final.witnesses


def _verdict(replay: Replay, final: SignedCheckpoint, *, judged: bool) -> Verdict:
    count = replay.frontier.size
    anchoring: Anchoring = "unanchored"
    if replay.anchored:
        anchoring = "witnessed" if replay.anchored == count else "partly witnessed"
    completeness: Completeness = "not judged"
    if judged:
        completeness = "open" if replay.open_intents or replay.stray_outcomes else "complete"
    return Verdict(
        origin=replay.vkey.name,
        entries=count,
        root=replay.frontier.root(),
        checkpoint=final.note,
        last_time=replay.time,
        anchoring=anchoring,
        anchored_size=replay.anchored,
        witnesses=replay.anchors,
        completeness=completeness,
        open_intents=tuple(replay.open_intents),
        stray_outcomes=replay.stray_outcomes,
        erased=replay.erased,
        withheld=replay.withheld,
        checked=replay.checked,
    )
