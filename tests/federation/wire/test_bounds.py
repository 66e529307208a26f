"""What one member can make the other end hold: bounded by method, by progress, and over all its links."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from federation.wire import peer as peer_module
from federation.wire._generated.link_pb2 import Cancel, Frame, Head
from federation.wire.body import MEMORY_BYTES, BodyError
from federation.wire.patience import SLOWEST_LINE
from federation.wire.peer import FrameOrderError, Incoming, Outgoing, Peer
from federation.wire.room import Room
from tests.virtual_time import in_virtual_time

SIZE = 2 * MEMORY_BYTES


async def size_of(peer: Peer, message: Incoming) -> Outgoing:
    """Answer with the length of what came."""
    return Outgoing(str(len(message.body)).encode())


async def test_a_request_has_the_body_that_its_method_takes(pair: Any) -> None:
    async with pair(right=size_of) as (one, two, _):
        assert (await one.call("catalog.list", b"", [bytes(100)])).header == b"100", "without the bound it is taken"
        two._requests = {"job.submit": 100}
        assert (await one.call("job.submit", b"", [bytes(100)])).header == b"100"
        assert (await one.call("catalog.list", b"")).header == b"0"
        for method, size in (("job.submit", 101), ("catalog.list", 1)):
            with pytest.raises(Exception) as refused:
                await one.call(method, b"", [bytes(size)])
            assert getattr(refused.value, "code", "") == "body"
        assert two._bodies.taken == 0


async def test_an_answer_is_bounded_by_its_call_not_by_its_method(pair: Any) -> None:
    async with pair() as (one, _, _):
        one._requests = {}
        assert len((await one.call("job.invoke", b"", [bytes(SIZE)])).body) == SIZE


@in_virtual_time
async def test_half_a_message_of_which_no_more_comes_is_dropped(
    pair: Any, pipes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair() as (one, two, _):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m", body_bytes=SIZE)))
        await pipes[0].send(Frame(exchange=101, chunk=bytes(MEMORY_BYTES)))
        assert (await one.call("x", b"on")).header == b"on"
        assert two._bodies.taken == SIZE, "without the bound it would keep its room"
    monkeypatch.setattr(peer_module, "STALL_SECONDS", 0.2)
    async with pair() as (one, two, tasks):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m", body_bytes=SIZE)))
        async with asyncio.timeout(60):
            while not two._bodies.taken:
                await asyncio.sleep(0)
            for _ in range(8):  # as long as it comes as fast as the slowest line, it goes on
                await asyncio.sleep(0.1)
                await pipes[0].send(Frame(exchange=101, chunk=bytes(SLOWEST_LINE // 4)))
                assert two._bodies.taken == SIZE
            while two._bodies.taken:
                await asyncio.sleep(0.01)
        assert 101 not in two._inbound
        assert (await one.call("x", b"on")).header == b"on" and not any(task.done() for task in tasks)


@in_virtual_time
async def test_who_lets_a_body_trickle_gains_nothing(pair: Any, pipes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "STALL_SECONDS", 0.2)
    async with pair() as (_, two, _):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m", body_bytes=SIZE)))
        async with asyncio.timeout(60):
            while not two._bodies.taken:
                await asyncio.sleep(0)
            while two._bodies.taken:
                await pipes[0].send(Frame(exchange=101, chunk=b""))
                await pipes[0].send(Frame(exchange=101, chunk=b"x"))
                await asyncio.sleep(0.02)


async def test_a_number_is_not_free_before_its_handler_has_ended(pair: Any, pipes: Any) -> None:
    begun, let_go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_end(peer: Peer, message: Incoming) -> Outgoing:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await let_go.wait()
            ended.set()
        return Outgoing(b"")

    async with pair(right=slow_to_end) as (_, two, tasks):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m")))
        await begun.wait()
        for _ in range(3):  # asked again, it is not interrupted in its ending
            await pipes[0].send(Frame(exchange=101, cancel=Cancel()))
        while not pipes[0].queue.empty():
            await asyncio.sleep(0)
        assert 101 in two._inbound and not ended.is_set(), "it counts as long as its handler is there"
        await pipes[0].send(Frame(exchange=101, open=Head(method="m")))
        await asyncio.sleep(0)
        let_go.set()
        with pytest.raises(FrameOrderError):
            await tasks[1]
        assert ended.is_set() and not two._inbound, "no handler outlives its link"


async def test_what_is_cancelled_before_it_began_leaves_nothing(pair: Any, pipes: Any) -> None:
    async with pair() as (one, two, _):
        two._take(Frame(exchange=101, open=Head(method="m")))
        two._take(Frame(exchange=101, cancel=Cancel()))
        assert (await one.call("x", b"on")).header == b"on"
        assert not two._inbound and two._bodies.taken == 0


async def test_all_links_of_a_member_share_one_room(hub: Any) -> None:
    mill = hub.member("mill")
    async with hub.dial(mill) as one, hub.dial(mill) as two:
        await one.call("x", b"")
        await two.call("x", b"")
        rooms = {peer._bodies for peer in hub.peers}
        assert len(rooms) == 1, "each link with a room of its own would take the whole again"
        room = rooms.pop()
        room.limit = SIZE
        room.take(SIZE - 10)
        with pytest.raises(Exception) as refused:
            await two.call("x", b"", [bytes(11)])
        assert getattr(refused.value, "code", "") == "busy"
        assert len((await two.call("x", b"", [bytes(10)])).body) == 10


def test_room_is_given_back() -> None:
    room = Room(10)
    room.take(10)
    with pytest.raises(BodyError):
        room.take(1)
    room.give(10)
    room.take(10)
