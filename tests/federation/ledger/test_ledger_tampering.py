"""inv6: each way to change a history is caught, under its own name and at the right entry.

The tampering is done as an attacker with the file would do it: plain SQL on a real ledger. `forge` is the attacker who
also holds the signing key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    Checkpoint,
    CheckpointMismatchError,
    CheckpointMissingError,
    DuplicateIndexError,
    Entry,
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryReorderedError,
    FieldMissingError,
    FieldModifiedError,
    ForkError,
    HeadError,
    KeySubstitutionError,
    Ledger,
    LedgerError,
    LedgerRolledBackError,
    LedgerUnreadableError,
    Note,
    NoteSignatureError,
    OriginError,
    SignatureMissingError,
    SignatureTypeError,
    StoredColumnError,
    StoredHashError,
    TileError,
    TimestampRollbackError,
    TruncatedError,
    UnsignedEntriesError,
    VerifierKey,
    cosign,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_ledger,
)
from federation.ledger.entry import decode, encode
from federation.ledger.merkle import Frontier, leaf_hash
from tests.federation.ledger.parts import in_parts_of

ORIGIN = "keyong/test/steelworks"
Tamper = Callable[..., list[tuple[Any, ...]]]


def fails(
    ledger: Ledger, error: type[LedgerError], index: int | None, *, fast: bool = True, **options: Any
) -> LedgerError:
    """The named error at the named entry: from the full rules in one go and in parts, and, where they see it, the fast ones."""
    for mode in ("whole", "parts", "hashes") if fast else ("whole", "parts"):
        with pytest.raises(error) as caught, in_parts_of(4):
            verify_ledger(
                ledger.folder,
                ledger.vkey,
                hash_only=mode == "hashes",
                processes=2 if mode == "parts" else 1,
                **options,
            )
        assert type(caught.value) is error
        assert caught.value.index == index
    return caught.value


def data_of(tamper: Tamper, index: int) -> bytes:
    return bytes(tamper("SELECT data FROM entry WHERE idx = ?", index)[0][0])


def altered(data: bytes) -> bytes:
    """The same envelope with another nonce: well formed, and not what was written."""
    entry = decode(data, 0)
    return encode(dataclasses.replace(entry, nonce="f" * 32))


def put(tamper: Tamper, index: int, data: bytes) -> None:
    tamper("UPDATE entry SET data = ?, leaf = ? WHERE idx = ?", data, leaf_hash(data), index)


def shift(tamper: Tamper, start: int, by: int) -> None:
    """Renumber all rows from ``start`` on."""
    for table in ("entry", "field"):
        tamper(f"UPDATE {table} SET idx = -idx - 1 WHERE idx >= ?", start)
        tamper(f"UPDATE {table} SET idx = -idx - 1 + ? WHERE idx < 0", by)


def test_an_honest_ledger_verifies(history: Ledger) -> None:
    verdict = verify_ledger(history.folder, history.vkey)
    assert (verdict.entries, verdict.anchoring, verdict.completeness) == (12, "unanchored", "open")
    assert verdict.open_intents == (11,)
    fast = verify_ledger(history.folder, history.vkey, hash_only=True)
    assert (fast.root, fast.completeness, fast.last_time) == (verdict.root, "not judged", verdict.last_time)


# -- one thing changed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 5, 11])
def test_modified_entry(history: Ledger, tamper: Tamper, index: int) -> None:
    tamper("UPDATE entry SET data = ? WHERE idx = ?", altered(data_of(tamper, index)), index)
    fails(history, EntryModifiedError, index)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_modified_entry_down_to_one_bit(history: Ledger, tamper: Tamper, index: int) -> None:
    data = bytearray(data_of(tamper, index))
    data[-3] ^= 1
    tamper("UPDATE entry SET data = ? WHERE idx = ?", bytes(data), index)
    fails(history, EntryModifiedError, index)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_modified_stored_hash(history: Ledger, tamper: Tamper, index: int) -> None:
    tamper("UPDATE entry SET leaf = ? WHERE idx = ?", bytes(32), index)
    fails(history, StoredHashError, index)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_modified_entry_with_its_stored_hash(history: Ledger, tamper: Tamper, index: int) -> None:
    put(tamper, index, altered(data_of(tamper, index)))
    # Each entry has a checkpoint of its own here, which says that it was this one.
    fails(history, EntryModifiedError, index)


def test_modified_entry_where_only_the_chain_speaks(history: Ledger, tamper: Tamper) -> None:
    tamper("DELETE FROM checkpoint WHERE size < 12")
    put(tamper, 5, altered(data_of(tamper, 5)))
    fails(history, EntryModifiedError, 5)


def test_rewritten_chain_without_the_key(history: Ledger, tamper: Tamper) -> None:
    previous = ""
    for index in range(5, 12):
        entry = decode(data_of(tamper, index), index)
        entry = dataclasses.replace(entry, nonce="f" * 32) if index == 5 else dataclasses.replace(entry, prev=previous)
        put(tamper, index, encode(entry))
        previous = leaf_hash(encode(entry)).hex()
    fails(history, EntryModifiedError, 5)
    tamper("DELETE FROM checkpoint WHERE size < 12")
    fails(history, CheckpointMismatchError, 11)


def test_modified_tile(ledger: Ledger, tamper: Tamper) -> None:
    for future in [ledger.submit("n", {}) for _ in range(600)]:
        future.result(30)
    tamper("UPDATE tile SET hash = ? WHERE level = 1 AND number = 1", bytes(32))
    fails(ledger, TileError, 511)
    tamper("DELETE FROM tile WHERE level = 1 AND number = 1")
    fails(ledger, TileError, 511)


def test_tiles_without_entries(history: Ledger, tamper: Tamper) -> None:
    tamper("INSERT INTO tile VALUES (1, 0, ?)", bytes(32))
    fails(history, TileError, None, fast=False)


@pytest.mark.parametrize("change", ["kind = 'note'", "ref = 1", "ref = NULL", "time = '2020-01-01T00:00:00.000Z'"])
def test_modified_column(history: Ledger, tamper: Tamper, change: str) -> None:
    tamper(f"UPDATE entry SET {change} WHERE idx = 4")
    fails(history, StoredColumnError, 4, fast=False)


@pytest.mark.parametrize(
    "change", ["payload = CAST('9' AS BLOB)", "salt = zeroblob(32)", "form = 'raw'", "name = 'others'"]
)
def test_modified_field(history: Ledger, tamper: Tamper, change: str) -> None:
    tamper(f"UPDATE field SET {change} WHERE idx = 4 AND name = 'rows'")
    fails(history, FieldModifiedError, 4, fast=False)


def test_field_of_no_entry(history: Ledger, tamper: Tamper) -> None:
    tamper("INSERT INTO field VALUES (99, 'a', 'json', zeroblob(32), CAST('1' AS BLOB))")
    fails(history, FieldModifiedError, 99, fast=False)


def test_field_removed_without_record(history: Ledger, tamper: Tamper) -> None:
    tamper("DELETE FROM field WHERE idx = 4 AND name = 'rows'")
    fails(history, FieldMissingError, 4, fast=False)


def test_an_erasure_covers_only_what_it_names(history: Ledger, tamper: Tamper) -> None:
    history.erase(1, ["plan"], "asked for")
    assert verify_ledger(history.folder, history.vkey).erased == 1
    tamper("DELETE FROM field WHERE idx = 1 AND name = 'request'")
    fails(history, FieldMissingError, 1, fast=False)


def test_the_reason_of_an_erasure_cannot_be_removed(history: Ledger, tamper: Tamper) -> None:
    history.erase(1, ["plan"], "asked for")
    tamper("DELETE FROM field WHERE idx = 12")
    fails(history, FieldMissingError, 12, fast=False)


# -- entries taken out, put in, moved ---------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 5, 10])
def test_deleted_entry(history: Ledger, tamper: Tamper, index: int) -> None:
    tamper("DELETE FROM entry WHERE idx = ?", index)
    fails(history, EntryMissingError, index)


@pytest.mark.parametrize("index", [0, 5, 10])
def test_deleted_entry_with_the_rest_renumbered(history: Ledger, tamper: Tamper, index: int) -> None:
    tamper("DELETE FROM entry WHERE idx = ?", index)
    tamper("DELETE FROM field WHERE idx = ?", index)
    shift(tamper, index, -1)
    fails(history, EntryMissingError, index)


def test_inserted_entry(history: Ledger, tamper: Tamper) -> None:
    shift(tamper, 5, 1)
    forged = dataclasses.replace(decode(data_of(tamper, 6), 5), nonce="e" * 32, ref=None, fields={})
    tamper(
        "INSERT INTO entry VALUES (5, ?, NULL, ?, ?, ?)",
        forged.kind,
        forged.time,
        leaf_hash(encode(forged)),
        encode(forged),
    )
    tamper("DELETE FROM checkpoint WHERE size < 12")
    fails(history, EntryInsertedError, 5)


def test_reordered_entries(history: Ledger, tamper: Tamper) -> None:
    for table in ("entry", "field"):
        tamper(f"UPDATE {table} SET idx = CASE idx WHEN 4 THEN -8 ELSE -5 END WHERE idx IN (4, 7)")
        tamper(f"UPDATE {table} SET idx = -1 - idx WHERE idx < 0")
    fails(history, EntryReorderedError, 4)


def test_duplicate_index(history: Ledger, tamper: Tamper) -> None:
    tamper("ALTER TABLE entry RENAME TO old")
    tamper("CREATE TABLE entry (idx INTEGER, kind TEXT, ref INTEGER, time TEXT, leaf BLOB, data BLOB)")
    tamper("INSERT INTO entry SELECT * FROM old")
    tamper("INSERT INTO entry SELECT * FROM old WHERE idx = 5")
    fails(history, DuplicateIndexError, 5)


def test_appended_entry_without_a_signature(history: Ledger, tamper: Tamper) -> None:
    last = decode(data_of(tamper, 11), 11)
    forged = encode(dataclasses.replace(last, index=12, prev=leaf_hash(encode(last)).hex(), fields={}))
    tamper("INSERT INTO entry VALUES (12, 'intent', NULL, ?, ?, ?)", last.time, leaf_hash(forged), forged)
    fails(history, UnsignedEntriesError, 12)
    tamper("UPDATE head SET size = 13")
    fails(history, UnsignedEntriesError, 12)
    with pytest.raises(HeadError):
        Ledger.open(history.folder, SigningKey.from_bytes(bytes(range(32))))


# -- the tail ---------------------------------------------------------------------------------------------------------


def cut(tamper: Tamper, size: int) -> None:
    """Take the ledger back to an earlier, signed, consistent state: what a restored backup looks like."""
    for sql in ("entry WHERE idx >= ?", "field WHERE idx >= ?", "checkpoint WHERE size > ?"):
        tamper(f"DELETE FROM {sql}", size)
    note = tamper("SELECT note FROM checkpoint WHERE size = ?", size)[0][0]
    tamper("UPDATE head SET size = ?, root = ?", size, Checkpoint.parse(parse_note(note).text).root)


def test_truncated_tail(history: Ledger, tamper: Tamper) -> None:
    tamper("DELETE FROM entry WHERE idx >= 9")
    fails(history, TruncatedError, 9)
    tamper("UPDATE head SET size = 9")
    fails(history, TruncatedError, 9)


def test_truncated_to_an_older_signed_state(history: Ledger, tamper: Tamper) -> None:
    cut(tamper, 9)
    fails(history, LedgerRolledBackError, 9)


def test_a_restored_backup_is_not_opened(history: Ledger, tamper: Tamper, folder: Path, key: SigningKey) -> None:
    history.close()
    cut(tamper, 9)
    with pytest.raises(LedgerRolledBackError) as caught:
        Ledger.open(folder, key)
    assert caught.value.index == 9
    assert "newest" in caught.value.hint


def test_a_running_writer_sees_its_ledger_go_back(history: Ledger, tamper: Tamper) -> None:
    cut(tamper, 9)
    with pytest.raises(LedgerRolledBackError):
        history.append("note", {})


def test_a_removed_last_signed_file_is_missed(history: Ledger, tamper: Tamper, folder: Path, key: SigningKey) -> None:
    (folder / "ledger.checkpoint").unlink()
    fails(history, CheckpointMissingError, None)
    with pytest.raises(CheckpointMissingError):
        Ledger.open(folder, key)


def test_truncated_with_the_last_signed_file_only_others_can_tell(
    history: Ledger, tamper: Tamper, folder: Path
) -> None:
    receipt, seen = history.receipt_bundle(11), history.checkpoint()
    history.close()
    cut(tamper, 9)
    (folder / "ledger.checkpoint").write_bytes(tamper("SELECT note FROM checkpoint WHERE size = 9")[0][0])
    assert verify_ledger(folder, history.vkey).anchoring == "unanchored"
    fails(history, LedgerRolledBackError, 9, receipts=[receipt])
    fails(history, LedgerRolledBackError, 9, checkpoints=[seen])


def test_truncated_then_resumed_is_a_fork(history: Ledger, tamper: Tamper, folder: Path, key: SigningKey) -> None:
    receipt, seen = history.receipt_bundle(10), history.checkpoint()
    history.close()
    cut(tamper, 9)
    (folder / "ledger.checkpoint").write_bytes(tamper("SELECT note FROM checkpoint WHERE size = 9")[0][0])
    with Ledger.open(folder, key) as resumed:
        for _ in range(6):
            resumed.append("note", {})
    assert verify_ledger(folder, history.vkey).anchoring == "unanchored"
    for held in ({"receipts": [receipt]}, {"checkpoints": [seen]}):
        error = fails(history, ForkError, None, **held)
        ours, theirs = (open_checkpoint(note, history.vkey).checkpoint for note in error.evidence)
        assert ours.size == 12
        assert theirs.size == 15


def test_modified_head(history: Ledger, tamper: Tamper) -> None:
    tamper("UPDATE head SET root = ?", bytes(32))
    fails(history, HeadError, None)
    tamper("UPDATE head SET size = 13")
    fails(history, HeadError, None)
    tamper("DELETE FROM head")
    fails(history, HeadError, None)


def test_a_head_behind_the_newest_signature_is_not_opened(
    history: Ledger, tamper: Tamper, folder: Path, key: SigningKey
) -> None:
    newest = tamper("SELECT note FROM checkpoint WHERE size = 12")[0][0]
    cut(tamper, 9)
    (folder / "ledger.checkpoint").write_bytes(tamper("SELECT note FROM checkpoint WHERE size = 9")[0][0])
    tamper("INSERT INTO checkpoint VALUES (12, ?)", newest)
    with pytest.raises(HeadError):
        Ledger.open(folder, key)


def test_an_empty_ledger_has_the_empty_root(ledger: Ledger, tamper: Tamper, folder: Path, key: SigningKey) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), key)
    tamper("UPDATE checkpoint SET note = ?", note)
    tamper("UPDATE head SET root = zeroblob(32)")
    (folder / "ledger.checkpoint").write_bytes(note)
    fails(ledger, CheckpointMismatchError, None)


# -- signatures -------------------------------------------------------------------------------------------------------


def final(tamper: Tamper) -> Checkpoint:
    return Checkpoint.parse(parse_note(tamper("SELECT note FROM checkpoint WHERE size = 12")[0][0]).text)


@pytest.mark.parametrize("where", ["database", "file"])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda c, _: c.text().encode() + b"\n", SignatureMissingError),
        (lambda c, k: sign_checkpoint(dataclasses.replace(c, origin="keyong/test/foundry"), k), OriginError),
        (lambda c, _: sign_checkpoint(c, SigningKey.generate()), KeySubstitutionError),
        (lambda c, k: Note(c.text(), (cosign(c, ORIGIN, k, 1),)).encode(), SignatureTypeError),
        (lambda c, k: sign_checkpoint(c, k).replace(b"\n12\n", b"\n13\n"), NoteSignatureError),
    ],
    ids=["stripped", "origin", "key", "type", "size"],
)
def test_bad_signature(
    history: Ledger, tamper: Tamper, folder: Path, key: SigningKey, where: str, make: Any, error: type[LedgerError]
) -> None:
    note = make(final(tamper), key)
    if where == "database":
        tamper("UPDATE checkpoint SET note = ? WHERE size = 12", note)
    else:
        (folder / "ledger.checkpoint").write_bytes(note)
    fails(history, error, None)


def test_every_stored_signature_is_verified(history: Ledger, tamper: Tamper) -> None:
    note = tamper("SELECT note FROM checkpoint WHERE size = 4")[0][0]
    tamper("UPDATE checkpoint SET note = ? WHERE size = 4", note.split(b"\n\n")[0] + b"\n\n")
    fails(history, SignatureMissingError, None, fast=False)
    tamper("UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 6) WHERE size = 4")
    fails(history, CheckpointMismatchError, 3, fast=False)


def test_the_key_is_the_callers_never_the_files(history: Ledger) -> None:
    with pytest.raises(KeySubstitutionError):
        verify_ledger(history.folder, VerifierKey(ORIGIN, SigningKey.generate().public))


# -- with the signing key ---------------------------------------------------------------------------------------------


def forge(folder: Path, key: SigningKey, change: Callable[[int, Entry], Entry]) -> None:
    """Rewrite the whole history consistently and sign it anew with the real key."""
    connection = sqlite3.connect(folder / "ledger.db")
    frontier, previous = Frontier(), "0" * 64
    connection.execute("DELETE FROM checkpoint")
    for index, data in connection.execute("SELECT idx, data FROM entry ORDER BY idx").fetchall():
        entry = dataclasses.replace(change(index, decode(data, index)), prev=previous)
        leaf = leaf_hash(encode(entry))
        frontier.append(leaf)
        previous = leaf.hex()
        connection.execute(
            "UPDATE entry SET data = ?, leaf = ?, kind = ?, time = ?, ref = ? WHERE idx = ?",
            (encode(entry), leaf, entry.kind, entry.time, entry.ref, index),
        )
    note = sign_checkpoint(Checkpoint(ORIGIN, frontier.size, frontier.root()), key)
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (frontier.size, note))
    connection.execute("UPDATE head SET size = ?, root = ?", (frontier.size, frontier.root()))
    connection.commit()
    connection.close()
    (folder / "ledger.checkpoint").write_bytes(note)


def test_timestamp_rollback(history: Ledger, folder: Path, key: SigningKey) -> None:
    def change(index: int, entry: Entry) -> Entry:
        return dataclasses.replace(entry, time="2026-02-28T12:00:00.000Z") if index == 7 else entry

    forge(folder, key, change)
    fails(history, TimestampRollbackError, 7, fast=False)


def test_a_history_signed_anew_is_never_more_than_unanchored(history: Ledger, folder: Path, key: SigningKey) -> None:
    """Local verification cannot catch the key's own holder, and says so; whoever holds a receipt can."""
    receipt, seen = history.receipt_bundle(4), history.checkpoint()

    def change(index: int, entry: Entry) -> Entry:
        return dataclasses.replace(entry, nonce=hashlib.sha256(b"forged").hexdigest()[:32]) if index == 4 else entry

    forge(folder, key, change)
    verdict = verify_ledger(folder, history.vkey)
    assert (verdict.entries, verdict.anchoring, verdict.witnesses) == (12, "unanchored", ())
    fails(history, ForkError, None, receipts=[receipt])
    error = fails(history, ForkError, None, checkpoints=[seen])
    roots = {open_checkpoint(note, history.vkey).checkpoint.root for note in error.evidence}
    assert len(roots) == 2  # two signed states of one size: evidence that anyone can check


