"""Acceptance is of members under their keys; names that a release of before accepted are bound to members once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from enterprise_node.acceptance import Acceptances


def peers(world: Any) -> dict[str, bool]:
    return {one.member.id: one.accepted for one in Acceptances(world.home, world.store).peers()}


def test_names_accepted_before_are_bound_to_the_members_of_the_roster(world: Any) -> None:
    store, ledger = world.store, world.record.ledger
    with store._engine.begin() as connection:
        connection.execute(text("INSERT INTO accepted_entity VALUES ('lab Ltd', '2026-01-01T00:00:00Z')"))
    assert not any(peers(world).values()), "a name alone counts for nobody"
    Acceptances(world.home, store).bind(ledger)
    assert [name for name, accepted in peers(world).items() if accepted] == ["lab"]
    assert store.named() == frozenset()
    bound = [ledger.fields(entry.index) for entry in ledger.find(kind="peers")]
    lab = world.home.history.latest.member("lab")
    assert bound[-1] == {"entity": "lab Ltd", "event": "bound", "member": "lab", "key": lab.statement_key}
    size = ledger.size
    Acceptances(world.home, store).bind(ledger)
    assert ledger.size == size
