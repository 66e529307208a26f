"""How long an exchange is waited for: while its bytes move, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from federation.wire import patience
from federation.wire.body import CHUNK_BYTES
from federation.wire.patience import SLOWEST_LINE, STALL_SECONDS, Patience
from federation.wire.peer import Incoming, NoAnswerError, Outgoing, Peer
from tests.virtual_time import in_virtual_time


async def answer_slowly(peer: Peer, message: Incoming) -> Outgoing:
    """A long answer to a long question."""
    return Outgoing(b"", [bytes(24 * CHUNK_BYTES)])


def slow_line(pipes: Any, seconds: float) -> None:
    """Both ways of the link take that long for a frame."""
    for pipe in pipes:
        there = pipe.send

        async def send(frame: Any, there: Any = there) -> None:
            await asyncio.sleep(seconds)
            await there(frame)

        pipe.send = send


@in_virtual_time
async def test_a_long_body_on_a_slow_line_arrives_however_long_it_takes(pair: Any, pipes: Any) -> None:
    slow_line(pipes, 0.02)
    async with pair(right=answer_slowly) as (one, _, _):
        answer = await one.call("x", b"", [bytes(24 * CHUNK_BYTES)], timeout=0.5)  # and it takes 1 s
    assert len(answer.body) == 24 * CHUNK_BYTES


@in_virtual_time
async def test_with_a_fixed_time_it_would_not(pair: Any, pipes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "moved", lambda self, count: None)
    slow_line(pipes, 0.02)
    async with pair(right=answer_slowly) as (one, _, _):
        with pytest.raises(NoAnswerError):
            await one.call("x", b"", [bytes(24 * CHUNK_BYTES)], timeout=0.5)


@in_virtual_time
async def test_bytes_that_trickle_gain_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1) as limit:
            began = loop.time()
            waiting = Patience(limit, 0.1)
            while True:
                waiting.moved(1)
                await asyncio.sleep(0.005)
    assert loop.time() - began < 0.5
    monkeypatch.setattr(patience, "SLOWEST_LINE", 1)  # were a byte worth a second, it would go on
    async with asyncio.timeout(0.1) as limit:
        waiting = Patience(limit, 0.1)
        for _ in range(60):
            waiting.moved(1)
            await asyncio.sleep(0.005)


@in_virtual_time
async def test_a_burst_is_no_credit_for_silence_afterwards() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1) as limit:
            Patience(limit, 0.1).moved(100 * CHUNK_BYTES)
            await asyncio.sleep(2)


def test_a_frame_has_time_on_the_slowest_line() -> None:
    assert STALL_SECONDS * SLOWEST_LINE >= CHUNK_BYTES
