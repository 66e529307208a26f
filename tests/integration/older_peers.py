"""Recorded ends of links of release 0.1.0, that answer and ask with the very bytes of their frames."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.wire._generated.link_pb2 import Fault, Frame
from federation.wire.meter import Meter

ARCHIVE = Path(__file__).parent / "recorded" / "links-0.1.0.tar.gz"
CHUNK = 1024 * 1024


@dataclass
class Exchange:
    """One exchange as it was recorded: who began it, and the frames each side sent."""

    number: int
    asking: list[Frame] = field(default_factory=list)
    answering: list[Frame] = field(default_factory=list)

    @property
    def by_member(self) -> bool:
        """Whether the member, which dialled, began it."""
        return self.number % 2 == 1

    @property
    def method(self) -> str:
        return self.asking[0].open.method

    @property
    def header(self) -> bytes:
        return self.asking[0].open.header

    @property
    def body(self) -> bytes:
        return b"".join(frame.chunk for frame in self.asking[1:])

    @property
    def answer(self) -> bytes:
        """The header of the answer."""
        return self.answering[0].reply.header

    @property
    def answer_body(self) -> bytes:
        return b"".join(frame.chunk for frame in self.answering[1:])


def unpack(folder: Path) -> dict[str, Any]:
    """Put homes and data below a folder; returns what the recording says of itself, with ``links`` by file name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    links: dict[str, list[Exchange]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            path = folder / member.name
            if member.isdir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            file = archive.extractfile(member)
            assert file is not None
            data = file.read()
            if member.name.startswith("link-"):
                links[member.name] = _exchanges(data)
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
    for path in (folder / "before", *(folder / "before").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return {**json.loads((folder / "recording.json").read_text()), "links": links}


def _exchanges(data: bytes) -> list[Exchange]:
    found: dict[int, Exchange] = {}
    at = 0
    while at < len(data):
        from_member, size = data[at : at + 1] == b">", int.from_bytes(data[at + 1 : at + 5], "big")
        frame = Frame.FromString(data[at + 5 : at + 5 + size])
        at += 5 + size
        if frame.HasField("cancel"):
            continue
        exchange = found.setdefault(frame.exchange, Exchange(frame.exchange))
        (exchange.asking if from_member == exchange.by_member else exchange.answering).append(frame)
    return list(found.values())


@dataclass
class Asked:
    """What this tree's end asked of the recorded one, and the recorded exchange it was taken for."""

    method: str
    header: bytes
    body: bytes
    recorded: Exchange | None


class OlderEnd:
    """One recorded end of a link; the other end is this tree's.

    Frames cross as bytes, through the meter that stands in the gRPC stream.

    Args:
        exchanges: the link as recorded.
        member: whether this is the end that dialled.
    """

    def __init__(self, exchanges: list[Exchange], *, member: bool) -> None:
        self._begun = [one for one in exchanges if one.by_member == member]
        self._answers = [one for one in exchanges if one.by_member != member]
        self._parity = 1 if member else 0
        self._next = 1 if member else 2
        self._meter = Meter()
        self._outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[int, tuple[asyncio.Future[Exchange], Exchange]] = {}
        self._arriving: dict[int, Exchange] = {}
        self.asked: list[Asked] = []
        self.unknown: list[str] = []
        """Methods this tree's end called that the older release does not have."""

    def begun(self, method: str | None = None) -> list[Exchange]:
        """The exchanges this end began when it was recorded."""
        return [one for one in self._begun if method in (None, one.method)]

    async def frames(self) -> AsyncIterator[Any]:
        """What this end sends, as the other end's stream gives it."""
        while (data := await self._outgoing.get()) is not None:
            yield self._meter.read(data)

    def end(self) -> None:
        """End the stream."""
        self._outgoing.put_nowait(None)

    async def write(self, frame: Any) -> None:
        """Take a frame of the other end."""
        frame = Frame.FromString(bytes(self._meter.write(frame)))
        number = frame.exchange
        if number % 2 == self._parity:
            future, got = self._waiting[number]
            got.answering.append(frame)
            whole = frame.HasField("fault") or got.answering[0].reply.body_bytes == len(got.answer_body)
            if whole and not future.done():
                future.set_result(got)
            return
        if frame.HasField("cancel"):
            return
        asking = self._arriving.setdefault(number, Exchange(number))
        asking.asking.append(frame)
        if asking.asking[0].open.body_bytes == len(asking.body):
            del self._arriving[number]
            self._answer(asking)

    def _answer(self, asking: Exchange) -> None:
        recorded = next((one for one in self._answers if one.method == asking.method), None)
        self.asked.append(Asked(asking.method, asking.header, asking.body, recorded))
        if recorded is None:
            self.unknown.append(asking.method)
            self._send(Frame(exchange=asking.number, fault=Fault(code="no-such-method", params={"exit": "2"})))
            return
        if len([one for one in self._answers if one.method == asking.method]) > 1:
            self._answers.remove(recorded)  # the last one answers whatever follows
        for frame in recorded.answering:
            again = Frame()
            again.CopyFrom(frame)
            again.exchange = asking.number
            self._send(again)

    def _send(self, frame: Frame) -> None:
        self._outgoing.put_nowait(frame.SerializeToString())

    async def play(self, exchange: Exchange, change: Callable[[bytes], bytes] = lambda header: header) -> Exchange:
        """Ask what was asked when it was recorded; returns it with the answer of this tree's end."""
        number = self._next
        self._next += 2
        got = Exchange(number)
        future: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, got)
        for place, frame in enumerate(exchange.asking):
            again = Frame()
            again.CopyFrom(frame)
            again.exchange = number
            if place == 0:
                again.open.header = change(frame.open.header)
            got.asking.append(again)
            self._send(again)
        async with asyncio.timeout(60):
            return await future


def shape(value: Any) -> Any:
    """The names of a document's fields, with values left out; a list has the shape of its first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None
