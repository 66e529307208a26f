"""Exchanges over one stream: calls in both directions, interleaved, with bodies in chunks.

Back pressure is the stream's own: a frame is sent only when gRPC's flow control takes it, so a slow reader slows its
sender and nothing grows in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter

import structlog

from federation.errors import DeniedError, KeyongError, UnavailableError, UsageError, VerificationError
from federation.wire._generated.link_pb2 import Cancel, Fault, Frame, Head
from federation.wire.body import Body, BodyError, Buffer, chunks, total_bytes

log = structlog.get_logger("keyong.wire")

HEADER_BYTES = 3 * 1024 * 1024
OPEN_EXCHANGES = 256
"""Exchanges a peer may have open towards us at once."""


class LinkLostError(UnavailableError):
    """The stream ended while an answer was awaited."""

    code = "link-lost"


class NoAnswerError(UnavailableError):
    """The other side did not answer in time."""

    code = "no-answer"


class RemoteError(KeyongError):
    """The other side refused; carries its code and, where we may know it, its reason."""

    code = "remote"


@dataclass(frozen=True)
class Incoming:
    """A received message: its method, header bytes (canonical JSON, unparsed) and body."""

    method: str
    header: bytes
    body: memoryview


@dataclass(frozen=True)
class Outgoing:
    """A message to send: header bytes and the buffers of its body."""

    header: bytes
    body: Sequence[Buffer] = ()


Handler = Callable[["Peer", Incoming], Awaitable[Outgoing]]


@dataclass
class _Assembly:
    head: Head
    body: Body


@dataclass
class _Inbound:
    assembly: _Assembly | None = None
    task: asyncio.Task[None] | None = None


@dataclass
class _Outbound:
    answer: asyncio.Future[Incoming] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    assembly: _Assembly | None = None


class Peer:
    """One end of a stream.

    Args:
        send: writes one frame, returning when flow control has taken it.
        frames: the frames that arrive.
        dialled: whether this end dialled (odd exchange numbers) or listened (even ones).
        handler: answers exchanges the other end begins.
        body_limit: longest body taken, in bytes.
        spool: folder for large bodies.
        tell: whether refusals may carry their reason to the other end, or the bare code only (invariant 7).
    """

    def __init__(
        self,
        send: Callable[[Frame], Awaitable[None]],
        frames: AsyncIterator[Frame],
        *,
        dialled: bool,
        handler: Handler,
        body_limit: int,
        spool: Path | None,
        tell: bool,
    ) -> None:
        self._send_frame = send
        self._frames = frames
        self._parity = 1 if dialled else 0
        self._next = 1 if dialled else 2
        self._handler = handler
        self._body_limit = body_limit
        self._spool = spool
        self._tell = tell
        self._lock = asyncio.Lock()
        self._inbound: dict[int, _Inbound] = {}
        self._outbound: dict[int, _Outbound] = {}
        self._lost: str | None = None
        self._over = asyncio.Event()
        self.member = ""

    async def run(self) -> None:
        """Read frames until the stream ends; every call that is still open then fails."""
        reason = "the link was closed"
        try:
            async for frame in self._frames:
                await self._take(frame)
        except KeyongError as error:
            reason = str(error)
            raise
        finally:
            self._lost = reason
            self._over.set()
            for out in self._outbound.values():
                if not out.answer.done():
                    out.answer.set_exception(LinkLostError("the link was lost before an answer came"))
            tasks = [inbound.task for inbound in self._inbound.values() if inbound.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ended(self, timeout: float | None = None) -> bool:
        """Wait until the stream has ended, at most ``timeout`` seconds; whether it has."""
        try:
            async with asyncio.timeout(timeout):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    async def call(
        self, method: str, header: bytes, body: Sequence[Buffer] = (), *, timeout: float | None = None
    ) -> Incoming:
        """Begin an exchange and wait for its answer.

        Raises:
            RemoteError: the other side refused.
            LinkLostError: the stream ended first.
            NoAnswerError: nothing came within ``timeout`` seconds.
        """
        if self._lost is not None:
            raise LinkLostError("the link was lost before an answer came")
        number = self._next
        self._next += 2
        out = self._outbound[number] = _Outbound()
        try:
            async with asyncio.timeout(timeout):
                await self._send(number, Head(method=method, header=header, body_bytes=total_bytes(body)), body, reply=False)
                return await out.answer
        except TimeoutError:
            await self._forget(number)
            raise NoAnswerError("no answer to {method} within {seconds} s", method=method, seconds=timeout) from None
        except asyncio.CancelledError:
            await self._forget(number)
            raise
        finally:
            self._outbound.pop(number, None)
            if out.answer.done() and not out.answer.cancelled():
                out.answer.exception()

    async def _forget(self, number: int) -> None:
        with contextlib.suppress(Exception):
            await asyncio.shield(self._write(Frame(exchange=number, cancel=Cancel())))

    async def _write(self, frame: Frame) -> None:
        async with self._lock:
            await self._send_frame(frame)

    async def _send(self, number: int, head: Head, body: Sequence[Buffer], *, reply: bool) -> None:
        await self._write(Frame(exchange=number, reply=head) if reply else Frame(exchange=number, open=head))
        for piece in chunks(body):
            await self._write(Frame(exchange=number, chunk=piece))

    def _assemble(self, head: Head) -> _Assembly:
        if len(head.header) > HEADER_BYTES or head.body_bytes > self._body_limit:
            raise BodyError(
                "a message of {size} bytes is larger than the {limit} bytes taken here",
                size=head.body_bytes,
                limit=self._body_limit,
            )
        return _Assembly(head, Body(head.body_bytes, self._spool))

    async def _take(self, frame: Frame) -> None:
        number = frame.exchange
        part = frame.WhichOneof("part")
        ours = number % 2 == self._parity
        if part == "open" and not ours:
            await self._begin(number, frame.open)
        elif part == "reply" and ours:
            out = self._outbound.get(number)
            if out is not None:
                try:
                    out.assembly = self._assemble(frame.reply)
                except BodyError as error:
                    if not out.answer.done():
                        out.answer.set_exception(error)
                    return
                self._finish(out)
        elif part == "chunk":
            self._chunk(number, ours, frame.chunk)
        elif part == "fault" and ours:
            out = self._outbound.get(number)
            if out is not None and not out.answer.done():
                out.answer.set_exception(error_of(frame.fault))
        elif part == "cancel" and not ours:
            inbound = self._inbound.pop(number, None)
            if inbound is not None and inbound.task is not None:
                inbound.task.cancel()

    def _chunk(self, number: int, ours: bool, data: bytes) -> None:
        if ours:
            out = self._outbound.get(number)
            if out is not None and out.assembly is not None:
                out.assembly.body.write(data)
                self._finish(out)
            return
        inbound = self._inbound.get(number)
        if inbound is not None and inbound.assembly is not None:
            inbound.assembly.body.write(data)
            if inbound.assembly.body.complete:
                self._start(number, inbound)

    def _finish(self, out: _Outbound) -> None:
        if out.assembly is not None and out.assembly.body.complete and not out.answer.done():
            head = out.assembly.head
            out.answer.set_result(Incoming(head.method, head.header, out.assembly.body.view))

    async def _begin(self, number: int, head: Head) -> None:
        if len(self._inbound) >= OPEN_EXCHANGES:
            await self._write(Frame(exchange=number, fault=Fault(code="busy")))
            return
        inbound = _Inbound()
        try:
            inbound.assembly = self._assemble(head)
        except BodyError as error:
            await self._write(Frame(exchange=number, fault=fault_of(error, tell=self._tell)))
            return
        self._inbound[number] = inbound
        if inbound.assembly.body.complete:
            self._start(number, inbound)

    def _start(self, number: int, inbound: _Inbound) -> None:
        assembly, inbound.assembly = inbound.assembly, None
        assert assembly is not None
        message = Incoming(assembly.head.method, assembly.head.header, assembly.body.view)
        inbound.task = asyncio.create_task(self._answer(number, message))

    async def _answer(self, number: int, message: Incoming) -> None:
        try:
            try:
                reply = await self._handler(self, message)
            except KeyongError as error:
                await self._write(Frame(exchange=number, fault=fault_of(error, tell=self._tell)))
            except Exception:
                log.exception("handler-failed", method=message.method)
                await self._write(Frame(exchange=number, fault=Fault(code="internal")))
            else:
                head = Head(method=message.method, header=reply.header, body_bytes=total_bytes(reply.body))
                await self._send(number, head, reply.body, reply=True)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The stream broke under the answer; run() ends with it, and the answer can be asked for again.
            log.info("answer-not-delivered", method=message.method, error=type(error).__name__)
        finally:
            self._inbound.pop(number, None)


def fault_of(error: KeyongError, *, tell: bool) -> Fault:
    """What of an error may cross the link."""
    if not tell:
        return Fault(code=error.code, params={_EXIT: str(error.exit_code)})
    params = {key: str(value) for key, value in error.params.items()} | {_EXIT: str(error.exit_code)}
    return Fault(code=error.code, message=error.template, hint=error.hint_template, params=params)


_KINDS: dict[int, type[KeyongError]] = {2: UsageError, 3: DeniedError, 4: VerificationError, 5: UnavailableError}
_EXIT = "exit"


def _plain(template: str, params: dict[str, object]) -> bool:
    # A template from outside may name its own params and nothing else: str.format would follow attributes.
    try:
        fields = [name for _, name, spec, conversion in Formatter().parse(template) if name is not None or spec or conversion]
    except ValueError:
        return False
    return all(name in params for name in fields)


def error_of(fault: Fault) -> KeyongError:
    """The error that a fault stands for on this side."""
    params: dict[str, object] = dict(fault.params)
    exit_code = str(params.pop(_EXIT, ""))
    kind = _KINDS.get(int(exit_code), RemoteError) if exit_code.isdigit() else RemoteError
    if not fault.message or not _plain(fault.message, params) or not _plain(fault.hint, params):
        return kind("the other side refused: {reason}", code=fault.code or "remote", reason=fault.code or "no reason given")
    return kind(fault.message, hint=fault.hint, code=fault.code or "remote", **params)
