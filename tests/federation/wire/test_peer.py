"""Exchanges: what the other end may do wrong, and what it costs."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import DeniedError, KeyongError
from federation.wire import peer as peer_module
from federation.wire._generated.link_pb2 import Cancel, Fault, Frame, Head
from federation.wire.body import CHUNK_BYTES, MEMORY_BYTES, SPOOLLESS_BYTES, Body, BodyError
from federation.wire.peer import OPEN_EXCHANGES, FrameOrderError, Incoming, LinkLostError, NoAnswerError, Outgoing, Peer
from tests.virtual_time import in_virtual_time


async def test_calls_cross_and_interleave(pair: Any) -> None:
    big = os.urandom(3 * CHUNK_BYTES + 17)
    async with pair() as (one, _, _):
        answers = await asyncio.gather(one.call("a", b"1", [big]), one.call("b", b"2", [b"", b"xy", b"z"]))
    assert bytes(answers[0].body) == big and bytes(answers[1].body) == b"xyz" and answers[1].header == b"2"


async def test_both_sides_may_ask(pair: Any) -> None:
    async def other(peer: Peer, message: Incoming) -> Outgoing:
        back = await peer.call("back", message.header)
        return Outgoing(back.header + b"!")

    async def mine(peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(message.header.upper())

    async with pair(left=mine, right=other) as (one, _, _):
        assert (await one.call("x", b"hello")).header == b"HELLO!"


async def test_a_body_that_overflows_ends_its_exchange_alone(pair: Any, pipes: Any) -> None:
    async with pair() as (one, _, tasks):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m", body_bytes=2)))
        await pipes[0].send(Frame(exchange=101, chunk=b"three"))
        await pipes[0].send(Frame(exchange=101, chunk=b"late"))
        assert (await one.call("x", b"still alive")).header == b"still alive"
        assert not any(task.done() for task in tasks)


async def test_an_answer_that_overflows_fails_its_call_alone(pipes: Any, tmp_path: Any) -> None:
    there, back = pipes
    one = Peer(there.send, back.frames(), dialled=True, handler=refuse, body_limit=2**20, spool=tmp_path, tell=False)
    running = asyncio.create_task(one.run())
    call = asyncio.create_task(one.call("x", b""))
    number = (await there.queue.get()).exchange
    await back.send(Frame(exchange=number, reply=Head(body_bytes=1)))
    await back.send(Frame(exchange=number, chunk=b"too long"))
    with pytest.raises(BodyError):
        await call
    again = asyncio.create_task(one.call("x", b""))
    number = (await there.queue.get()).exchange
    await back.send(Frame(exchange=number, reply=Head(header=b"fine")))
    assert (await again).header == b"fine"
    running.cancel()


async def refuse(peer: Peer, message: Incoming) -> Outgoing:
    raise DeniedError("no")


@pytest.mark.parametrize("number", [102, 101], ids=["not its own", "taken"])
async def test_an_exchange_number_that_is_not_free_ends_the_link_with_a_code(
    pair: Any, pipes: Any, number: int
) -> None:
    async with pair() as (_, _, tasks):
        await pipes[0].send(Frame(exchange=101, open=Head(method="m", body_bytes=9)))
        await pipes[0].send(Frame(exchange=number, open=Head(method="m", body_bytes=9)))
        with pytest.raises(FrameOrderError):
            await tasks[1]


async def test_more_than_is_taken_here_is_refused_before_it_is_sent(pair: Any, pipes: Any) -> None:
    async with pair(limit=2 * CHUNK_BYTES) as (one, _, _):
        with pytest.raises(KeyongError) as refused:
            await one.call("x", b"", [bytes(64 * CHUNK_BYTES)])
        assert refused.value.code == "body" and pipes[0].sent < 32
        assert (await one.call("x", b"ok")).header == b"ok"


async def test_what_all_open_exchanges_announce_together_is_bounded(pair: Any, pipes: Any) -> None:
    async with pair(limit=100) as (one, _, _):
        await pipes[0].send(Frame(exchange=1001, open=Head(method="m", body_bytes=90)))
        with pytest.raises(KeyongError) as refused:
            await one.call("x", b"", [bytes(20)])
        assert refused.value.code == "busy"


async def test_open_exchanges_are_bounded(pair: Any) -> None:
    async def slow(peer: Peer, message: Incoming) -> Outgoing:
        await asyncio.Event().wait()
        return Outgoing(b"")

    async with pair(right=slow) as (one, _, _):
        calls = [asyncio.create_task(one.call("x", b"")) for _ in range(OPEN_EXCHANGES + 1)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [task.exception().code for task in done] == ["busy"]  # type: ignore[union-attr]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_handler_that_breaks_says_internal_and_nothing_of_its_text(
    pair: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async def broken(peer: Peer, message: Incoming) -> Outgoing:
        raise ValueError("row 7531")

    async with pair(right=broken) as (one, _, _):
        with pytest.raises(KeyongError) as failed:
            await one.call("x", b"")
    assert failed.value.code == "internal" and "7531" not in str(failed.value)
    assert "7531" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("tell", [True, False])
async def test_inv7_a_refusal_carries_its_reason_only_where_it_may(pair: Any, tell: bool) -> None:
    async def no(peer: Peer, message: Incoming) -> Outgoing:
        raise DeniedError("the limit is {limit}", hint="ask {who}", code="count", limit=3, who="them")

    async with pair(right=no, tell=tell) as (one, _, _):
        with pytest.raises(DeniedError) as refused:
            await one.call("x", b"")
    assert (refused.value.code, refused.value.exit_code) == ("count", 3)
    assert ("the limit is 3" in str(refused.value)) is tell and (refused.value.hint == "ask them") is tell


async def test_a_call_that_times_out_is_cancelled_at_the_other_end_and_the_link_lives(pair: Any) -> None:
    cancelled = asyncio.Event()

    async def slow(peer: Peer, message: Incoming) -> Outgoing:
        if message.header == b"now":
            return Outgoing(b"yes")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Outgoing(b"")

    async with pair(right=slow) as (one, _, _):
        with pytest.raises(NoAnswerError):
            await one.call("x", b"", timeout=0.05)
        async with asyncio.timeout(30):
            await cancelled.wait()
        assert (await one.call("x", b"now")).header == b"yes"


async def test_a_timeout_while_sending_does_not_break_a_frame_in_two(pair: Any, pipes: Any) -> None:
    """gRPC ends the whole stream when its write is cancelled: our write is never cancelled, only the wait for it."""
    async with pair() as (one, _, tasks):
        release = asyncio.Event()
        plain = pipes[0].send
        cancelled: list[bool] = []

        async def held(frame: Any) -> None:
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            await plain(frame)

        one._send_frame = held
        with pytest.raises(NoAnswerError):
            await one.call("x", b"", [bytes(9 * CHUNK_BYTES)], timeout=0.05)
        release.set()
        assert (await one.call("x", b"ok", timeout=30)).header == b"ok"
        assert not cancelled and not any(task.done() for task in tasks)


async def test_when_the_link_drops_calls_fail_and_handlers_are_given_up(pair: Any, pipes: Any) -> None:
    started, given_up = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer, message: Incoming) -> Outgoing:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return Outgoing(b"")

    async with pair(right=slow) as (one, two, tasks):
        call = asyncio.create_task(one.call("x", b""))
        await started.wait()
        await pipes[0].queue.put(None)
        await pipes[1].queue.put(None)
        with pytest.raises(LinkLostError):
            await call
        await asyncio.gather(*tasks)
        assert given_up.is_set() and not two._inbound
        with pytest.raises(LinkLostError):
            await one.call("x", b"")


@in_virtual_time
async def test_a_peer_that_takes_nothing_is_let_go_and_nobody_waits_for_ever(
    pair: Any, pipes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "STALL_SECONDS", 0.1)

    async def stuck(frame: Any) -> None:
        await asyncio.Event().wait()

    async with pair() as (one, _, tasks):
        one._send_frame = stuck
        calls = [asyncio.create_task(one.call("x", b"", [bytes(CHUNK_BYTES)])) for _ in range(10)]
        async with asyncio.timeout(60):
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, LinkLostError) for result in results)
        with pytest.raises(LinkLostError):
            await tasks[0]


async def test_back_pressure_a_slow_reader_slows_the_sender(pipes: Any, tmp_path: Any) -> None:
    there, back = pipes
    one = Peer(there.send, back.frames(), dialled=True, handler=refuse, body_limit=2**30, spool=tmp_path, tell=False)
    running = asyncio.create_task(one.run())
    call = asyncio.create_task(one.call("x", b"", [bytes(100 * CHUNK_BYTES)]))
    while there.sent < 4:  # as much as the pipe holds
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert there.sent == 4 and one._outbox.qsize() <= 4  # a hundred chunks wait to be made, not in a queue
    call.cancel()
    running.cancel()
    await asyncio.gather(call, running, return_exceptions=True)


FAULTS = [
    Fault(code="count", message="{x.__class__.__init__.__globals__}", params={"x": "1"}),
    Fault(code="count", message="{x:>1000000000}", params={"x": "1"}),
    Fault(code="count", message="{x!r}", params={"x": "1"}),
    Fault(code="count", message="{", params={}),
    Fault(code="count", message="plain", params={"code": "a", "hint": "b", "template": "c", "self": "d"}),
    Fault(code="\x1b[2J", message="a\x1b[2Jb", params={"exit": "²"}),
    Fault(code="A" * 10_000, message="m" * 10**6, params={"exit": "9" * 5000}),
    Fault(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=range(len(FAULTS)))
def test_a_hostile_fault_is_an_error_like_any_other(fault: Fault) -> None:
    from federation.wire.faults import error_of

    error = error_of(fault)
    text = str(error) + error.hint + error.code
    assert len(text) < 5000 and text.isprintable()


PARTS = st.sampled_from(["open", "reply", "chunk", "fault", "cancel", ""])


def frame(number: int, part: str, data: bytes, size: int) -> Frame:
    match part:
        case "open" | "reply":
            head = Head(method="m", header=data, body_bytes=size)
            return Frame(exchange=number, open=head) if part == "open" else Frame(exchange=number, reply=head)
        case "chunk":
            return Frame(exchange=number, chunk=data)
        case "fault":
            return Frame(exchange=number, fault=Fault(code="x", message=data.decode("latin-1")))
        case "cancel":
            return Frame(exchange=number, cancel=Cancel())
    return Frame(exchange=number)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 6), PARTS, st.binary(max_size=8), st.integers(0, 2**64 - 1)), max_size=12))
def test_whatever_frames_come_the_peer_answers_or_ends_with_a_code(tmp_path: Any, frames: Any) -> None:
    async def main() -> None:
        incoming: asyncio.Queue[Any] = asyncio.Queue()

        async def stream() -> Any:
            while (one := await incoming.get()) is not None:
                yield one

        async def sink(frame: Any) -> None:
            return None

        async def quick(peer: Peer, message: Incoming) -> Outgoing:
            return Outgoing(b"ok")

        peer = Peer(sink, stream(), dialled=False, handler=quick, body_limit=64, spool=tmp_path, tell=True)
        call = None
        running = asyncio.create_task(peer.run())
        call = asyncio.create_task(peer.call("x", b""))
        for number, part, data, size in frames:
            incoming.put_nowait(frame(number, part, data, size if size < 80 else 2**40))
        incoming.put_nowait(None)
        results = await asyncio.wait_for(asyncio.gather(running, call, return_exceptions=True), 5)
        assert results[0] is None or isinstance(results[0], KeyongError)
        assert isinstance(results[1], Incoming | KeyongError)

    asyncio.run(main())


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_large_body_is_announced_for_nothing_and_spooled_as_it_comes(tmp_path: Any) -> None:
    body = Body(2**40, tmp_path)
    body.write(b"x" * 100)
    assert not body.complete
    with pytest.raises(BodyError):
        _ = body.view
    body.discard()
    small = Body(MEMORY_BYTES + 2, tmp_path)
    small.write(b"a" * MEMORY_BYTES)
    small.write(b"bc")
    assert bytes(small.view[-3:]) == b"abc" and small.view.readonly
    with pytest.raises(BodyError):
        small.write(b"d")


def test_a_full_disk_is_an_error_of_this_body(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = Body(MEMORY_BYTES + 1, tmp_path)

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BodyError) as refused:
        body.write(b"x")
    assert refused.value.code == "spool"


def test_without_a_spool_large_bodies_are_refused() -> None:
    with pytest.raises(BodyError):
        Body(SPOOLLESS_BYTES + 1, None)
