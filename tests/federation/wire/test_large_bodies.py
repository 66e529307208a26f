"""Large bodies are hashed and written by threads: the loop goes on, order is kept, and nothing is closed under a write."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from federation.errors import KeyongError, UnavailableError
from federation.wire._generated.link_pb2 import Frame, Head
from federation.wire.body import CHUNK_BYTES, MEMORY_BYTES, Body, BodyError
from federation.wire.peer import Incoming, LinkLostError, Outgoing, Peer

LARGE = os.urandom(MEMORY_BYTES + 3 * CHUNK_BYTES + 17)
WAIT = 20.0


class Gate:
    """Holds every write of a large body until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        write = Body.write

        def held(body: Body, data: Any) -> None:
            if body.large:
                self.reached.set()
                assert self.opened.wait(WAIT), "the loop waits for the write"
            write(body, data)

        monkeypatch.setattr(Body, "write", held)


async def test_the_loop_goes_on_while_a_piece_is_written(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    async with pair() as (one, _, _):
        answer = asyncio.create_task(one.call("a", b"", [LARGE]))
        assert await asyncio.to_thread(gate.reached.wait, WAIT)
        assert not answer.done()
        gate.opened.set()
        message = await asyncio.wait_for(answer, WAIT)
    assert bytes(message.body) == LARGE
    assert message.digest == "sha256:" + hashlib.sha256(LARGE).hexdigest()


async def test_bodies_of_one_link_that_arrive_side_by_side_keep_their_order(pair: Any) -> None:
    bodies = [os.urandom(MEMORY_BYTES + 1 + number * CHUNK_BYTES) for number in range(4)]
    async with pair() as (one, _, _):
        answers = await asyncio.gather(*(one.call(str(n), b"", [body]) for n, body in enumerate(bodies)))
    assert [bytes(answer.body) for answer in answers] == bodies
    assert [answer.digest for answer in answers] == ["sha256:" + hashlib.sha256(body).hexdigest() for body in bodies]


async def test_a_disk_that_fills_ends_the_exchange_and_not_the_link(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Body.write

    def full(body: Body, data: Any) -> None:
        if body.large:
            raise BodyError("no room", code="spool")
        write(body, data)

    monkeypatch.setattr(Body, "write", full)
    async with pair() as (one, _, _):
        with pytest.raises(KeyongError) as refused:
            await asyncio.wait_for(one.call("a", b"", [LARGE]), WAIT)
        assert refused.value.code == "spool"
        assert bytes((await asyncio.wait_for(one.call("b", b"", [b"still there"]), WAIT)).body) == b"still there"


async def test_a_link_that_ends_while_a_piece_is_written_takes_its_exchange_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    asked = asyncio.Event()

    async def frames() -> Any:
        head = Head(method="a", body_bytes=len(LARGE))
        yield Frame(exchange=1, open=head)
        yield Frame(exchange=1, chunk=LARGE[:CHUNK_BYTES])
        await asked.wait()
        raise LinkLostError("cut")

    async def sink(_: Any) -> None:
        return None

    async def never(_: Peer, __: Incoming) -> Outgoing:
        raise AssertionError("half a body was handed on")

    options: dict[str, Any] = {"body_limit": 2**30, "spool": tmp_path, "tell": True}
    peer = Peer(sink, frames(), dialled=False, handler=never, **options)
    running = asyncio.create_task(peer.run())
    assert await asyncio.to_thread(gate.reached.wait, WAIT)
    running.cancel()
    gate.opened.set()
    with pytest.raises((asyncio.CancelledError, UnavailableError)):
        await asyncio.wait_for(running, WAIT)


async def test_a_body_that_cannot_be_handed_on_ends_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error in the reader would: nobody is left waiting for an exchange that no one goes on with."""

    def broken(_: Body) -> memoryview:
        raise RuntimeError

    async def frames() -> Any:
        yield Frame(exchange=1, open=Head(method="a", body_bytes=len(LARGE)))
        for start in range(0, len(LARGE), CHUNK_BYTES):
            yield Frame(exchange=1, chunk=LARGE[start : start + CHUNK_BYTES])
        yield Frame(exchange=3, open=Head(method="b"))
        await asyncio.Event().wait()

    async def sink(_: Any) -> None:
        return None

    async def handler(_: Peer, __: Incoming) -> Outgoing:
        return Outgoing(b"")

    monkeypatch.setattr(Body, "view", property(broken))
    peer = Peer(sink, frames(), dialled=False, handler=handler, body_limit=2**30, spool=tmp_path, tell=True)
    await asyncio.wait_for(peer.run(), WAIT)
    assert peer.over


def test_a_body_is_not_closed_while_a_piece_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor's number is free once it is closed, and the rest of the piece would go into whatever gets it next."""
    body = Body(MEMORY_BYTES + 1, tmp_path)
    held, write = threading.Event(), os.write
    writing = threading.Event()

    def slow(descriptor: int, data: Any) -> int:
        writing.set()
        assert held.wait(WAIT)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    thread = threading.Thread(target=body.write, args=(b"x" * 100,))
    thread.start()
    assert writing.wait(WAIT)
    discarding = threading.Thread(target=body.discard)
    discarding.start()
    discarding.join(0.2)
    waited = discarding.is_alive()
    held.set()
    thread.join(WAIT)
    discarding.join(WAIT)
    assert waited and not discarding.is_alive()
    body.write(b"y")  # let go
    assert not body.complete
