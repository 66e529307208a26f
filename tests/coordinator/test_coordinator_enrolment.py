"""Who comes in, once and as invited; who goes out, at once; the roster between two processes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator import enrolment
from coordinator.migrations import COORDINATOR_STORE
from coordinator.service import WATCH_SECONDS
from coordinator.store import CoordinatorStore
from federation.errors import KeyongError
from federation.home import Home, NewKeys, now
from federation.statements import Invitation, Root, RosterHistory
from federation.stores import open_engine
from federation.wire import messages as m
from federation.wire.dial import Address, dial
from federation.wire.peer import Peer
from tests.coordinator.parties import Consortium, request_of

ROOT = Path(__file__).parents[2]


def invite(quiet: Consortium, member: str = "mill-x", **options: Any) -> Invitation:
    return enrolment.invite(
        quiet.institute, quiet.store, member=member, entity=f"{member} Ltd", roles=("member",), at=now(), **options
    )


def enter(invitation: Invitation, timeout: float = 3) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Dial with the ticket."""
    address = Address(invitation.address, invitation.coordinator, invitation.coordinator_certificate)
    ticket = invitation.ticket_key.encode(), invitation.ticket_certificate.encode()
    return dial(address, *ticket, timeout=timeout)


async def ask_over(peer: Peer, envelope: Any, method: str = "enrol") -> list[Any]:
    """Enrol over a link; the chain that comes back."""
    answer = await peer.call(method, m.Envelopes(envelopes=(m.pack(envelope),)).to_bytes(), timeout=10)
    return [m.unpack(text) for text in m.Envelopes.from_bytes(answer.header).envelopes]


async def ask(invitation: Invitation, envelope: Any, method: str = "enrol") -> list[Any]:
    """Dial with the ticket and enrol; the chain that comes back."""
    async with enter(invitation) as peer:
        return await ask_over(peer, envelope, method)


async def test_an_invitation_of_another_process_works_once(quiet: Consortium):
    async with quiet.serving(nodes=False):
        invitation = invite(quiet)  # another Home object and another store than the running coordinator's
        keys = NewKeys("mill-x", root=False)
        chain = await ask(invitation, request_of(keys, invitation))
        history = RosterHistory(chain, invitation.fingerprint)
        assert history.latest.member("mill-x").statement_key == keys.statement.public.text
        with pytest.raises(KeyongError) as caught:
            await ask(invitation, request_of(NewKeys("mill-x", root=False), invitation))
        assert caught.value.code == "unreachable"  # the ticket opens no link any more
        assert Home(quiet.institute.path).history.latest.version == history.latest.version


async def test_of_two_uses_at_the_same_time_one_enters(quiet: Consortium):
    invitation = invite(quiet)
    async with quiet.serving(nodes=False), contextlib.AsyncExitStack() as links:
        # Every link stands before the first use: later the ticket opens none.
        peers = [await links.enter_async_context(enter(invitation, timeout=30)) for _ in range(4)]
        tries = [ask_over(peer, request_of(NewKeys("mill-x", root=False), invitation)) for peer in peers]
        results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 1
    refused = [result for result in results if not isinstance(result, list)]
    assert all(isinstance(result, KeyongError) and result.code == "enrolment" for result in refused), refused
    roster = Home(quiet.institute.path).history.latest
    assert [member.id for member in roster.members].count("mill-x") == 1


def _another_tls(keys: NewKeys, other: NewKeys) -> dict[str, Any]:
    return {"tls_certificate": other.tls.certificate_pem.decode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"member": "mill-a"},
        {"member": "mill-y"},
        {"entity": "Somebody Else"},
        {"consortium": "urn:uuid:00000000-0000-4000-8000-000000000000"},
        {"tls_certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"expires": now() - timedelta(hours=1)},
        "another's certificate",
        "the ticket's certificate",
        "another's key",
        "not signed by every key",
    ],
)
async def test_a_request_that_is_not_what_was_invited_is_refused_and_the_ticket_stays_good(quiet: Consortium, changes):
    invitation, keys = invite(quiet), NewKeys("mill-x", root=False)
    known = quiet.institute.history.latest.member("mill-a")
    if changes == "another's certificate":
        request = request_of(keys, invitation, tls_certificate=known.tls_certificate)
    elif changes == "the ticket's certificate":
        request = request_of(keys, invitation, tls_certificate=invitation.ticket_certificate)
    elif changes == "another's key":
        mine = quiet.members[0].key("statement")
        keys.statement = mine  # it can sign with it, and yet it is mill-a's
        request = request_of(keys, invitation)
    elif changes == "not signed by every key":
        request = request_of(keys, invitation)
        request = replace(request, signatures=request.signatures[:2])
    else:
        request = request_of(keys, invitation, **changes)
    async with quiet.serving(nodes=False):
        with pytest.raises(KeyongError) as caught:
            await ask(invitation, request)
        assert caught.value.exit_code in (2, 3, 4) and caught.value.code != "internal"
        version = quiet.institute.history.latest.version
        await ask(invitation, request_of(NewKeys("mill-x", root=False), invitation))
        assert Home(quiet.institute.path).history.latest.version == version + 1


