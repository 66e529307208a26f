"""What large bodies leave behind: memory that is given back, and no more on its way than a window holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from federation.wire.credentials import CHANNEL_OPTIONS, HUB_WINDOW, MEMBER_WINDOW  # isort: skip

import grpc
import grpc.aio
import pytest

from federation.pages import KeptPages
from federation.wire import heap
from federation.wire.heap import LARGE_BYTES, LargeBodies

PIECE = bytes(1024 * 1024)
WARM = 150


async def test_memory_is_given_back_once_no_large_body_came_for_a_while() -> None:
    given = asyncio.Event()
    calls: list[None] = []

    def give_back() -> None:
        calls.append(None)
        loop.call_soon_threadsafe(given.set)

    loop = asyncio.get_running_loop()
    bodies = LargeBodies(give_back, 0.0)
    for size in (LARGE_BYTES, LARGE_BYTES - 1, 2 * LARGE_BYTES):
        bodies.began(size)
    bodies.ended(LARGE_BYTES)
    bodies.ended(LARGE_BYTES - 1)
    await turns()
    assert not calls
    bodies.ended(2 * LARGE_BYTES)
    bodies.began(LARGE_BYTES)  # the next round's
    await turns()
    assert not calls
    bodies.ended(LARGE_BYTES)
    await asyncio.wait_for(given.wait(), 10)
    assert len(calls) == 1


async def turns() -> None:
    """Let the loop do what is due, and a thread what it was given."""
    for _ in range(3):
        await asyncio.to_thread(lambda: None)


def test_pages_of_large_vectors_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptPages()
    monkeypatch.setattr(heap, "PAGES", kept)
    kept.take(LARGE_BYTES)
    assert kept.kept == LARGE_BYTES
    heap._give_back()
    assert kept.kept == 0


def test_what_the_allocator_keeps_goes_back() -> None:
    pieces = [bytearray(100_000) for _ in range(1000)]  # below the size that has a map of its own
    del pieces[::2], pieces[:-1]  # the last one keeps the arena from shrinking by itself
    before = _anonymous()
    heap._trim()
    assert before - _anonymous() > 50_000_000
    assert len(pieces) == 1


def test_without_glibc_there_is_nothing_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    heap._trim()


async def accepted_ahead(options: Any) -> int:
    """How many pieces a stream takes from its sender beyond those that its reader has read, once the line is warm."""
    read, over = 0, asyncio.Event()

    async def attach(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        nonlocal read
        async for _piece in requests:
            read += 1
            if read == WARM:
                await over.wait()
        yield b""

    server = grpc.aio.server(options=options)
    method = grpc.stream_stream_rpc_method_handler(attach)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Attach": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call: Any = channel.stream_stream("/test/Attach")()
            written = 0
            try:
                while written < 4 * WARM:
                    await asyncio.wait_for(call.write(PIECE), 1.0)
                    written += 1
            except (TimeoutError, asyncio.CancelledError):
                pass
            return written - read
    finally:
        over.set()
        await server.stop(None)


@pytest.mark.parametrize("window", [MEMBER_WINDOW, HUB_WINDOW], ids=["member", "coordinator"])
async def test_a_reader_that_is_slow_finds_no_more_than_a_window_waiting(window: tuple[str, int]) -> None:
    ahead = await accepted_ahead((*CHANNEL_OPTIONS, window))
    assert ahead * len(PIECE) <= 12 * 2**20 + window[1]  # the window, and what lies in the sockets


def _anonymous() -> int:
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("RssAnon:"))
