"""Greetings between releases, and a roster chain that no header holds, learnt in pages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator import enrolment
from federation.errors import KeyongError
from federation.home import Home, now
from federation.wire import messages as m
from federation.wire import peer as peer_module
from federation.wire import rosters
from federation.wire.dial import refuse_all
from federation.wire.member import connect, greet
from keyong.founding import join
from tests.coordinator.parties import Consortium

CHANGES = 12
HEADER = 24 * 1024
"""Headers are shorter here, so that a chain outgrows one within a second."""


@pytest.fixture
def crowded(quiet: Consortium, monkeypatch: pytest.MonkeyPatch) -> Consortium:
    """A consortium whose roster changed often; its members have not heard of it."""
    monkeypatch.setattr(peer_module, "HEADER_BYTES", HEADER)
    monkeypatch.setattr(rosters, "PAGE_BYTES", HEADER - 1024)
    home = quiet.institute
    for _ in range(CHANGES):
        home.learn(enrolment.next_roster(home, home.history.latest.members, now()))
    assert sum(len(m.pack(one)) for one in home.history.envelopes[-CHANGES:]) > 2 * HEADER
    return quiet


async def test_a_member_learns_all_of_it_at_its_greeting(crowded: Consortium) -> None:
    mill = crowded.members[0]
    behind = mill.history.latest.version
    async with crowded.serving(nodes=False), connect(mill, refuse_all) as peer:
        with mill.open_ledger() as ledger:
            await greet(peer, mill, ledger, serves="client")
            recorded = [ledger.fields(entry.index)["version"] for entry in ledger.find(kind="roster")]
    newest = crowded.institute.history.latest.version
    assert mill.history.latest.version == newest and recorded == list(range(behind + 1, newest + 1))


async def test_without_pages_it_could_not_attach(crowded: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rosters, "PAGE_BYTES", 2**40)
    mill = crowded.members[0]
    async with crowded.serving(nodes=False), connect(mill, refuse_all) as peer:
        with pytest.raises(KeyongError) as refused:
            await greet(peer, mill, None, serves="client")
    assert refused.value.code == "body"


async def test_a_member_of_protocol_version_1_gets_one_page_at_a_time(crowded: Consortium) -> None:
    mill = crowded.members[0]
    hello = m.Hello(lowest=1, highest=1, software="keyong/0.1.0", serves="client", roster_version=1)
    async with crowded.serving(nodes=False), connect(mill, refuse_all) as peer:
        welcome = m.Welcome.from_bytes((await peer.call("hello", hello.to_bytes(), timeout=10)).header)
        assert welcome.version == 1
        known = 1 + len(welcome.rosters)
        assert known < crowded.institute.history.latest.version
        while page := m.Envelopes.from_bytes(
            (await peer.call("roster.get", m.RosterSince(after=known).to_bytes(), timeout=10)).header
        ).envelopes:
            known += len(page)
    assert known == crowded.institute.history.latest.version


async def test_a_newcomer_takes_all_of_it(crowded: Consortium, tmp_path: Path) -> None:
    async with crowded.serving(nodes=False):
        invitation = enrolment.invite(
            crowded.institute, crowded.store, member="late", entity="Late Ltd", roles=("member",), at=now()
        )
        home = await asyncio.to_thread(join, tmp_path / "late", invitation)
    assert home.history.latest.version == Home(crowded.institute.path).history.latest.version
    assert home.member.id == "late"


@pytest.mark.parametrize(("low", "high", "older"), [(0, 0, "the member"), (9, 10, "the coordinator")])
async def test_without_a_common_version_the_side_to_upgrade_is_named(
    quiet: Consortium, low: int, high: int, older: str
) -> None:
    hello = m.Hello(lowest=low, highest=high, software="keyong/9", serves="client", roster_version=1)
    async with quiet.serving(nodes=False), connect(quiet.members[0], refuse_all) as peer:
        with pytest.raises(KeyongError) as refused:
            await peer.call("hello", hello.to_bytes(), timeout=10)
    assert (refused.value.code, refused.value.hint, refused.value.exit_code) == (
        "protocol-version",
        f"upgrade {older}",
        5,
    )
