"""inv6: each way to change the entries of a history is caught, under its own name and at the right entry.

The tampering is done as an attacker with the file would do it: plain SQL on a real ledger. Heads, signatures and whole
histories are in ``test_ledger_forging``.
"""

from __future__ import annotations

import dataclasses

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    CheckpointMismatchError,
    DuplicateIndexError,
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryReorderedError,
    FieldMissingError,
    FieldModifiedError,
    HeadError,
    Ledger,
    StoredColumnError,
    StoredHashError,
    TileError,
    UnsignedEntriesError,
    verify_ledger,
)
from federation.ledger.entry import decode, encode
from federation.ledger.merkle import leaf_hash
from tests.federation.ledger.tampering import Tamper, altered, data_of, fails, put, shift


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
