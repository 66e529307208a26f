"""The roster: the only root of trust, a chain that grows and never turns back."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from federation.crypto import KeyRefusedError, SignatureError, SigningKey
from federation.statements import (
    Envelope,
    ExpiredError,
    Member,
    Root,
    RootMismatchError,
    Roster,
    RosterChainError,
    RosterHistory,
    RosterRolledBackError,
    UnknownMemberError,
    root_fingerprint,
)
from federation.statements import roster as module

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CONSORTIUM = f"urn:uuid:{uuid.uuid4()}"
ROOTS = [SigningKey.generate() for _ in range(4)]
PINNED = Root(threshold=2, keys=tuple(key.public.text for key in ROOTS[:3]))
FINGERPRINT = root_fingerprint(CONSORTIUM, PINNED)
LOW_ORDER = "ed25519:" + "A" * 43 + "="  # y = 0: a point of order four


def member(name: str, **changes: Any) -> Member:
    keys = [SigningKey.generate().public.text for _ in range(3)]
    values: dict[str, Any] = {
        "id": name,
        "entity": name,
        "roles": ("member",),
        "statement_key": keys[0],
        "ledger_key": keys[1],
        "witness_key": keys[2],
        "tls_certificate": f"certificate of {name}",
    }
    return Member(**values | changes)


MILL = member("mill")


def roster(version: int = 1, previous: str = "", signers: tuple[int, ...] = (0, 1), **changes: Any) -> Envelope:
    values: dict[str, Any] = {
        "issued": NOW,
        "expires": NOW + timedelta(days=30),
        "consortium": CONSORTIUM,
        "name": "Test",
        "version": version,
        "previous": previous,
        "root": PINNED,
        "members": (MILL,),
    }
    return Roster(**values | changes).seal(*(ROOTS[signer] for signer in signers))


FIRST = roster()


def history() -> RosterHistory:
    return RosterHistory([FIRST], FINGERPRINT)


def test_a_chain_grows_and_is_found_by_digest() -> None:
    held = history()
    second = roster(2, FIRST.digest)
    assert held.extend(second).version == 2
    assert held.extend(second).version == 2 and len(held.envelopes) == 2
    assert held.by_digest(FIRST.digest).version == 1 and held.digest == second.digest
    with pytest.raises(RosterChainError):
        held.by_digest("sha256:" + "0" * 64)


def test_another_root_than_the_pinned_one_is_refused() -> None:
    with pytest.raises(RootMismatchError):
        RosterHistory([FIRST], "sha256:" + "0" * 64)
    with pytest.raises(RootMismatchError):
        RosterHistory([roster(root=Root(threshold=1, keys=PINNED.keys))], FINGERPRINT)


@pytest.mark.parametrize("signers", [(0,), (0, 3), (3,)], ids=["one of two", "one and a stranger", "a stranger"])
def test_too_few_root_signatures_are_refused(signers: tuple[int, ...]) -> None:
    with pytest.raises(SignatureError):
        RosterHistory([roster(signers=signers)], FINGERPRINT)
    with pytest.raises(SignatureError):
        history().extend(roster(2, FIRST.digest, signers))


def test_a_damaged_root_signature_is_not_outvoted() -> None:
    good = roster(2, FIRST.digest, (0, 1, 2))
    other = roster(3, FIRST.digest, (2,))
    forged = Envelope(good.payload_type, good.payload, (*good.signatures[:2], other.signatures[0]))
    with pytest.raises(SignatureError):
        history().extend(forged)


def test_without_the_quorum_check_one_key_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_quorum", lambda *_: None)
    assert history().extend(roster(2, FIRST.digest, (3,))).version == 2


def test_a_rolled_back_roster_is_refused() -> None:
    held = history()
    held.extend(roster(2, FIRST.digest))
    for older in (roster(2, FIRST.digest, name="other"), roster(name="other first")):
        with pytest.raises(RosterRolledBackError):
            held.extend(older)
    assert held.latest.version == 2 and held.latest.name == "Test"


def test_a_forged_chain_is_refused() -> None:
    for broken in (
        roster(2, "sha256:" + "0" * 64),
        roster(3, FIRST.digest),
        roster(2, FIRST.digest, consortium=f"urn:uuid:{uuid.uuid4()}"),
    ):
        with pytest.raises(RosterChainError):
            history().extend(broken)
    with pytest.raises(RosterChainError):
        RosterHistory([roster(2, FIRST.digest)], FINGERPRINT)
    with pytest.raises(RosterChainError):
        RosterHistory([], FINGERPRINT)


def test_new_root_keys_need_the_old_quorum_and_the_new() -> None:
    new = Root(threshold=2, keys=(ROOTS[2].public.text, ROOTS[3].public.text))
    for too_few in ((0, 1), (2, 3), (0, 3)):
        with pytest.raises(SignatureError):
            history().extend(roster(2, FIRST.digest, too_few, root=new))
    held = history()
    second = roster(2, FIRST.digest, (0, 2, 3), root=new)
    assert held.extend(second).root == new
    with pytest.raises(SignatureError):
        held.extend(roster(3, second.digest, (0, 1), root=new))  # the old keys decide nothing any more


def test_an_expired_roster_is_history_but_not_in_force() -> None:
    held = history()
    assert held.in_force(NOW).version == 1
    with pytest.raises(ExpiredError):
        held.in_force(NOW + timedelta(days=30))


def test_members_are_found_in_their_role() -> None:
    latest = history().latest
    assert latest.member("mill", "member").entity == "mill"
    for name, role in (("mill", "coordinator"), ("stranger", None)):
        with pytest.raises(UnknownMemberError):
            latest.member(name, role)  # type: ignore[arg-type]
    with pytest.raises(UnknownMemberError):
        _ = latest.coordinator


def test_a_low_order_key_cannot_be_enrolled() -> None:
    with pytest.raises(KeyRefusedError):
        member("eve", statement_key=LOW_ORDER)
    with pytest.raises(KeyRefusedError):
        Root(threshold=1, keys=(LOW_ORDER,))


def test_without_that_check_a_roster_would_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_keys", lambda keys: None)
    assert member("eve", statement_key=LOW_ORDER).statement_key == LOW_ORDER


def test_one_key_serves_one_role_of_one_member() -> None:
    with pytest.raises(ValidationError):
        member("eve", ledger_key=MILL.ledger_key, witness_key=MILL.ledger_key)
    for shared in ({"statement_key": MILL.ledger_key}, {"tls_certificate": MILL.tls_certificate}, {"id": "mill"}):
        with pytest.raises(ValidationError):
            roster(members=(MILL, member(**{"name": "eve"} | shared) if "id" not in shared else member("mill")))
    with pytest.raises(ValidationError):
        roster(members=(MILL, member("eve", witness_key=PINNED.keys[0])))
    with pytest.raises(ValidationError):
        Root(threshold=2, keys=(PINNED.keys[0],))
