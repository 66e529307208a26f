"""Bare gRPC: what three models cost to carry to a peer and back, with nothing of ours around them.

One server process and three client processes on loopback, each with one bidirectional stream: the client sends its model in
pieces of 1 MiB and the server sends as much back. No TLS, no encoding, no record: a floor that no round can go below. Run as
``python -m keyong.bench.streams``, this file is one of those processes.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from keyong.demo.parties import DemoError

PIECE = 1 << 20
METHOD = "/bench.Streams/Carry"


def measure(size: int, clients: int = 3, repetitions: int = 5) -> float:
    """Seconds until ``clients`` streams of ``size`` bytes each went there and came back; the median of repetitions."""
    with ExitStack() as stack:
        server = stack.enter_context(_start("serve", size))
        port = _line(server)
        peers = [stack.enter_context(_start("carry", size, port)) for _ in range(clients)]
        for peer in peers:
            _line(peer)
        took = []
        for _ in range(repetitions + 1):
            began = time.perf_counter()
            for peer in peers:
                assert peer.stdin is not None
                peer.stdin.write("go\n")
                peer.stdin.flush()
            for peer in peers:
                _line(peer)
            took.append(time.perf_counter() - began)
        for process in (*peers, server):
            process.terminate()
    return statistics.median(took[1:])  # the first opens buffers


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keyong.bench.streams", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        raise DemoError("a process of the benchmark's bare streams ended early")
    return text


async def _pieces(size: int) -> AsyncIterator[bytes]:
    piece = bytes(PIECE)
    for _ in range(size // PIECE):
        yield piece
    if size % PIECE:
        yield piece[: size % PIECE]


async def _serve(size: int) -> None:
    import grpc

    async def carry(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for _piece in requests:
            pass
        async for piece in _pieces(size):
            yield piece

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(carry)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Streams", {"Carry": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


async def _carry(size: int, port: int) -> None:
    import grpc

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            received = 0
            call: Any = channel.stream_stream(METHOD)
            async for piece in call(_pieces(size)):
                received += len(piece)
            print(received, flush=True)


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    asyncio.run(_serve(int(numbers[0])) if kind == "serve" else _carry(int(numbers[0]), int(numbers[1])))
