"""What a party holds: states that move forward, found by name."""

from __future__ import annotations

import concurrent.futures
from datetime import UTC, datetime
from typing import Any

import pytest

from federation import holdings as module
from federation.holdings import NoSuchAgreementError, StoreUnavailableError, TooManyWaitingError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def put(holdings: Any, envelope: Any, state: str, number: int = 0) -> None:
    holdings.put(
        envelope,
        state,
        id=f"urn:uuid:{number:08x}-0000-4000-8000-000000000000",
        provider="mill",
        consumer="lab",
        dataset="passes",
        title="Passes",
        arrived=NOW,
    )


def test_revoked_is_final(parties: Any) -> None:
    holdings, envelope = parties.of["mill"].holdings, parties.agreement("mill", "lab")
    put(holdings, envelope, "in-force")
    holdings.move(envelope.digest, "revoked")
    put(holdings, envelope, "in-force")
    holdings.move(envelope.digest, "in-force")
    assert holdings.state(envelope.digest) == "revoked"


def test_what_is_not_held_cannot_be_moved(parties: Any) -> None:
    holdings = parties.of["mill"].holdings
    with pytest.raises(NoSuchAgreementError):
        holdings.move("sha256:" + "0" * 64, "revoked")
    assert holdings.state("sha256:" + "0" * 64) is None and holdings.get("x") is None


def test_found_by_the_beginning_of_id_or_digest(parties: Any) -> None:
    holdings, one, other = parties.of["mill"].holdings, parties.agreement("mill"), parties.agreement("mill")
    put(holdings, one, "offered", 0xAAAA0001)
    put(holdings, other, "in-force", 0xAAAA0002)
    assert holdings.find("aaaa0001").digest == holdings.find(one.digest).digest == one.digest
    for name in ("aaaa", "", "a", "zzzz"):
        with pytest.raises(NoSuchAgreementError):
            holdings.find(name)
    assert [held.digest for held in holdings.list("in-force")] == [other.digest] and len(holdings.list()) == 2


def test_how_far_mail_was_read_only_rises_whoever_says_it(parties: Any) -> None:
    holdings = parties.of["mill"].holdings
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(holdings.set_mail_read, range(40)))
    holdings.set_mail_read(7)
    assert holdings.mail_read() == 39


def test_a_member_cannot_flood_us(parties: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    holdings = parties.of["lab"].holdings
    for number in (1, 2):
        holdings.check_room("mill")
        put(holdings, parties.agreement("mill"), "offered", number)
    with pytest.raises(TooManyWaitingError):
        holdings.check_room("mill")
    holdings.check_room("lab")


def test_a_store_that_fails_is_unavailable_never_empty(parties: Any) -> None:
    holdings, envelope = parties.of["mill"].holdings, parties.agreement("mill", "lab")
    put(holdings, envelope, "in-force")
    with holdings._engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE holding RENAME TO gone")
        connection.commit()
    with pytest.raises(StoreUnavailableError):
        holdings.state(envelope.digest)