def test_a_ledger_exchanged_but_for_its_file_is_a_fork(history: Ledger, folder: Path, key: SigningKey) -> None:
    kept = (folder / "ledger.checkpoint").read_bytes()
    forge(folder, key, lambda index, entry: dataclasses.replace(entry, nonce="0" * 32))
    (folder / "ledger.checkpoint").write_bytes(kept)
    fails(history, ForkError, None)
    with pytest.raises(ForkError):
        Ledger.open(folder, key)


# -- completeness -----------------------------------------------------------------------------------------------------


def test_an_omitted_outcome_shows_in_completeness(ledger: Ledger) -> None:
    """inv2: an INTENT without an OUTCOME is named, and integrity is not mixed up with it."""
    first = ledger.append("intent", {}).index
    second = ledger.append("intent", {}).index
    ledger.append("outcome", {}, ref=second)
    verdict = verify_ledger(ledger.folder, ledger.vkey)
    assert (verdict.completeness, verdict.open_intents) == ("open", (first,))
    ledger.append("aborted", {}, ref=first)
    assert verify_ledger(ledger.folder, ledger.vkey).completeness == "complete"
    stray = ledger.append("outcome", {}, ref=first).index
    verdict = verify_ledger(ledger.folder, ledger.vkey)
    assert (verdict.completeness, verdict.stray_outcomes) == ("open", (stray,))


