"""What an exchange is made of: its messages, what either end keeps of it while it is open, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from federation.errors import KeyongError, UnavailableError, VerificationError
from federation.wire._generated.link_pb2 import Head
from federation.wire.body import Body, Buffer
from federation.wire.patience import Patience
from federation.wire.places import Place


class LinkLostError(UnavailableError):
    """The stream ended while an answer was awaited."""

    code = "link-lost"


class NoAnswerError(UnavailableError):
    """The other side did not answer in time."""

    code = "no-answer"


class FrameOrderError(VerificationError):
    """The other end sent a frame that the protocol does not allow there; the link ends with it."""

    code = "frame-order"


@dataclass(frozen=True)
class Incoming:
    """A received message: its method, header bytes (canonical JSON, unparsed) and body.

    Attributes:
        digest: of the body, where it was taken while the body arrived (see :class:`Body`); else empty.
    """

    method: str
    header: bytes
    body: memoryview
    digest: str = ""


@dataclass(frozen=True)
class Outgoing:
    """A message to send: header bytes and the buffers of its body."""

    header: bytes
    body: Sequence[Buffer] = ()


@dataclass
class Assembly:
    """A message whose body arrives."""

    head: Head
    body: Body

    def message(self) -> Incoming:
        """What arrived, once its body is whole."""
        return Incoming(self.head.method, self.head.header, self.body.view, self.body.digest)


@dataclass
class Inbound:
    """An exchange that the other end began."""

    size: int
    until: float
    """When a body that is not whole by then is given up; what comes of it moves this on."""
    assembly: Assembly | None = None
    task: asyncio.Task[None] | None = None
    ending: bool = False
    proceed: asyncio.Event | None = None
    """Set once the other end takes a large answer's body; None where it takes it at once."""


@dataclass
class Outbound:
    """An exchange that this end began."""

    answer: asyncio.Future[Incoming] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    assembly: Assembly | None = None
    size: int = 0
    patience: Patience | None = None
    job: str = ""
    place: Place | None = None

    def refuse(self, error: KeyongError) -> None:
        """Give up what arrives, and tell whoever waits for the answer why."""
        self.assembly = None
        if not self.answer.done():
            self.answer.set_exception(error)


def place_of(error: BaseException) -> str:
    """Where an exception was raised, as ``module:line``: what a log may say of an exception whose text it must not
    repeat."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '')}:{trace.tb_lineno}"
