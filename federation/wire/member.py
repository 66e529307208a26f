"""A member's side of the link: greeting, learning rosters, reading and sending mail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import structlog

from federation import correspondence
from federation.crypto import SignatureError, TlsIdentity, certificate_fingerprint, check_certificate, server_name
from federation.errors import KeyongError, UnavailableError, VerificationError
from federation.holdings import Holdings
from federation.home import Home, now
from federation.ledger import Ledger, LedgerError
from federation.peer_times import APART, ClockError, PeerTimes
from federation.release import software
from federation.statements import Envelope, UnknownMemberError, parse_instant
from federation.wire.dial import CONNECT_SECONDS, Address, UnreachableError, dial, refuse_all, shown_certificate
from federation.wire.messages import (
    Envelopes,
    Hello,
    Mail,
    MailBox,
    MailItem,
    MailSince,
    MessageError,
    RosterSince,
    Welcome,
    pack,
    unpack,
)
from federation.wire.meter import Meter
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Handler, Peer
from federation.wire.protocol import PROTOCOL, check_version

log = structlog.get_logger("keyong.wire")


PROBE_SECONDS = 5.0
"""What it may take to see which certificate is shown at the coordinator's address, where it is not the one expected."""


@contextlib.asynccontextmanager
async def connect(
    home: Home,
    handler: Handler = refuse_all,
    *,
    tls: TlsIdentity | None = None,
    timeout: float = CONNECT_SECONDS,
    meter: Meter | None = None,
    lent: frozenset[str] = frozenset(),
) -> AsyncIterator[Peer]:
    """Dial this home's coordinator, taking exactly the certificate the newest roster gives it.

    Where it shows another one, it may have exchanged it while we were away: then the rosters are asked for first, over a link
    that is believed in nothing else, and it is dialled again only if the root's signatures give it that certificate.

    Args:
        tls: our TLS identity, where it is not the home's.
    """
    own = tls or home.tls
    spool = home.folder("spool")

    def dialled() -> contextlib.AbstractAsyncContextManager[Peer]:
        return dial(
            coordinator_address(home),
            own.key_pem,
            own.certificate_pem,
            handler=handler,
            spool=spool,
            timeout=timeout,
            meter=meter,
            lent=lent,
        )

    async with contextlib.AsyncExitStack() as stack:
        try:
            peer = await stack.enter_async_context(dialled())
        except UnreachableError:
            if not await relearn(home, own):
                raise
            peer = await stack.enter_async_context(dialled())
        yield peer


def coordinator_address(home: Home) -> Address:
    """Where the newest roster has the coordinator, and its certificate."""
    coordinator = home.history.latest.coordinator
    return Address(coordinator.address or home.identity.address, coordinator.id, coordinator.tls_certificate)


async def relearn(home: Home, own: TlsIdentity) -> bool:
    """Learn rosters from whoever shows another certificate at the coordinator's address; whether one of them names it.

    Nothing is told there but which rosters we have, and nothing is taken but rosters, which their signatures prove.
    """
    address = coordinator_address(home)
    shown = await asyncio.to_thread(shown_certificate, address.target, PROBE_SECONDS)
    try:
        if shown is None or certificate_fingerprint(shown.encode()) == certificate_fingerprint(
            address.certificate.encode()
        ):
            return False
        if check_certificate(shown.encode()).server_name != server_name(address.member):
            return False
        other = Address(address.target, address.member, shown)
        async with dial(other, own.key_pem, own.certificate_pem, timeout=PROBE_SECONDS) as peer:
            ledger = await asyncio.to_thread(home.open_ledger)
            try:
                await fetch_rosters(peer, home, ledger)
            finally:
                await asyncio.to_thread(ledger.close)
    except (VerificationError, UnavailableError) as error:
        log.warning("coordinator-shows-another-certificate", code=error.code)
        return False
    return certificate_fingerprint(coordinator_address(home).certificate.encode()) == certificate_fingerprint(
        shown.encode()
    )


