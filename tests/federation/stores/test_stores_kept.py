"""Answers that are kept while nobody commits: never older than a query's would be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from federation.stores import HOME_STORE, KeptAnswers, open_engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(tmp_path / "store.db", HOME_STORE)
    yield engine
    engine.dispose()


class Counted:
    """A question that knows how often it was asked of the store."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.asked = engine, 0

    def __call__(self) -> int:
        self.asked += 1
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM accepted_entity")).scalar_one())


INSERT = "INSERT INTO accepted_entity (entity, accepted) VALUES ('{0}', 'now')"


def test_asked_once_while_nothing_changes(engine: Engine) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)
    assert [kept.get("a", ask) for _ in range(5)] == [0] * 5
    assert ask.asked == 1


def test_a_commit_of_this_process_is_seen_at_once(engine: Engine) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)
    assert kept.get("a", ask) == 0
    for number in range(20):
        with engine.begin() as connection:
            connection.execute(text(INSERT.format(number)))
        assert kept.get("a", ask) == number + 1


def test_a_commit_of_another_process_is_seen_at_once(engine: Engine) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)
    assert kept.get("a", ask) == 0
    code = (
        f"import sqlite3; c = sqlite3.connect({engine.url.database!r}); c.execute({INSERT.format('x')!r}); c.commit()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert kept.get("a", ask) == 1


def test_without_the_look_a_change_would_be_missed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)
    monkeypatch.setattr(kept, "_look", lambda: 1)
    assert kept.get("a", ask) == 0
    with engine.begin() as connection:
        connection.execute(text(INSERT.format(1)))
    assert kept.get("a", ask) == 0


def test_an_answer_is_no_older_than_the_look_before_it(engine: Engine) -> None:
    """A change that is committed while the store is asked is not lost, whichever of the two the answer shows."""
    kept, ask = KeptAnswers(engine), Counted(engine)

    def ask_and_change() -> int:
        answer = ask()
        with engine.begin() as connection:
            connection.execute(text(INSERT.format(1)))
        return answer

    assert kept.get("a", ask_and_change) == 0
    assert kept.get("a", ask) == 1


def test_a_store_that_cannot_be_looked_at_is_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)
    assert kept.get("a", ask) == 0
    kept.close()

    def broken(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("federation.stores._kept.sqlite3.connect", broken)
    assert (kept.get("a", ask), kept.get("a", ask)) == (0, 0)
    assert ask.asked == 3


def test_an_error_is_not_kept(engine: Engine) -> None:
    kept, ask = KeptAnswers(engine), Counted(engine)

    def fail() -> int:
        raise OSError

    with pytest.raises(OSError):
        kept.get("a", fail)
    assert kept.get("a", ask) == 0
