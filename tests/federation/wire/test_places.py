"""Large answers arrive a few at a time: in order, fair between jobs, and nobody waits for who died or is slow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from federation.wire import peer as peer_module
from federation.wire import places as module
from federation.wire._generated import link_pb2
from federation.wire._generated.link_pb2 import Frame, Head
from federation.wire.body import CHUNK_BYTES, MEMORY_BYTES, Body, BodyError
from federation.wire.dial import refuse_all
from federation.wire.peer import Incoming, LinkLostError, Outgoing, Peer
from federation.wire.places import LEAST_BYTES, Place, Places, places_here
from tests.federation.wire.conftest import Pipe
from tests.virtual_time import in_virtual_time

LARGE = bytes(MEMORY_BYTES + 2 * CHUNK_BYTES + 3)
WAIT = 20.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No place is lost for slowness, where a test does not want it."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)


async def once(true: Callable[[], object]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(WAIT):
        while not true():
            await asyncio.sleep(0.002)


# -- the places alone ------------------------------------------------------------------------------------------------


class Room:
    """Places, and who was let in, in order."""

    def __init__(self, count: int) -> None:
        self.places = Places(count)
        self.let_in: list[str] = []

    def ask(self, job: str, name: str) -> Place:
        return self.places.ask(job, lambda: self.let_in.append(name))


async def test_so_many_are_let_in_and_the_others_in_the_order_in_which_they_asked() -> None:
    room = Room(2)
    held = [room.ask("job", str(number)) for number in range(5)]
    assert room.let_in == ["0", "1"]
    held[1].leave()
    held[1].leave()  # twice frees one
    assert room.let_in == ["0", "1", "2"]
    held[3].leave()  # gave up while it waited
    held[0].leave()
    assert room.let_in == ["0", "1", "2", "4"]


async def test_a_second_job_does_not_wait_behind_all_of_the_first() -> None:
    room = Room(2)
    first = [room.ask("first", f"first {number}") for number in range(6)]
    for number in range(2):
        room.ask("second", f"second {number}")
    for one in first[:2]:
        one.leave()
    assert room.let_in[2:] == ["second 0", "first 2"]  # one place each


async def test_jobs_that_hold_as_much_take_turns() -> None:
    room = Room(1)
    asked = {name: room.ask(name[0], name) for name in ("a1", "a2", "a3", "b1", "b2", "c1")}
    for _ in range(5):
        asked[room.let_in[-1]].leave()
    assert room.let_in == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_body_that_comes_slowly_goes_on_and_its_place_is_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    room = Room(1)
    slow, _ = room.ask("job", "slow"), room.ask("job", "next")
    slow.moved(LEAST_BYTES - 1)
    await once(lambda: room.let_in == ["slow", "next"])
    room.ask("job", "third")
    slow.leave()  # its end frees nothing: the place is the next one's
    assert room.let_in == ["slow", "next"]


async def test_a_body_that_comes_fast_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = asyncio.Event()
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    room = Room(1)
    fast, _ = room.ask("job", "fast"), room.ask("job", "next")
    look = Place._look

    def looked(place: Place) -> None:
        look(place)
        place.moved(LEAST_BYTES)
        judged.set()

    monkeypatch.setattr(Place, "_look", looked)
    fast.moved(LEAST_BYTES)
    await asyncio.wait_for(judged.wait(), WAIT)
    assert room.let_in == ["fast"]
    fast.leave()
    assert room.let_in == ["fast", "next"]


def test_a_machine_has_a_place_more_than_cores_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, places in ((1, 2), (2, 3), (64, module.MOST_PLACES)):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert places_here() == places


# -- over links ------------------------------------------------------------------------------------------------------


class Members:
    """Links of members to one hub, each of which answers ``large`` with a model and anything else with a word."""

    def __init__(self, folder: Path, places: Places | None) -> None:
        self.folder, self.places = folder, places
        self.tasks: dict[Peer, list[asyncio.Task[None]]] = {}
        self.ends: dict[Peer, Peer] = {}
        """The member's end of each of the hub's links."""

    async def answer(self, peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(b"", [LARGE] if message.method == "large" else [b"word"])

    def link(self, *, never_sends: bool = False) -> Peer:
        """The hub's end of one more link."""
        up, down = Pipe(), Pipe()
        options: dict[str, Any] = {"body_limit": 2**30, "spool": self.folder, "tell": True}
        hub = Peer(down.send, up.frames(), dialled=False, handler=refuse_all, places=self.places, **options)

        async def send(frame: Any) -> None:
            if never_sends and isinstance(frame, peer_module.Chunk):
                await asyncio.Event().wait()
            await up.send(frame)

        member = Peer(send, down.frames(), dialled=True, handler=self.answer, **options)
        self.ends[hub] = member
        self.tasks[hub] = [asyncio.create_task(one.run()) for one in (hub, member)]
        return hub

    async def lost(self, hub: Peer) -> None:
        """A link breaks."""
        for task in self.tasks[hub]:
            task.cancel()
        await asyncio.gather(*self.tasks[hub], return_exceptions=True)


