"""Exchanges over one stream: calls in both directions, interleaved, with bodies in chunks.

Back pressure is the stream's own: a frame is sent only when gRPC's flow control takes it, so a slow reader slows its
sender and nothing grows in between.

What the other end may do wrong, and what it costs: a body that overflows, or that finds no room, ends its exchange with
a fault; a frame that no honest end sends (an exchange number that is taken, or not its own) ends the link with
:class:`FrameOrderError`; an end that takes nothing for :data:`STALL_SECONDS` is let go. Never more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog

from federation.errors import KeyongError, UnavailableError
from federation.wire._generated.link_pb2 import Cancel, Fault, Frame, Head, Proceed
from federation.wire.body import MEMORY_BYTES, Body, BodyError, Buffer, chunks, total_bytes
from federation.wire.exchange import (
    Assembly,
    FrameOrderError,
    Inbound,
    Incoming,
    LinkLostError,
    NoAnswerError,
    Outbound,
    Outgoing,
    place_of,
)
from federation.wire.faults import RemoteError, error_of, fault_of
from federation.wire.frame import Chunk
from federation.wire.heap import LARGE_BODIES
from federation.wire.patience import SLOWEST_LINE, STALL_SECONDS, Patience
from federation.wire.places import Places
from federation.wire.request_id import carry, current
from federation.wire.room import Room

log = structlog.get_logger("keyong.wire")

HEADER_BYTES = 3 * 1024 * 1024
OPEN_EXCHANGES = 64
"""Exchanges a peer may have open towards us at once."""
_FRAMES_AHEAD = 4

__all__ = [
    "HEADER_BYTES",
    "OPEN_EXCHANGES",
    "FrameOrderError",
    "Handler",
    "Incoming",
    "LinkLostError",
    "NoAnswerError",
    "Outgoing",
    "Peer",
    "RemoteError",
    "place_of",
]


Handler = Callable[["Peer", Incoming], Awaitable[Outgoing]]


class Peer:
    """One end of a stream.

    Args:
        send: writes one frame, returning when flow control has taken it.
        frames: the frames that arrive.
        dialled: whether this end dialled (odd exchange numbers) or listened (even ones).
        handler: answers exchanges the other end begins.
        body_limit: longest body taken, in bytes.
        requests: longest body by the method of an exchange that the other end begins; a method that is not named has none.
            None: up to ``body_limit`` for any.
        room: what the bodies of all open exchanges may announce together, shared with the member's other links; as large as
            ``body_limit`` where none is given.
        spool: folder for large bodies.
        lent: methods whose large bodies a session is given; see :class:`Body`.
        places: in which large answers to our calls arrive; None: all at once.
        tell: whether refusals may carry their reason to the other end, or the bare code only (invariant 7).
    """

    def __init__(
        self,
        send: Callable[[Frame | Chunk], Awaitable[None]],
        frames: AsyncIterator[Frame | Chunk],
        *,
        dialled: bool,
        handler: Handler,
        body_limit: int,
        spool: Path | None,
        tell: bool,
        requests: Mapping[str, int] | None = None,
        room: Room | None = None,
        lent: frozenset[str] = frozenset(),
        places: Places | None = None,
    ) -> None:
        self._send_frame = send
        self._frames = frames
        self._parity = 1 if dialled else 0
        self._next = 1 if dialled else 2
        self._handler = handler
        self._body_limit = body_limit
        self._requests = requests
        self._bodies = room or Room(body_limit)
        self._spool = spool
        self._lent = lent
        self._places = places
        self._tell = tell
        self._room = asyncio.Semaphore(_FRAMES_AHEAD)
        self._outbox: asyncio.Queue[Frame | Chunk] = asyncio.Queue()
        self._inbound: dict[int, Inbound] = {}
        self._outbound: dict[int, Outbound] = {}
        self._notes: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None
        """The piece of a large body that a thread hashes and writes."""
        self._lost: KeyongError | None = None
        self._over = asyncio.Event()
        self.member = ""
        self.fingerprint = ""
        """Of the certificate at the other end, where that dialled us."""
        self.version = 1
        """Protocol version that both ends agreed on when they greeted."""

    async def run(self) -> None:
        """Carry frames until the stream ends; every call that is still open then fails, every answer is given up.

        Raises:
            KeyongError: why the link was ended, where the other end did not simply go.
        """
        reason: KeyongError = LinkLostError("the link was lost before an answer came")
        reading, writing = asyncio.create_task(self._read()), asyncio.create_task(self._write_out())
        watching = asyncio.create_task(self._drop_stalled())
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, writing):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    if isinstance(error, KeyongError):
                        reason = error
                        raise error
                    # The stream itself broke; whatever gRPC says of it is for the log.
                    log.info("link-broke", peer=self.member, error=type(error).__name__)
        finally:
            behind = [self._writing] if self._writing is not None else []
            for task in behind:
                task.cancel()
            self._end(reason)
            answering = [one.task for one in self._inbound.values() if one.task is not None]
            for number in list(self._inbound):
                self._give_up(number)
            for task in (reading, writing, watching, *self._notes):
                task.cancel()
            await asyncio.gather(reading, writing, watching, *behind, *self._notes, *answering, return_exceptions=True)

    def _end(self, reason: KeyongError) -> None:
        self._lost = reason
        self._over.set()
        for out in self._outbound.values():
            out.refuse(self._loss())
        self._room.release()  # whoever waits for room finds the link lost, and passes it on

    def _loss(self) -> KeyongError:
        if isinstance(self._lost, UnavailableError) and self._lost.code != LinkLostError.code:
            return self._lost  # said by the stream itself, and more use than that it ended
        return LinkLostError("the link was lost before an answer came")

    @property
    def over(self) -> bool:
        """Whether the stream has ended: who asked over it did not give up, its answer can only come over another."""
        return self._over.is_set()

    async def ended(self, timeout: float | None = None) -> bool:
        """Wait until the stream has ended, at most ``timeout`` seconds; whether it has."""
        try:
            async with asyncio.timeout(timeout):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    async def handed_over(self, seconds: float) -> bool:
        """Wait until every answer that is owed has been given to the transport, at most ``seconds``; whether it was."""
        taken = 0
        try:
            async with asyncio.timeout(seconds):
                while owed := [one.task for one in self._inbound.values() if one.task is not None]:
                    await asyncio.wait(owed)
                while taken < _FRAMES_AHEAD:  # all the room there is: nothing waits to be written
                    await self._room.acquire()
                    taken += 1
        except TimeoutError:
            return False
        finally:
            for _ in range(taken):
                self._room.release()
        return True

    async def call(
        self,
        method: str,
        header: bytes,
        body: Sequence[Buffer] = (),
        *,
        timeout: float | None = None,
        job: str = "",
    ) -> Incoming:
        """Begin an exchange and wait for its answer.

        Args:
            job: on whose behalf; between jobs the places of large answers are shared fairly.
            timeout: seconds that the answer may take; while bytes of this exchange move, the count waits with them
                (see :class:`Patience`).

        Raises:
            RemoteError, DeniedError, ...: the other side refused.
            LinkLostError: the stream ended first.
            NoAnswerError: nothing came within ``timeout`` seconds.
        """
        if self._lost is not None:
            raise self._loss()
        number = self._next
        self._next += 2
        out = self._outbound[number] = Outbound(job=job)
        sending = total_bytes(body)
        LARGE_BODIES.began(sending)
        try:
            async with asyncio.timeout(timeout) as limit:
                out.patience = Patience(limit, timeout)
                head = Head(
                    method=method,
                    header=header,
                    body_bytes=sending,
                    request=current(),
                    await_proceed=self._places is not None,
                )
                await self._write(Frame(exchange=number, open=head))
                for piece in chunks(body):
                    if out.answer.done():  # refused before all of it was sent
                        break
                    await self._write(Chunk(number, piece))

                    out.patience.moved(len(piece))
                return await out.answer
        except TimeoutError:
            self._note(Frame(exchange=number, cancel=Cancel()))
            raise NoAnswerError("no answer to {method} within {seconds} s", method=method, seconds=timeout) from None
        except asyncio.CancelledError:
            self._note(Frame(exchange=number, cancel=Cancel()))
            raise
        finally:
            self._outbound.pop(number, None)
            if out.place is not None:
                out.place.leave()
            self._bodies.give(out.size)
            for size in (sending, out.size):
                LARGE_BODIES.ended(size)
            if out.answer.done() and not out.answer.cancelled():
                out.answer.exception()

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _write(self, frame: Frame | Chunk) -> None:
        """Hand a frame to the writer. Cancelling the wait is safe; cancelling gRPC's own write would end the stream."""
        await self._room.acquire()
        if self._lost is not None:
            self._room.release()
            raise self._loss()
        self._outbox.put_nowait(frame)

    async def _write_out(self) -> None:
        while True:
            frame = await self._outbox.get()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._send_frame(frame)
            except TimeoutError:
                raise LinkLostError("the other end has taken nothing for {seconds} s", seconds=STALL_SECONDS) from None
            self._room.release()

    def _note(self, frame: Frame) -> None:
        """Send a small frame without waiting: the reader must go on reading, or two full streams would stop each
        other."""
        if self._lost is not None:
            return
        if len(self._notes) >= OPEN_EXCHANGES:
            if frame.HasField("cancel"):
                return  # a courtesy: without it the other end works on in vain
            raise FrameOrderError("the other end asks on and takes no answers")
        task = asyncio.create_task(self._write_quietly(frame))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_quietly(self, frame: Frame) -> None:
        with contextlib.suppress(KeyongError):
            await self._write(frame)

    # -- receiving ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        async for frame in self._frames:
            await self._written()
            self._take(frame)
            del frame  # while the next is awaited, of each link
        await self._written()

    async def _written(self) -> None:
        """Wait until the piece before is hashed and on the disk: a slow disk slows the sender, and nothing piles up."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _take(self, frame: Frame | Chunk) -> None:
        if isinstance(frame, Chunk):
            self._chunk(frame.exchange, frame.exchange % 2 == self._parity, frame.chunk)
            return
        number, part = frame.exchange, frame.WhichOneof("part")
        ours = number % 2 == self._parity
        if part == "open":
            if ours or number in self._inbound:
                raise FrameOrderError("the other end began an exchange under a number that is not free")
            self._begin(number, frame.open)
        elif part == "reply" and ours:
            out = self._outbound.get(number)
            if out is not None and out.assembly is None and not out.answer.done():
                self._assemble_answer(number, out, frame.reply)
        elif part == "chunk":
            self._chunk(number, ours, frame.chunk)
        elif part == "fault" and ours:
            out = self._outbound.get(number)
            if out is not None:
                out.refuse(error_of(frame.fault))
        elif part == "cancel" and not ours:
            self._give_up(number)
        elif part == "proceed" and not ours:
            inbound = self._inbound.get(number)
            if inbound is not None and inbound.proceed is not None:
                inbound.proceed.set()

    def _give_up(self, number: int) -> None:
        inbound = self._inbound.get(number)
        if inbound is None:
            return
        if inbound.task is None:
            self._forget(number)
        elif not inbound.ending:  # asked once: a handler is not interrupted in its ending
            inbound.ending = True
            inbound.task.cancel()  # it counts, and its number is not free, until its handler has ended

    def _forget(self, number: int) -> None:
        inbound = self._inbound.pop(number, None)
        if inbound is not None:
            self._bodies.give(inbound.size)
            LARGE_BODIES.ended(inbound.size)

    async def _drop_stalled(self) -> None:
        """Give up requests whose bodies have stopped, or trickle: half a message keeps its room else."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(STALL_SECONDS / 4)
            for number, inbound in list(self._inbound.items()):
                if inbound.assembly is not None and clock() > inbound.until:
                    inbound.assembly.body.discard()
                    self._forget(number)
                    self._note(Frame(exchange=number, fault=Fault(code="body-stalled", params={"exit": "5"})))

    def _assemble(self, head: Head, limit: int, *, lent: int | None = None) -> Assembly:
        if len(head.header) > HEADER_BYTES or head.body_bytes > limit:
            raise BodyError(
                "a message of {size} bytes is larger than the {limit} bytes taken here",
                size=head.body_bytes + len(head.header),
                limit=limit,
            )
        self._bodies.take(head.body_bytes)
        try:
            return Assembly(head, Body(head.body_bytes, self._spool, hashed=True, lent=lent))
        except BodyError:
            self._bodies.give(head.body_bytes)
            raise

    def _assemble_answer(self, number: int, out: Outbound, head: Head) -> None:
        try:
            out.assembly = self._assemble(head, self._body_limit)
            out.size = head.body_bytes
            LARGE_BODIES.began(out.size)
        except BodyError as error:
            out.refuse(error)
            self._note(Frame(exchange=number, cancel=Cancel()))  # it need not wait to send what nobody takes
            return
        if self._places is not None and out.assembly.body.large:
            if out.patience is not None:
                out.patience.pause()
            out.place = self._places.ask(out.job, lambda: self._proceed(number, out))
        self._finish(out)

    def _proceed(self, number: int, out: Outbound) -> None:
        """There is a place for an answer's body."""
        if out.assembly is not None and self._places is not None:
            out.assembly.body.in_memory(self._places.count // 2)
        if out.patience is not None:
            out.patience.resume()
        # Not by _note: this is called for another link's end too, whose reader must not fail for this one's.
        task = asyncio.create_task(self._write_quietly(Frame(exchange=number, proceed=Proceed())))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def _chunk(self, number: int, ours: bool, data: Buffer) -> None:
        exchange: Outbound | Inbound | None = self._outbound.get(number) if ours else self._inbound.get(number)
        if exchange is None or exchange.assembly is None:
            return  # of an exchange that was refused or given up while this was on its way
        body = exchange.assembly.body
        if body.large:  # the loop goes on meanwhile, with what other links bring
            self._writing = asyncio.create_task(self._write_behind(number, ours, body, data))
            return
        try:
            body.write(data)
        except BodyError as error:
            self._took(number, ours, body, len(data), error)
        else:
            self._took(number, ours, body, len(data), None)

    async def _write_behind(self, number: int, ours: bool, body: Body, data: Buffer) -> None:
        try:
            await asyncio.to_thread(body.write, data)
        except BodyError as error:
            self._took(number, ours, body, len(data), error)
        else:
            self._took(number, ours, body, len(data), None)

    def _took(self, number: int, ours: bool, body: Body, size: int, error: BodyError | None) -> None:
        """A piece of a body was written, or could not be; its exchange may have ended meanwhile."""
        if ours:
            out = self._outbound.get(number)
            if out is None or out.assembly is None or out.assembly.body is not body:
                return
            if error is not None:
                out.refuse(error)
                return
            if out.patience is not None:
                out.patience.moved(size)
            if out.place is not None:
                out.place.moved(size)
            self._finish(out)
            return
        inbound = self._inbound.get(number)
        if inbound is None or inbound.assembly is None or inbound.assembly.body is not body:
            return
        if error is not None:
            self._forget(number)
            self._note(Frame(exchange=number, fault=fault_of(error, tell=self._tell)))
            return
        # By its bytes, as Patience: single ones gain nothing. Bodies that arrive side by side share the line.
        sharing = sum(one.assembly is not None for one in self._inbound.values())
        latest = asyncio.get_running_loop().time() + STALL_SECONDS
        inbound.until = min(latest, inbound.until + sharing * size / SLOWEST_LINE)
        if body.complete:
            self._start(number, inbound)

    def _finish(self, out: Outbound) -> None:
        if out.assembly is not None and out.assembly.body.complete and not out.answer.done():
            out.answer.set_result(out.assembly.message())

    def _begin(self, number: int, head: Head) -> None:
        if len(self._inbound) >= OPEN_EXCHANGES:
            self._note(Frame(exchange=number, fault=Fault(code="busy", params={"exit": "5"})))
            return
        try:
            limit = self._body_limit if self._requests is None else self._requests.get(head.method, 0)
            others = sum(one.size for one in self._inbound.values()) if head.method in self._lent else None
            assembly = self._assemble(head, min(limit, self._body_limit), lent=others)
        except BodyError as error:
            self._note(Frame(exchange=number, fault=fault_of(error, tell=self._tell)))
            return
        LARGE_BODIES.began(head.body_bytes)
        until = asyncio.get_running_loop().time() + STALL_SECONDS
        inbound = self._inbound[number] = Inbound(head.body_bytes, until, assembly)
        if head.body_bytes == 0:
            self._start(number, inbound)

    def _start(self, number: int, inbound: Inbound) -> None:
        assembly, inbound.assembly = inbound.assembly, None
        assert assembly is not None
        inbound.proceed = asyncio.Event() if assembly.head.await_proceed else None
        inbound.task = asyncio.create_task(self._answer(number, inbound, assembly.message(), assembly.head.request))
        # Here and not in the handler: one that is cancelled before it began never comes to its own end.
        inbound.task.add_done_callback(lambda _: self._forget(number))

    async def _answer(self, number: int, inbound: Inbound, message: Incoming, request: str) -> None:
        carry(request)
        try:
            fault, reply = await self._handle(message)
            if reply is None:
                await self._write(Frame(exchange=number, fault=fault))
                return
            await self._send_answer(number, inbound, message.method, reply)
        except LinkLostError:
            log.info("answer-not-delivered", method=message.method[:40])  # it can be asked for again

    async def _send_answer(self, number: int, inbound: Inbound, method: str, reply: Outgoing) -> None:
        size = total_bytes(reply.body)
        LARGE_BODIES.began(size)
        try:
            await self._write(Frame(exchange=number, reply=Head(method=method, header=reply.header, body_bytes=size)))
            if inbound.proceed is not None and size > MEMORY_BYTES:
                # Flow control holds it where no word comes, so that none that is lost can hold it for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STALL_SECONDS):
                        await inbound.proceed.wait()
            for piece in chunks(reply.body):
                await self._write(Chunk(number, piece))
        finally:
            LARGE_BODIES.ended(size)

    async def _handle(self, message: Incoming) -> tuple[Fault, Outgoing | None]:
        try:
            reply = await self._handler(self, message)
        except KeyongError as error:
            return fault_of(error, tell=self._tell), None
        except Exception as error:
            # Its text may hold anything, a row's value too: type and place are enough to find it.
            log.error("handler-failed", method=message.method[:40], error=type(error).__name__, at=place_of(error))
            return Fault(code="internal", params={"exit": "1"}), None
        return Fault(), reply
