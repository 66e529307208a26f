"""inv1, inv2: a failed write is refused, leaves nothing behind, and the next one works."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.ledger import Ledger, LedgerUnavailableError, _last_signed, verify_ledger, writer
from federation.ledger._head import load_head


class Failing:
    """A connection that fails once, at a chosen statement, before or after doing it."""

    def __init__(self, real: sqlite3.Connection, statement: str, *, after: bool) -> None:
        self._real, self._statement, self._after, self.failed = real, statement, after, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *args: Any) -> Any:
        return self._maybe(self._real.execute, sql, *args)

    def executemany(self, sql: str, *args: Any) -> Any:
        return self._maybe(self._real.executemany, sql, *args)

    def _maybe(self, run: Any, sql: str, *args: Any) -> Any:
        if self.failed or not sql.startswith(self._statement):
            return run(sql, *args)
        self.failed = True
        if self._after:
            run(sql, *args)
        raise sqlite3.OperationalError("disk I/O error")


def fail_once(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, statement: str, *, after: bool = False) -> None:
    made: list[Failing] = []

    def connect(path: Path) -> Any:
        real = _real_connect(path)
        if made:
            return real
        made.append(Failing(real, statement, after=after))
        return made[0]

    ledger._writer._drop_connection()
    monkeypatch.setattr(writer, "connect", connect)


_real_connect = writer.connect


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO entry", "INSERT INTO checkpoint", "UPDATE head", "COMMIT"])
def test_a_failed_write_leaves_nothing_behind(history: Ledger, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    history.ensure_schema("uses", 1, "CREATE TABLE uses (n INTEGER) STRICT")
    before = history.checkpoint()
    fail_once(monkeypatch, history, statement)
    with pytest.raises(LedgerUnavailableError):
        history.append("intent", {"plan": "x"}, apply=lambda c: c.execute("INSERT INTO uses VALUES (1)") and None)
    assert history.checkpoint() == before
    with history.reader() as connection:
        assert connection.execute("SELECT count(*) FROM uses").fetchone()[0] == 0
        assert connection.execute("SELECT max(idx) FROM field").fetchone()[0] == 11
    assert history.append("intent", {}).index == 12
    assert verify_ledger(history.folder, history.vkey).entries == 13


def test_a_commit_that_failed_after_the_fact_is_acknowledged(history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ambiguous COMMIT: it raised, and it happened. Refusing it would leave an entry nobody was told of."""
    fail_once(monkeypatch, history, "COMMIT", after=True)
    assert history.append("intent", {}).index == 12
    assert history.append("intent", {}).index == 13
    assert verify_ledger(history.folder, history.vkey).entries == 14


def test_a_full_disk_refuses_and_recovers(ledger: Ledger, folder: Path) -> None:
    """SQLITE_FULL from the engine itself, in the middle of a group."""
    ledger.append("genesis", {})
    connection = ledger._writer._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(LedgerUnavailableError) as caught:
        ledger.append("intent", {"big": "x" * 500_000})
    assert "full" in caught.value.message
    assert ledger.size == 1
    # The failed connection is gone, and the limit with it: space was made.
    assert ledger.append("intent", {"big": "x" * 500_000}).index == 1
    assert verify_ledger(folder, ledger.vkey).entries == 2


def test_a_full_disk_inside_apply_undoes_the_group(ledger: Ledger) -> None:
    ledger.ensure_schema("big", 1, "CREATE TABLE big (b BLOB) STRICT")
    ledger.append("genesis", {})
    connection = ledger._writer._connection
    assert connection is not None
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(LedgerUnavailableError):
        ledger.append("intent", {}, apply=lambda c: c.execute("INSERT INTO big VALUES (zeroblob(500000))") and None)
    assert ledger.size == 1
    assert ledger.append("intent", {}).index == 1


def test_no_answer_before_the_last_signed_file(
    history: Ledger, monkeypatch: pytest.MonkeyPatch, folder: Path, key: SigningKey
) -> None:
    """A crash between COMMIT and the second file: nobody was answered, and the next start repairs it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_last_signed, "_overwrite", refuse)
    with pytest.raises(LedgerUnavailableError) as caught:
        history.append("intent", {})
    assert caught.value.code == "ledger-unconfirmed"
    monkeypatch.undo()
    stale = (folder / "ledger.checkpoint").read_bytes()
    assert stale != history.checkpoint()
    with Ledger.open(folder, key) as again:
        assert (folder / "ledger.checkpoint").read_bytes() == again.checkpoint()
        assert again.size == 13
        assert again.append("note", {}).index == 13
    assert verify_ledger(folder, history.vkey).entries == 14


def test_the_file_catches_up_with_the_next_entry(
    history: Ledger, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_last_signed, "_overwrite", refuse)
    with pytest.raises(LedgerUnavailableError):
        history.append("intent", {})
    monkeypatch.undo()
    history.append("note", {})
    assert (folder / "ledger.checkpoint").read_bytes() == history.checkpoint()


def test_a_lock_kept_by_another_process_is_reported(
    history: Ledger, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with _last_signed.locked(folder), pytest.raises(LedgerUnavailableError), _last_signed.locked(folder, 0.05):
        raise AssertionError("two holders")
    assert history.append("note", {}).index == 12


def test_a_cancelled_submission_is_not_written(ledger: Ledger) -> None:
    import threading

    gate = threading.Event()
    first = ledger.submit("a", {}, apply=lambda _: gate.wait(10) and None)
    while not first.running():
        pass
    second = ledger.submit("b", {})
    assert second.cancel()
    gate.set()
    first.result(10)
    assert ledger.append("c", {}).index == 1


def test_the_head_is_checked_again_when_another_process_moved_it(
    history: Ledger, folder: Path, key: SigningKey
) -> None:
    known = load_head(folder, history.vkey, None)
    with Ledger.open(folder, key) as other:
        other.append("note", {})
    moved = load_head(folder, history.vkey, known)
    assert (known.size, moved.size) == (12, 13)
    assert load_head(folder, history.vkey, moved) is moved


def test_a_shorter_note_never_leaves_the_end_of_the_longer_one(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for note in (b"n" * 300, b"o" * 300, b"p" * 200, b"q" * 700, b"r" * 300):
        _last_signed.write_last_signed(folder, note)
        assert (folder / "ledger.checkpoint").read_bytes() == note
        assert (folder / "ledger.checkpoint").stat().st_mode & 0o777 == 0o600
