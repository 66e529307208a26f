"""inv6: a history cut, signed by others or written anew is caught, under its own name.

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
    Entry,
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
    TimestampRollbackError,
    TruncatedError,
    VerifierKey,
    cosign,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_ledger,
)
from federation.ledger.entry import decode, encode
from federation.ledger.merkle import Frontier, leaf_hash
from tests.federation.ledger.tampering import ORIGIN, Tamper, fails

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