# -- files that are no ledger -----------------------------------------------------------------------------------------


def test_hostile_databases_are_refused(history: Ledger, tamper: Tamper, folder: Path) -> None:
    tamper("ALTER TABLE entry RENAME TO real")
    tamper("CREATE VIEW entry AS SELECT * FROM real")
    fails(history, LedgerUnreadableError, None)
    history.close()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "ledger.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    fails(history, LedgerUnreadableError, None)


def test_oversized_values_are_refused(history: Ledger, tamper: Tamper) -> None:
    tamper("UPDATE field SET payload = zeroblob(20000000) WHERE idx = 4 AND name = 'rows'")
    fails(history, LedgerUnreadableError, None, fast=False)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE field SET salt = 'text' WHERE idx = 4",
        "UPDATE entry SET data = 'text' WHERE idx = 4",
        "UPDATE entry SET data = NULL WHERE idx = 4",
        "UPDATE head SET size = 'many'",
        "UPDATE checkpoint SET note = 7 WHERE size = 12",
    ],
)
def test_values_of_another_type_are_refused(history: Ledger, tamper: Tamper, sql: str) -> None:
    columns = {"entry": "idx, kind, ref, time, leaf, data", "field": "idx, name, form, salt, payload",
               "head": "one, size, root", "checkpoint": "size, note"}  # fmt: skip
    table = sql.split()[1]
    tamper(f"ALTER TABLE {table} RENAME TO strict_{table}")
    tamper(f"CREATE TABLE {table} ({columns[table]})")
    tamper(f"INSERT INTO {table} SELECT * FROM strict_{table}")
    tamper(sql)
    with pytest.raises(LedgerError):
        verify_ledger(history.folder, history.vkey)


def test_what_the_hook_raises_passes_through(history: Ledger) -> None:
    seen: list[str] = []

    def hook(entry: Entry, fields: Any) -> None:
        seen.append(entry.kind)
        if fields.get("rows") == 2:
            raise PermissionError("statement")

    with pytest.raises(PermissionError):
        verify_ledger(history.folder, history.vkey, on_entry=hook)
    assert len(seen) == 7
