"""Each class of tampering done to a real ledger's files, and whether it is caught under its own name.

What crashes and full disks do is for the crash tests; replayed requests are for the node's. Here is what somebody with the
files, or with the files and the signing key, can do to a history.
"""

# ruff: noqa: S608  # what is put into SQL here are this file's own numbers and names of tables
from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from federation.crypto import SigningKey
from federation.ledger import (
    Checkpoint,
    DuplicateIndexError,
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryReorderedError,
    ForkError,
    KeySubstitutionError,
    Ledger,
    LedgerError,
    LedgerRolledBackError,
    Note,
    OriginError,
    SignatureMissingError,
    SignatureTypeError,
    StoredHashError,
    TileError,
    TimestampRollbackError,
    TruncatedError,
    cosign,
    parse_note,
    sign_checkpoint,
    verify_ledger,
)
from federation.ledger.entry import Entry, decode, encode
from federation.ledger.merkle import Frontier, leaf_hash
from keyong.bench.figure import Figure
from keyong.bench.rows import published

ORIGIN = "keyong/bench"
AT, BACK = 100, 300
Sql = sqlite3.Connection
Act = Callable[[Sql, Path, SigningKey], None]


def measure(entries: int = 520) -> Figure:
    """How many classes were not caught, or not under their own name."""
    missed = []
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        honest, key = Path(name) / "honest", SigningKey.generate()
        honest.mkdir()
        with Ledger.create(honest, ORIGIN, key) as ledger:
            for number in range(entries // 2):
                intent = ledger.append("intent", {"plan": f"plan-{number}"})
                ledger.append("outcome", {"rows": number}, ref=intent.index)
            vkey, seen, receipt = ledger.vkey, ledger.checkpoint(), ledger.receipt_bundle(BACK + 5)
        for title, act, error in CLASSES:
            folder = Path(shutil.copytree(honest, Path(name) / "tampered"))
            with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as sql:
                act(sql, folder, key)
            alone = error is ForkError and verify_ledger(folder, vkey).anchoring != "unanchored"
            held = {"checkpoints": [seen], "receipts": [receipt]} if error is ForkError else {}
            try:
                verify_ledger(folder, vkey, **held)  # type: ignore[arg-type]  # lists of bytes, by name
                missed.append(title)
            except LedgerError as raised:
                if type(raised) is not error or alone:
                    missed.append(title)
            shutil.rmtree(folder)
        if not _shows_an_omitted_outcome(Path(name), key):
            missed.append("an omitted outcome")
    count = len(CLASSES) + 1
    note = f"{count} classes: {', '.join(title for title, _, _ in CLASSES)}, an omitted outcome"
    return published("tampering-classes-missed", len(missed), note=f"{note}; missed: {', '.join(missed) or 'none'}")


def _shows_an_omitted_outcome(base: Path, key: SigningKey) -> bool:
    folder = base / "omitted"
    folder.mkdir()
    with Ledger.create(folder, ORIGIN, key) as ledger:
        intent = ledger.append("intent", {})
        verdict = verify_ledger(folder, ledger.vkey)
        return (verdict.completeness, verdict.open_intents) == ("open", (intent.index,))


def _data(sql: Sql, index: int) -> Entry:
    return decode(bytes(sql.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()[0]), index)


def _payload(sql: Sql, _: Path, __: SigningKey) -> None:
    changed = encode(dataclasses.replace(_data(sql, AT), nonce="f" * 32))
    sql.execute("UPDATE entry SET data = ? WHERE idx = ?", (changed, AT))


def _shift(sql: Sql, start: int, by: int) -> None:
    for table in ("entry", "field"):
        sql.execute(f"UPDATE {table} SET idx = -idx - 1 WHERE idx >= ?", (start,))
        sql.execute(f"UPDATE {table} SET idx = -idx - 1 + ? WHERE idx < 0", (by,))


def _insert(sql: Sql, _: Path, __: SigningKey) -> None:
    forged = encode(dataclasses.replace(_data(sql, AT), nonce="e" * 32, ref=None, fields={}))
    _shift(sql, AT, 1)
    entry = decode(forged, AT)
    sql.execute(
        "INSERT INTO entry VALUES (?, ?, NULL, ?, ?, ?)", (AT, entry.kind, entry.time, leaf_hash(forged), forged)
    )
    sql.execute("DELETE FROM checkpoint WHERE size < (SELECT max(size) FROM checkpoint)")


def _reorder(sql: Sql, _: Path, __: SigningKey) -> None:
    for table in ("entry", "field"):
        sql.execute(f"UPDATE {table} SET idx = CASE idx WHEN 40 THEN -44 ELSE -41 END WHERE idx IN (40, 43)")
        sql.execute(f"UPDATE {table} SET idx = -1 - idx WHERE idx < 0")


def _twice(sql: Sql, _: Path, __: SigningKey) -> None:
    sql.execute("ALTER TABLE entry RENAME TO old")
    sql.execute("CREATE TABLE entry (idx INTEGER, kind TEXT, ref INTEGER, time TEXT, leaf BLOB, data BLOB)")
    sql.execute("INSERT INTO entry SELECT * FROM old")
    sql.execute("INSERT INTO entry SELECT * FROM old WHERE idx = ?", (AT,))


def _back(sql: Sql, _: Path, __: SigningKey) -> None:
    """An older signed, consistent state, as a backup has it."""
    for what in ("entry WHERE idx >= ?", "field WHERE idx >= ?", "checkpoint WHERE size > ?"):
        sql.execute(f"DELETE FROM {what}", (BACK,))
    sql.execute("DELETE FROM tile WHERE (number + 1) * (1 << 8 * level) > ?", (BACK,))
    note = bytes(sql.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()[0])
    sql.execute("UPDATE head SET size = ?, root = ?", (BACK, Checkpoint.parse(parse_note(note).text).root))


def _resumed(sql: Sql, folder: Path, key: SigningKey) -> None:
    _back(sql, folder, key)
    note = bytes(sql.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()[0])
    (folder / "ledger.checkpoint").write_bytes(note)
    with Ledger.open(folder, key) as ledger:
        for future in [ledger.submit("note", {}) for _ in range(BACK)]:
            future.result()


def _forge(change: Callable[[int, Entry], Entry]) -> Act:
    """The whole history rewritten consistently and signed anew with the real key."""

    def act(sql: Sql, folder: Path, key: SigningKey) -> None:
        frontier, previous = Frontier(), "0" * 64
        sql.execute("DELETE FROM checkpoint")
        sql.execute("DELETE FROM tile")
        for index, data in sql.execute("SELECT idx, data FROM entry ORDER BY idx").fetchall():
            entry = dataclasses.replace(change(index, decode(data, index)), prev=previous)
            leaf = leaf_hash(encode(entry))
            tiles = frontier.append(leaf)
            previous = leaf.hex()
            sql.execute(
                "UPDATE entry SET data = ?, leaf = ?, time = ? WHERE idx = ?", (encode(entry), leaf, entry.time, index)
            )
            sql.executemany("INSERT INTO tile VALUES (?, ?, ?)", [(one.level, one.number, one.hash) for one in tiles])
        note = sign_checkpoint(Checkpoint(ORIGIN, frontier.size, frontier.root()), key)
        sql.execute("INSERT INTO checkpoint VALUES (?, ?)", (frontier.size, note))
        sql.execute("UPDATE head SET size = ?, root = ?", (frontier.size, frontier.root()))
        (folder / "ledger.checkpoint").write_bytes(note)

    return act


def _signed(make: Callable[[Checkpoint, SigningKey], bytes]) -> Act:
    """The newest signature exchanged for another."""

    def act(sql: Sql, folder: Path, key: SigningKey) -> None:
        size, note = sql.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        forged = make(Checkpoint.parse(parse_note(note).text), key)
        sql.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (forged, size))

    return act


