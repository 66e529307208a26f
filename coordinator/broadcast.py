"""The content of an exchange on its way to the nodes: named once, hashed once, and not sent to whom holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from coordinator.links import Links
from federation.errors import UnavailableError
from federation.jobs.codec import body_digest, content_digest, nested_digest
from federation.wire.messages import Invoke
from federation.wire.peer import Incoming
from federation.wire.protocol import BODY_NAMED

WITHHELD_FROM = 64 * 1024
"""Bodies below this are sent anyway: to be asked for one would cost more than it saves."""
MISSING = "body-missing"


@dataclass(frozen=True)
class Named:
    """A content as one node knows it.

    Attributes:
        digest: what the invocation is signed for.
        body_digest: of the body alone; empty for a node that speaks protocol 1.
    """

    header: bytes
    body: memoryview
    digest: str
    body_digest: str


@dataclass(frozen=True)
class Hashed:
    """A body and its digest."""

    body: memoryview
    digest: str

    @classmethod
    def of(cls, body: memoryview) -> Hashed:
        """Hash a body; blocks meanwhile."""
        return cls(body, body_digest([body]))


class Broadcast:
    """One content for all nodes. Blocks while it hashes.

    Args:
        known: a body whose digest is known: it need not be hashed again where it is the very same.
    """

    def __init__(self, header: bytes, body: memoryview, known: Hashed | None = None) -> None:
        self._header = header
        self.body = body
        same = known is not None and known.body is body and body.readonly
        self.hashed: Hashed = known if known is not None and same else Hashed.of(body)
        self._body_digest = self.hashed.digest

    def named(self, version: int) -> Named:
        """The content as a node of this protocol version knows it."""
        if version < BODY_NAMED:
            return Named(self._header, self.body, self._whole, "")
        return Named(self._header, self.body, nested_digest(self._header, self._body_digest), self._body_digest)

    @property
    def digest(self) -> str:
        """Digest of the content, the same whatever the nodes speak; a recording knows it by this."""
        return nested_digest(self._header, self._body_digest)

    def signed_for(self, digest: str) -> Named:
        """The content as the node knows it whose invocation was sealed for this digest."""
        return self.named(BODY_NAMED if digest == self.digest else BODY_NAMED - 1)

    @cached_property
    def _whole(self) -> str:
        return content_digest(self._header, [self.body])


class Sender:
    """Sends a job's invocations with their content, and remembers which body each node holds."""

    def __init__(self, links: Links, job: str = "") -> None:
        self._links = links
        self._job = job
        self._held: dict[str, str] = {}

    async def send(
        self, node: str, invocation: str, content: Named, timeout: float, boxes: tuple[str, ...] = ()
    ) -> Incoming:
        """Send an invocation and wait for the answer; a body that the node turns out not to hold is sent after all.

        Args:
            boxes: sealed shares that travel with it.

        Raises:
            KeyongError: see `Links.call_again`, and whatever the node refuses with.
        """
        withheld = bool(content.body_digest) and self._held.pop(node, "") == content.body_digest
        if withheld:
            try:
                incoming = await self._send(node, invocation, content, timeout, boxes, withheld=True)
            except UnavailableError as error:
                if error.code != MISSING:
                    raise
                incoming = await self._send(node, invocation, content, timeout, boxes, withheld=False)
        else:
            incoming = await self._send(node, invocation, content, timeout, boxes, withheld=False)
        if len(content.body) >= WITHHELD_FROM:
            self._held[node] = content.body_digest
        return incoming

    async def _send(
        self, node: str, invocation: str, content: Named, timeout: float, boxes: tuple[str, ...], *, withheld: bool
    ) -> Incoming:
        header = Invoke(
            invocation=invocation,
            content=content.header.decode(),
            body=content.body_digest,
            withheld=withheld,
            boxes=boxes,
        )
        body = [] if withheld else [content.body]
        return await self._links.call_again(node, "job.invoke", header.to_bytes(), body, timeout=timeout, job=self._job)