@contextlib.asynccontextmanager
async def members(folder: Path, places: Places | None) -> AsyncIterator[Members]:
    one = Members(folder, places)
    try:
        yield one
    finally:
        for hub in one.tasks:
            await one.lost(hub)


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bodies were half there at once, at each piece that came."""
    half: set[Body] = set()
    counts: list[int] = []
    write = Body.write

    def counted(body: Body, data: Any) -> None:
        half.add(body)
        counts.append(len(half))
        write(body, data)
        if body.complete:
            half.discard(body)

    monkeypatch.setattr(Body, "write", counted)
    return counts


@pytest.mark.parametrize("count", [1, 2, None])
async def test_so_many_large_answers_arrive_at_once(count: int | None, arriving: list[int], tmp_path: Path) -> None:
    """Six nodes answer together: memory for so many as there are places; without places for all six."""
    async with members(tmp_path, Places(count) if count else None) as hub:
        links = [hub.link() for _ in range(6)]
        answers = await asyncio.gather(*(link.call("large", b"", timeout=WAIT) for link in links))
    assert all(len(answer.body) == len(LARGE) for answer in answers)
    assert max(arriving) == (count or 6)


async def test_an_answer_is_given_back_with_its_last_reader(tmp_path: Path) -> None:
    """Not when cycles are collected: a coordinator would hold the replies of several rounds."""
    async with members(tmp_path, Places(1)) as hub:
        links = [hub.link() for _ in range(3)]
        gc.collect()
        gc.disable()
        try:
            asked = [asyncio.create_task(link.call("large", b"", timeout=WAIT)) for link in links]
            held = []
            while asked:
                held.append(weakref.ref(await asked.pop()))
            await once(lambda: not any(one() for one in held))
        finally:
            gc.enable()


async def test_whatever_else_a_link_carries_does_not_wait_behind_its_large_answer(tmp_path: Path) -> None:
    places = Places(1)
    held = places.ask("job", lambda: None)
    async with members(tmp_path, places) as hub:
        link = hub.link()
        large = asyncio.create_task(link.call("large", b"", timeout=WAIT, job="job"))
        await once(lambda: places._waiting)
        assert bytes((await link.call("small", b"", timeout=WAIT)).body) == b"word"
        assert not large.done()
        held.leave()
        assert len((await large).body) == len(LARGE)


async def test_who_dies_with_a_place_leaves_it(tmp_path: Path) -> None:
    async with members(tmp_path, Places(1)) as hub:
        dying, living = hub.link(never_sends=True), hub.link()
        first = asyncio.create_task(dying.call("large", b"", timeout=WAIT))
        assert hub.places is not None
        await once(lambda: hub.places and hub.places._held)
        second = asyncio.create_task(living.call("large", b"", timeout=WAIT))
        await once(lambda: hub.places and hub.places._waiting)
        await hub.lost(dying)
        with pytest.raises(LinkLostError):
            await first
        assert len((await second).body) == len(LARGE)
        await once(lambda: hub.places and not hub.places._held)


@in_virtual_time
async def test_who_takes_a_place_and_sends_nothing_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    async with members(tmp_path, Places(1)) as hub:
        silent, others = hub.link(never_sends=True), [hub.link() for _ in range(3)]
        first = asyncio.create_task(silent.call("large", b"", timeout=WAIT))
        assert hub.places is not None
        await once(lambda: hub.places and hub.places._held)
        answers = await asyncio.gather(*(link.call("large", b"", timeout=WAIT) for link in others))
        assert all(len(answer.body) == len(LARGE) for answer in answers) and not first.done()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@in_virtual_time
async def test_the_time_of_an_answer_does_not_count_while_it_waits_for_us(tmp_path: Path) -> None:
    places = Places(1)
    held = places.ask("job", lambda: None)
    async with members(tmp_path, places) as hub:
        large = asyncio.create_task(hub.link().call("large", b"", timeout=0.3))
        await once(lambda: places._waiting)
        await asyncio.sleep(0.4)  # longer than the answer may take
        held.leave()
        assert len((await large).body) == len(LARGE)


async def test_who_no_longer_waits_for_an_answer_gives_up_its_turn(tmp_path: Path) -> None:
    places = Places(1)
    held = places.ask("job", lambda: None)
    async with members(tmp_path, places) as hub:
        link = hub.link()
        large = asyncio.create_task(link.call("large", b"", timeout=WAIT))
        await once(lambda: places._waiting)
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        assert not places._waiting
        held.leave()
        assert len((await link.call("large", b"", timeout=WAIT)).body) == len(LARGE)


async def test_an_older_end_that_sends_without_being_asked_is_taken_as_before(tmp_path: Path) -> None:
    places = Places(1)
    places.ask("job", lambda: None)  # taken for good

    async def frames() -> Any:
        await asked.wait()
        yield Frame(exchange=2, reply=Head(method="large", body_bytes=len(LARGE)))
        for start in range(0, len(LARGE), CHUNK_BYTES):
            yield Frame(exchange=2, chunk=LARGE[start : start + CHUNK_BYTES])
        await asyncio.Event().wait()

    async def sink(_: Any) -> None:
        asked.set()

    asked = asyncio.Event()
    options: dict[str, Any] = {"body_limit": 2**30, "spool": tmp_path, "tell": True}
    hub = Peer(sink, frames(), dialled=False, handler=refuse_all, places=places, **options)
    running = asyncio.create_task(hub.run())
    assert len((await hub.call("large", b"", timeout=WAIT)).body) == len(LARGE)
    assert not places._waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_word_that_never_comes_holds_no_answer_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "STALL_SECONDS", 0.3)
    places = Places(1)
    places.ask("job", lambda: None)
    async with members(tmp_path, places) as hub:
        assert len((await hub.link().call("large", b"", timeout=WAIT)).body) == len(LARGE)


async def test_an_answer_there_is_no_room_for_is_called_off_at_once(tmp_path: Path) -> None:
    """Its sender would wait for a word, and then send what nobody takes."""
    async with members(tmp_path, Places(1)) as hub:
        link = hub.link()
        link._body_limit = len(LARGE) - 1
        with pytest.raises(BodyError):
            await link.call("large", b"", timeout=WAIT)
        await once(lambda: not hub.ends[link]._inbound)


def test_ends_of_the_release_before_pass_over_what_they_do_not_know() -> None:
    """Their frames are today's without ``await_proceed`` and ``proceed``; a frame of no kind they know is passed over."""
    file = descriptor_pb2.FileDescriptorProto()
    link_pb2.DESCRIPTOR.CopyToProto(file)
    kept = {"Frame": "proceed", "Head": "await_proceed"}
    for message in file.message_type:
        fields = [field for field in message.field if field.name != kept.get(message.name)]
        del message.field[:]
        message.field.extend(fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    older = message_factory.GetMessageClass(pool.FindMessageTypeByName("keyong.link.v1.Frame"))
    asked = older.FromString(Frame(exchange=2, open=Head(method="job.invoke", await_proceed=True)).SerializeToString())
    assert asked.open.method == "job.invoke" and not hasattr(asked.open, "await_proceed")
    assert (
        older.FromString(Frame(exchange=2, proceed=link_pb2.Proceed()).SerializeToString()).WhichOneof("part") is None
    )
