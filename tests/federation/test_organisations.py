"""inv6: what makes a history final is counted by organisation, whatever its members are called by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from federation import witnessing
from federation.home import NewKeys
from federation.keyring import witness_name
from federation.organisations import organisations
from federation.statements import Member, Root, Roster
from federation.witnessing import Quorum

CONSORTIUM = "urn:uuid:00000000-0000-4000-8000-000000000001"
FOUNDED = datetime(2026, 1, 1, tzinfo=UTC)
IDS = ("institute", "mill", "b-one", "b-two", "c", "d", "e")
FIRST = {"institute": "Institute", "mill": "Mill", "b-one": "B Ltd", "b-two": "B Ltd", "c": "C", "d": "D", "e": "E"}


@pytest.fixture(scope="module")
def keys() -> Mapping[str, NewKeys]:
    return {name: NewKeys(name, root=name == "institute") for name in IDS}


def chain(keys: Mapping[str, NewKeys], *names: Mapping[str, str]) -> list[Roster]:
    """Rosters one after the other, each with these members under these names."""
    root = keys["institute"].root
    assert root is not None
    return [
        Roster(
            issued=FOUNDED + timedelta(days=version),
            expires=FOUNDED + timedelta(days=version + 30),
            consortium=CONSORTIUM,
            name="Mills",
            version=version,
            previous="sha256:" + "0" * 64 if version > 1 else "",
            root=Root(threshold=1, keys=(root.public.text,)),
            members=tuple(entry(keys[name], name, entity) for name, entity in held.items()),
        )
        for version, held in enumerate(names, start=1)
    ]


def entry(keys: NewKeys, name: str, entity: str) -> Member:
    return Member(
        id=name,
        entity=entity,
        roles=("coordinator", "member") if name == "institute" else ("member",),
        statement_key=keys.statement.public.text,
        ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text,
        tls_certificate=keys.tls.certificate_pem.decode(),
        address="127.0.0.1:1" if name == "institute" else "",
    )


def reached(rosters: Sequence[Roster], *witnesses: str) -> bool:
    return Quorum.of(rosters, "mill").reached([witness_name(CONSORTIUM, one) for one in witnesses])


def test_a_company_under_two_names_has_one_voice(keys: Mapping[str, NewKeys], monkeypatch: pytest.MonkeyPatch) -> None:
    """B has two members; one of them is entered under another name. B and C alone must not make a history final."""
    rosters = chain(keys, FIRST, FIRST | {"b-two": "B GmbH"})
    assert Quorum.of(rosters, "mill").needed == 3, "B, C, D and E"
    assert not reached(rosters, "b-one", "b-two", "c")
    assert reached(rosters, "b-one", "c", "d")
    by_name = lambda rosters: {one.id: one.entity for roster in rosters for one in roster.members}  # noqa: E731
    monkeypatch.setattr(witnessing, "organisations", by_name)
    assert reached(rosters, "b-one", "b-two", "c"), "counted by names B has two voices"


def test_a_company_that_took_another_name_neither_vanishes_nor_counts_twice(keys: Mapping[str, NewKeys]) -> None:
    """The one member stayed behind under the old name and was removed; its company goes on under the new one."""
    left = {name: entity for name, entity in FIRST.items() if name != "b-one"} | {"b-two": "B Group"}
    rosters = chain(keys, FIRST, FIRST | {"b-two": "B Group"}, left)
    found = organisations(rosters)
    assert found["b-one"] == found["b-two"] and len(set(found.values())) == 6
    assert Quorum.of(rosters, "mill").needed == 3
    assert not reached(rosters, "b-one", "b-two", "c") and reached(rosters, "b-two", "c", "d")


def test_renaming_lets_neither_the_owner_nor_the_coordinator_vouch_for_itself(keys: Mapping[str, NewKeys]) -> None:
    """Members of the owner's and the coordinator's companies that carried their name once stay theirs."""
    before = FIRST | {"c": "Mill", "d": "Institute"}
    rosters = chain(keys, before, FIRST)
    counted = {one.name for one in Quorum.of(rosters, "mill").keys}
    assert counted == {witness_name(CONSORTIUM, one) for one in ("b-one", "b-two", "e")}
    assert Quorum.of(rosters, "mill").needed == 2


def test_who_was_removed_makes_no_newest_state_final(keys: Mapping[str, NewKeys]) -> None:
    left = {name: entity for name, entity in FIRST.items() if name != "c"}
    found = Quorum.of(chain(keys, FIRST, left), "mill")
    names = {one.name for one in found.current}
    assert witness_name(CONSORTIUM, "c") not in names and witness_name(CONSORTIUM, "d") in names
    assert witness_name(CONSORTIUM, "c") in {one.name for one in found.keys}, "its earlier cosignatures still verify"


def test_an_id_that_was_given_twice_is_not_held_to_be_one_company(keys: Mapping[str, NewKeys]) -> None:
    left = {name: entity for name, entity in FIRST.items() if name != "b-two"}
    found = organisations(chain(keys, FIRST, left, left | {"b-two": "F"}))
    assert found["b-two"] != found["b-one"]
