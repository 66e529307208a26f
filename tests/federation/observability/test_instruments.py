"""Figures that are looked up: what lies in the spool unseen, and whether the ledger would take an entry."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.ledger import Ledger, LedgerUnavailableError
from federation.ledger import ledger as module
from federation.observability import Known, spooled_bytes


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return Ledger.create(folder, "keyong/test/x", SigningKey.generate())


def test_bodies_in_unlinked_files_are_counted_open_and_mapped(tmp_path: Path) -> None:
    assert spooled_bytes(tmp_path) == 0
    with tempfile.TemporaryFile(dir=tmp_path, buffering=0) as file:
        file.write(bytes(8192))
        assert not list(tmp_path.iterdir()), "no listing shows it"
        assert spooled_bytes(tmp_path) == 8192
        view = mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ)
    assert spooled_bytes(tmp_path) == 8192  # the descriptor has gone, the map holds it
    assert spooled_bytes(tmp_path / "other") == 0
    view.close()
    assert spooled_bytes(tmp_path) == 0


def test_each_entry_is_told_with_its_time_and_whether_it_is_durable(ledger: Ledger) -> None:
    told: list[bool] = []
    ledger.observe = lambda seconds, ok: told.append(ok and seconds > 0)

    def refuse(_: object) -> None:
        raise ValueError("a rule")

    with ledger:
        ledger.append("x", {"a": 1})
        with pytest.raises(ValueError, match="a rule"):
            ledger.append("x", {"a": 1}, apply=refuse)
    assert told == [True, False]


def test_a_ledger_says_before_it_is_asked_that_it_would_not_take_an_entry(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger:
        ledger.check_writable()
        assert ledger.size == 0, "asking writes nothing"
        monkeypatch.setattr(module, "LEAST_FREE_BYTES", 2**62)
        with pytest.raises(LedgerUnavailableError, match="MiB free"):
            ledger.check_writable()
        monkeypatch.undo()
        (ledger.folder / "ledger.db").rename(ledger.folder / "away.db")
        with pytest.raises(LedgerUnavailableError):
            ledger.check_writable()


def test_a_vocabulary_takes_in_so_many_words_and_no_more() -> None:
    known = Known(["a"], more=1)
    assert [known.label(name) for name in ("a", "b", "c", "b")] == ["a", "b", "other", "b"]
