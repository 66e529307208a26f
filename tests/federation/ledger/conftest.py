"""A real ledger to work on, and to tamper with."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.ledger import Ledger

ORIGIN = "keyong/test/steelworks"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey.from_bytes(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    path.mkdir()
    return path


@pytest.fixture
def ledger(folder: Path, key: SigningKey, clock: Clock) -> Iterator[Ledger]:
    with Ledger.create(folder, ORIGIN, key, clock) as one:
        yield one


@pytest.fixture
def history(ledger: Ledger) -> Ledger:
    """Twelve entries, one checkpoint each: a genesis, then intents with their outcomes, the last one open."""
    ledger.append("genesis", {"member": "steelworks"})
    for number in range(5):
        intent = ledger.append("intent", {"plan": f"plan-{number}", "request": b"\x00raw\xff"})
        ledger.append("outcome", {"outcome": "ok", "rows": number}, ref=intent.index)
    ledger.append("intent", {"plan": "plan-5"})
    return ledger


Tamper = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def tamper(folder: Path) -> Tamper:
    """Change the database as somebody with the file would: plain SQL, no ledger code."""

    def run(sql: str, *params: object) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(folder / "ledger.db")
        try:
            rows = connection.execute(sql, params).fetchall()
            connection.commit()
            return rows
        finally:
            connection.close()

    return run