async def test_an_expired_a_voided_and_a_forged_ticket_open_no_link(quiet: Consortium):
    expired = invite(quiet, "mill-y", validity=timedelta(seconds=1))
    voided, newer = invite(quiet), invite(quiet)
    forged = newer.model_copy(
        update={"ticket_key": expired.ticket_key, "ticket_certificate": expired.ticket_certificate}
    )
    while now() < expired.expires:
        await asyncio.sleep(0.1)
    async with quiet.serving(nodes=False):
        tries = [ask(bad, request_of(NewKeys(bad.member, root=False), bad)) for bad in (expired, voided, forged)]
        for error in await asyncio.gather(*tries, return_exceptions=True):
            assert isinstance(error, KeyongError) and error.code in ("unreachable", "link-lost"), error
    # and where a link was open already when it expired
    with pytest.raises(enrolment.EnrolmentError, match="expired"):
        row = quiet.store.invitation(_fingerprint(expired))
        assert row is not None
        keys = NewKeys("mill-y", root=False)
        enrolment.enrol(quiet.institute, quiet.store, row.fingerprint, request_of(keys, expired), now())


def _fingerprint(invitation: Invitation) -> str:
    from federation.crypto import certificate_fingerprint

    return certificate_fingerprint(invitation.ticket_certificate.encode())


async def test_a_ticket_can_do_nothing_but_enrol(quiet: Consortium):
    invitation = invite(quiet)
    async with quiet.serving(nodes=False):
        for method in ("hello", "catalog.list", "job.submit", "mail.fetch"):
            with pytest.raises(KeyongError) as caught:
                await ask(invitation, request_of(NewKeys("mill-x", root=False), invitation), method)
            assert caught.value.code == "ticket"


async def test_a_removal_by_another_process_cuts_the_link_within_a_second(quiet: Consortium):
    async with quiet.serving():
        node = quiet.nodes[1]
        assert node.peer is not None
        enrolment.remove(Home(quiet.institute.path), "mill-b", now())
        assert await node.peer.ended(60) and WATCH_SECONDS < 1
        with pytest.raises(KeyongError) as caught:
            async with node.attached():
                pass
        assert caught.value.code in ("unreachable", "link-lost")
        status = m.Status.from_bytes((await quiet.call("status", m.Empty())).header)
        assert status.online == ("mill-a", "mill-c")


async def test_a_roster_is_renewed_before_it_expires_and_told(quiet: Consortium, monkeypatch):
    monkeypatch.setattr("coordinator.service.RENEW_BEFORE", timedelta(days=1))
    before = quiet.institute.history.latest
    async with quiet.serving():
        monkeypatch.setattr("coordinator.service.RENEW_BEFORE", timedelta(days=90))
        # it has 90 days when fresh: one renewal, then one a second as each ages past the bound; told to every node
        async with asyncio.timeout(60):
            while Home(quiet.institute.path).history.latest.version == before.version:
                await asyncio.sleep(0.05)
    renewed = Home(quiet.institute.path).history.latest
    assert renewed.members == before.members and renewed.expires >= before.expires


def test_a_root_of_several_keys_refuses_clearly(quiet: Consortium):
    latest = quiet.institute.history.latest
    root = Root(threshold=2, keys=(*latest.root.keys, quiet.members[0].key("witness").public.text))
    quiet.institute.history._rosters[-1] = latest.model_copy(update={"root": root})
    with pytest.raises(enrolment.RootAbsentError, match="needs 2 root signatures"):
        enrolment.remove(quiet.institute, "mill-a", now())
    with pytest.raises(enrolment.RootAbsentError, match="needs 2 root signatures"):
        invite(quiet)
    assert not enrolment.renew(quiet.institute, now(), timedelta(days=365))


CHANGE = """
import contextlib, sys, time
from pathlib import Path
from coordinator import enrolment
from federation.home import Home, now
path, letter, locked = sys.argv[1:]
if locked == "no":
    enrolment.roster_lock = lambda home: contextlib.nullcontext()
signed = enrolment.next_roster
def after_both_have_read(home, *args):
    home.history
    (home.path / f"read-{letter}").touch()
    # where one at a time comes here, the first waits in vain
    until = time.monotonic() + (3 if locked == "yes" else 60)
    while len(list(home.path.glob("read-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return signed(home, *args)
enrolment.next_roster = after_both_have_read
enrolment.remove(Home(Path(path)), f"mill-{letter}", now())
"""


@pytest.mark.parametrize("locked", ["yes", "no"])
def test_two_processes_that_change_the_roster_do_not_fork_it(quiet: Consortium, locked: str):
    # processes of their own: a fork of one that holds gRPC's threads may never come to life
    processes = [
        subprocess.Popen([sys.executable, "-c", CHANGE, str(quiet.institute.path), letter, locked], cwd=ROOT)
        for letter in "ab"
    ]
    failed = sum(process.wait(60) != 0 for process in processes)
    home = Home(quiet.institute.path)
    whole = not failed and [member.id for member in home.history.latest.members] == ["institute", "mill-c"]
    assert whole is (locked == "yes")


def test_an_invitation_is_used_up_by_one_statement(tmp_path: Path):
    # A read first and a write after it, by two threads, would give both a True.
    from concurrent.futures import ThreadPoolExecutor

    from coordinator.store import InvitationRow

    stores = [CoordinatorStore(open_engine(tmp_path / "store.db", COORDINATOR_STORE)) for _ in range(4)]
    for number in range(10):
        row = InvitationRow(
            fingerprint=f"f{number}", member=f"m{number}", entity="", roles="[]", certificate="", expires="9"
        )
        stores[0].put_invitation(row)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda store, n=number: store.use_invitation(f"f{n}"), stores)) == 1