def _plain(statement: str) -> Act:
    def act(sql: Sql, _: Path, __: SigningKey) -> None:
        sql.execute(statement)

    return act


def _older(index: int, entry: Entry) -> Entry:
    return dataclasses.replace(entry, time="2020-01-01T00:00:00.000Z") if index == AT else entry


def _other(index: int, entry: Entry) -> Entry:
    return dataclasses.replace(entry, nonce="a" * 32) if index == AT else entry


CLASSES: tuple[tuple[str, Act, type[LedgerError]], ...] = (
    ("a payload modified", _payload, EntryModifiedError),
    ("a stored hash modified", _plain(f"UPDATE entry SET leaf = zeroblob(32) WHERE idx = {AT}"), StoredHashError),
    ("a tile modified", _plain("UPDATE tile SET hash = zeroblob(32) WHERE level = 1 AND number = 0"), TileError),
    ("an entry deleted", _plain(f"DELETE FROM entry WHERE idx = {AT}"), EntryMissingError),
    ("an entry inserted", _insert, EntryInsertedError),
    ("entries reordered", _reorder, EntryReorderedError),
    ("an index used twice", _twice, DuplicateIndexError),
    ("the tail cut", _plain(f"DELETE FROM entry WHERE idx >= {BACK}"), TruncatedError),
    ("an old backup restored", _back, LedgerRolledBackError),
    ("cut and gone on with", _resumed, ForkError),
    ("all signed anew with the real key", _forge(_other), ForkError),
    ("time rolled back", _forge(_older), TimestampRollbackError),
    ("the key substituted", _signed(lambda c, _: sign_checkpoint(c, SigningKey.generate())), KeySubstitutionError),
    ("types 01 and 04 confused", _signed(lambda c, k: Note(c.text(), (cosign(c, ORIGIN, k, 1),)).encode()), SignatureTypeError),
    ("the origin swapped", _signed(lambda c, k: sign_checkpoint(dataclasses.replace(c, origin="keyong/o"), k)), OriginError),
    ("signatures stripped", _signed(lambda c, _: c.text().encode() + b"\n"), SignatureMissingError),
)  # fmt: skip
