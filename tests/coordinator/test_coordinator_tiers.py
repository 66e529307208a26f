"""A member's floor of isolation changes on its own signed word alone."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator import enrolment
from federation.errors import KeyongError
from federation.home import NewKeys, now
from federation.statements import Invitation
from sandbox._identity import Identity
from tests.coordinator.parties import Consortium, request_of


def enter(quiet: Consortium, member: str, **changes: Any) -> tuple[NewKeys, Invitation]:
    invitation = enrolment.invite(
        quiet.institute, quiet.store, member=member, entity=f"{member} Ltd", roles=("member",), at=now()
    )
    keys = NewKeys(member, root=False)
    ticket = quiet.store.outstanding("")[-1].fingerprint
    enrolment.enrol(quiet.institute, quiet.store, ticket, request_of(keys, invitation, **changes), now())
    return keys, invitation


def floor(quiet: Consortium, member: str) -> str:
    return quiet.institute.history.latest.member(member).floor


def test_floor_is_entered_with_the_member_and_changed_by_it(quiet: Consortium) -> None:
    keys, invitation = enter(quiet, "mill-x", tier="T1")
    assert floor(quiet, "mill-x") == "T1"
    version = quiet.institute.history.latest.version
    enrolment.change_tier(quiet.institute, "mill-x", request_of(keys, invitation, tier="T2"), now())
    assert floor(quiet, "mill-x") == "T2"
    assert quiet.institute.history.latest.version == version + 1
    enrolment.change_tier(quiet.institute, "mill-x", request_of(keys, invitation, tier="T2"), now())
    assert quiet.institute.history.latest.version == version + 1, "the same floor is no new version"


def test_nobody_changes_anothers_floor(quiet: Consortium) -> None:
    keys, invitation = enter(quiet, "mill-x")
    enter(quiet, "mill-y")
    with pytest.raises(KeyongError, match="signed by the member itself"):
        enrolment.change_tier(quiet.institute, "mill-y", request_of(keys, invitation, tier="T1"), now())
    other = request_of(NewKeys("mill-x", root=False), invitation, tier="T1")
    with pytest.raises(KeyongError, match="signed by the member itself"):
        enrolment.change_tier(quiet.institute, "mill-x", other, now())
    assert (floor(quiet, "mill-x"), floor(quiet, "mill-y")) == ("T2", "T2")


def test_an_older_request_does_not_bring_the_floor_back(quiet: Consortium) -> None:
    at = now()
    keys, invitation = enter(quiet, "mill-x", issued=at - timedelta(seconds=60), tier="T1")
    old = request_of(keys, invitation, issued=at - timedelta(seconds=60), tier="T1")
    enrolment.change_tier(quiet.institute, "mill-x", request_of(keys, invitation, tier="T2"), now())
    with pytest.raises(KeyongError, match="older than the member's entry"):
        enrolment.change_tier(quiet.institute, "mill-x", old, now())
    assert floor(quiet, "mill-x") == "T2"


def test_a_member_of_the_longest_name_is_invited_and_enters(quiet: Consortium, tmp_path: Path) -> None:
    name = "m" * 57
    enter(quiet, name)
    assert quiet.institute.history.latest.member(name).entity == f"{name} Ltd"


async def test_a_start_clears_what_sessions_at_t1_left(
    quiet: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("T1 needs root")
    roots = tmp_path / "roots"
    (roots / "1879048192" / "data").mkdir(parents=True)
    monkeypatch.setattr("sandbox._own_uid.ROOTS", roots)
    monkeypatch.setattr("sandbox._own_uid.hold_if_free", lambda uid: Identity(uid, -1))
    async with quiet.serving(nodes=False):
        assert not list(roots.iterdir())
