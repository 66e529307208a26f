"""A member's side of the link: greeting, learning rosters, reading and sending mail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import structlog

from federation import correspondence
from federation.errors import KeyongError, UnavailableError
from federation.holdings import Holdings
from federation.home import Home, now
from federation.ledger import Ledger
from federation.statements import CLOCK_SKEW, Envelope, parse_instant
from federation.wire.dial import Address, dial, refuse_all
from federation.wire.messages import (
    PROTOCOL,
    Hello,
    Mail,
    MailBox,
    MailSince,
    Welcome,
    pack,
    unpack,
)
from federation.wire.peer import Handler, Peer

log = structlog.get_logger("keyong.wire")

SOFTWARE = "keyong/0.1.0"


class ClockError(UnavailableError):
    """This machine's clock and the coordinator's differ too much to judge any date."""

    code = "clock"


def connect(home: Home, handler: Handler = refuse_all, *, timeout: float = 10.0) -> AbstractAsyncContextManager[Peer]:
    """Dial this home's coordinator, taking exactly the certificate the newest roster gives it."""
    coordinator = home.history.latest.coordinator
    tls = home.tls
    address = Address(coordinator.address or home.identity.address, coordinator.id, coordinator.tls_certificate)
    return dial(address, tls.key_pem, tls.certificate_pem, handler=handler, spool=home.folder("spool"), timeout=timeout)


async def greet(peer: Peer, home: Home, ledger: Ledger | None, *, serves: str) -> Welcome:
    """First exchange: agree on a protocol version, compare clocks, learn rosters.

    Raises:
        ClockError: the clocks differ by more than statements tolerate.
    """
    hello = Hello(
        lowest=PROTOCOL[0],
        highest=PROTOCOL[1],
        software=SOFTWARE,
        serves=serves,  # type: ignore[arg-type]
        roster_version=home.history.latest.version,
    )
    answer = await peer.call("hello", hello.to_bytes(), timeout=15)
    welcome = Welcome.from_bytes(answer.header)
    await asyncio.to_thread(learn, home, ledger, welcome.rosters)
    apart = abs(now() - parse_instant(welcome.clock))
    if apart > CLOCK_SKEW + timedelta(seconds=5):
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


async def send_mail(peer: Peer, to: str, envelope: Envelope) -> None:
    """Hand a signed statement to the coordinator for another member."""
    await peer.call("mail.send", Mail(to=to, envelope=pack(envelope)).to_bytes(), timeout=30)


async def read_mail(peer: Peer, home: Home, holdings: Holdings, ledger: Ledger) -> int:
    """Fetch what arrived and take each statement; one that does not hold is logged and passed over. Returns the count taken."""
    taken = 0
    while True:
        after = holdings.mail_read()
        answer = await peer.call("mail.fetch", MailSince(after=after).to_bytes(), timeout=30)
        items = MailBox.from_bytes(answer.header).items
        if not items:
            return taken
        for item in items:
            try:
                envelope = unpack(item.envelope)
                effect, digest = await asyncio.to_thread(correspondence.take, home, holdings, ledger, envelope, now())
            except UnavailableError:
                raise  # our own ledger cannot write: the mail stays unread
            except KeyongError as error:
                log.warning("mail-refused", sender=item.sender, code=error.code, reason=str(error))
            else:
                taken += effect != "known"
                log.info("mail-taken", sender=item.sender, effect=effect, agreement=digest[:19])
            holdings.set_mail_read(item.number)

