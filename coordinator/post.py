"""Mail between members and the catalog of what nodes publish: carried unread, kept within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from coordinator.desk import Method
from coordinator.links import Links
from coordinator.store import CoordinatorStore
from federation.errors import UsageError
from federation.home import Home, now
from federation.statements import DatasetDescription, Envelope, StatementError, instant_text
from federation.wire import messages as m
from federation.wire.peer import Incoming, Outgoing, Peer

MAIL_BYTES = 1024 * 1024
"""Of one statement. A receiver gets it inside a header of its own, which must stay below what a header may take."""
PAGE_BYTES = 1024 * 1024
CATALOG_BYTES = 1792 * 1024
"""Of all descriptions together: the catalog is one header, so that one member's flood must not take it from all."""
PUBLISHED_BYTES = 512 * 1024
"""Of one member's."""


class Post:
    """Answers the mail and catalog methods.

    Args:
        notify: calls a member without waiting for it.
    """

    def __init__(
        self, home: Home, store: CoordinatorStore, links: Links, notify: Callable[[str, str, bytes], None]
    ) -> None:
        self._home = home
        self._store = store
        self._links = links
        self._notify = notify
        self.methods: Mapping[str, Method] = {
            "catalog.publish": self._publish,
            "catalog.list": self._catalog,
            "mail.send": self._send,
            "mail.fetch": self._fetch,
        }

    async def _publish(self, peer: Peer, message: Incoming) -> Outgoing:
        def publish() -> None:
            request = m.Publish.from_bytes(message.header)
            entries: dict[str, bytes] = {}
            for text in request.datasets:
                envelope = m.unpack(text)
                description = DatasetDescription.open(envelope, [self._home.public_key(peer.member)], now())
                if description.provider != peer.member:
                    raise StatementError("a member can publish its own datasets only")
                entries[description.dataset] = envelope.to_bytes()
            if sum(map(len, entries.values())) > PUBLISHED_BYTES:
                raise UsageError(
                    "the descriptions of all your datasets together exceed {size} KiB",
                    hint="shorten them, or remove datasets that are not offered any more",
                    size=PUBLISHED_BYTES // 1024,
                    code="catalog-full",
                )
            self._store.publish(peer.member, request.runtime, entries, CATALOG_BYTES)

        await asyncio.to_thread(publish)
        return Outgoing(m.Empty().to_bytes())

    async def _catalog(self, peer: Peer, message: Incoming) -> Outgoing:
        members = {member.id: member.public.key_id for member in self._home.history.latest.members}
        rows = await asyncio.to_thread(self._store.catalog)
        entries = []
        for row in rows:
            envelope, online = Envelope.from_bytes(row.envelope), row.node in self._links.online
            # What a member signed with a key that has ended, its node publishes anew when it is back.
            if members.get(row.node) in {one.key_id for one in envelope.signatures}:
                entries.append(m.Entry(envelope=m.pack(envelope), online=online, runtime=row.runtime))
        return Outgoing(m.Catalog(entries=tuple(entries)).to_bytes())

    async def _send(self, peer: Peer, message: Incoming) -> Outgoing:
        mail = m.Mail.from_bytes(message.header)
        self._home.history.latest.member(mail.to)
        envelope = m.unpack(mail.envelope)
        data = envelope.to_bytes()
        if len(data) > MAIL_BYTES:
            raise UsageError(
                "a statement of more than {size} KiB is not carried", size=MAIL_BYTES // 1024, code="mail-size"
            )
        arrived = instant_text(now())
        await asyncio.to_thread(self._store.put_mail, mail.to, peer.member, arrived, envelope.digest, data)
        if mail.to in self._links.online:
            self._notify(mail.to, "mail.push", m.Empty().to_bytes())
        return Outgoing(m.Empty().to_bytes())

    async def _fetch(self, peer: Peer, message: Incoming) -> Outgoing:
        after = m.MailSince.from_bytes(message.header).after
        rows = await asyncio.to_thread(self._store.mail, peer.member, after)
        items: list[m.MailItem] = []
        size = 0
        for row in rows:
            size += len(row.envelope)
            if items and size > PAGE_BYTES:
                break
            envelope = m.pack(Envelope.from_bytes(row.envelope))
            items.append(m.MailItem(number=row.number or 0, sender=row.sender, arrived=row.arrived, envelope=envelope))
        return Outgoing(m.MailBox(items=tuple(items)).to_bytes())