async def greet(
    peer: Peer,
    home: Home,
    ledger: Ledger | None,
    *,
    serves: Literal["node", "client", "dataspace"],
    times: PeerTimes | None = None,
) -> Welcome:
    """First exchange: agree on a protocol version, compare clocks, learn rosters.

    Args:
        times: where the coordinator's word of its time is kept.

    Raises:
        ProtocolVersionError: no version is spoken on both sides; the hint names the side to upgrade.
        ClockError: the clocks differ by more than statements tolerate.
    """
    hello = Hello(
        lowest=PROTOCOL[0],
        highest=PROTOCOL[1],
        software=software(),
        serves=serves,
        roster_version=home.history.latest.version,
    )
    answer = await peer.call("hello", hello.to_bytes(), timeout=ANSWER_SECONDS)
    welcome = Welcome.from_bytes(answer.header)
    check_version(welcome.version)
    peer.version = welcome.version
    await asyncio.to_thread(learn, home, ledger, welcome.rosters)
    await asyncio.to_thread(home.check_keys)
    if welcome.rosters:
        await fetch_rosters(peer, home, ledger)  # what did not fit into the greeting
    said = parse_instant(welcome.clock)
    if times is not None:
        times.greeted(home.history.latest.coordinator.id, said)
    apart = abs(now() - said)
    if apart > APART:
        raise ClockError(
            "this machine's clock and the coordinator's are {seconds} s apart",
            hint="set the clock (timedatectl set-ntp true); agreements and invocations are judged by it",
            seconds=int(apart.total_seconds()),
        )
    return welcome


def learn(home: Home, ledger: Ledger | None, rosters: Sequence[str]) -> None:
    """Take newer rosters, each onto the record; one that does not follow ends the link."""
    for text in rosters:
        envelope = unpack(text)
        before = home.history.latest.version
        roster = home.learn(envelope)
        if roster.version > before and ledger is not None:
            ledger.append("roster", {"roster": envelope.digest, "version": roster.version})


async def fetch_rosters(peer: Peer, home: Home, ledger: Ledger | None) -> bool:
    """Ask for rosters newer than ours and take them; whether there were any."""
    before = known = home.history.latest.version
    while True:
        answer = await peer.call("roster.get", RosterSince(after=known).to_bytes(), timeout=ANSWER_SECONDS)
        await asyncio.to_thread(learn, home, ledger, Envelopes.from_bytes(answer.header).envelopes)
        if home.history.latest.version == known:
            return known > before
        known = home.history.latest.version


async def send_mail(peer: Peer, to: str, envelope: Envelope) -> None:
    """Hand a signed statement to the coordinator for another member."""
    await peer.call("mail.send", Mail(to=to, envelope=pack(envelope)).to_bytes(), timeout=ANSWER_SECONDS)


async def read_mail(peer: Peer, home: Home, holdings: Holdings, ledger: Ledger) -> int:
    """Fetch what arrived and take each statement; one that does not hold is logged and passed over.

    A statement may rest on a roster that is newer than ours (its author joined since): before it is refused, newer
    rosters are fetched and it is judged once more.

    Returns:
        How many statements changed something.

    Raises:
        UnavailableError: our own ledger or store cannot write; what was not taken stays unread.
        MessageError: the numbers of the mail do not rise.
    """
    taken = 0
    after = await asyncio.to_thread(holdings.mail_read)
    while True:
        answer = await peer.call("mail.fetch", MailSince(after=after).to_bytes(), timeout=ANSWER_SECONDS)
        items = MailBox.from_bytes(answer.header).items
        if not items:
            return taken
        for item in items:
            if item.number <= after:
                raise MessageError("the numbers of the mail do not rise")
            taken += await _take(peer, home, holdings, ledger, item)
            after = item.number
            await asyncio.to_thread(holdings.set_mail_read, after)


async def _take(peer: Peer, home: Home, holdings: Holdings, ledger: Ledger, item: MailItem) -> bool:
    async def judge() -> tuple[correspondence.Effect, str]:
        return await asyncio.to_thread(correspondence.take, home, holdings, ledger, unpack(item.envelope), now())

    try:
        try:
            effect, digest = await judge()
        except (UnknownMemberError, SignatureError):
            if not await fetch_rosters(peer, home, ledger):
                raise
            effect, digest = await judge()
    except (UnavailableError, LedgerError):
        raise  # our own record cannot be kept: the mail stays unread
    except KeyongError as error:
        log.warning("mail-refused", sender=item.sender, code=error.code, reason=str(error))
        return False
    log.info("mail-taken", sender=item.sender, effect=effect, agreement=digest[:19])
    return effect != "known"
