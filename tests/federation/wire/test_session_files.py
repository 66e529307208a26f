"""Bodies in memory files: nothing is copied through the socket, and what was judged cannot change any more."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.jobs.codec import body_digest
from federation.jobs.frames import FILE_FROM, HEAD_BYTES, IN_FILE, Channel, Received, encode_frame
from federation.wire.body import MEMORY_BYTES, Body, free_memory
from federation.wire.memory_file import MemoryFile, file_of
from federation.wire.session_channel import SessionChannel, SessionFrameError

SIZE = 3 * FILE_FROM
MODEL = memoryview(os.urandom(SIZE))
LIMIT = 64 * FILE_FROM


class Ends:
    """Both ends of a channel: the trusted one, and the session's as an honest job has it."""

    def __init__(self, spool: Path, file_limit: int, echoes: bool = False) -> None:
        trusted, self.raw = socket.socketpair()
        self.trusted = SessionChannel(trusted, body_limit=LIMIT, spool=spool, file_limit=file_limit, echoes=echoes)
        self.session = Channel(self.raw)
        self._sockets = (trusted, self.raw)

    async def asked(self, body: memoryview = MODEL, room: int = SIZE) -> memoryview:
        """Send a call; what the session received."""
        _, (header, received) = await asyncio.gather(
            self.trusted.send({"op": "call"}, [body], room=room), asyncio.to_thread(self.session.receive, LIMIT)
        )
        assert header == {"op": "call"}
        return received

    async def answered(self, act: Callable[[], Any], limit: int | None = None) -> memoryview:
        """Let the session answer; what the trusted side took."""
        _, (_, body) = await asyncio.gather(asyncio.to_thread(act), self.trusted.receive(limit))
        return body

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    both = Ends(tmp_path, LIMIT)
    yield both
    both.close()


def forged(size: int) -> bytes:
    """The frame of an answer that claims to lie in the file that was lent."""
    return b"".join(bytes(part) for part in encode_frame({"op": "reply"}, in_file=size))


async def test_a_model_goes_in_and_its_answer_comes_out_without_the_socket(ends: Ends) -> None:
    received = await ends.asked()
    assert isinstance(received.obj, mmap.mmap) and received == MODEL
    answer = await ends.answered(lambda: ends.session.send({"op": "reply"}, [MODEL[: SIZE // 2], MODEL[SIZE // 2 :]]))
    assert isinstance(answer.obj, mmap.mmap) and answer == MODEL and answer.readonly


async def test_what_the_app_changes_in_it_is_its_own_copy(ends: Ends) -> None:
    received = await ends.asked()
    assert received.readonly and isinstance(received.obj, Received)
    own = received.obj.take(0, SIZE)
    assert own is not None and received.obj.take(0, SIZE) is None
    own[:3] = b"app"
    assert received[:3] == MODEL[:3]
    assert (await ends.asked())[:3] == MODEL[:3]


async def test_the_same_body_is_put_into_a_file_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    holding = MemoryFile.holding
    monkeypatch.setattr(MemoryFile, "holding", lambda body, size: made.append(size) or holding(body, size))
    for body in (MODEL, MODEL, memoryview(bytes(SIZE))):
        assert await ends.asked(body) == body
    assert made == [SIZE, SIZE]


def echoing(tmp_path: Path) -> Ends:
    both = Ends(tmp_path, LIMIT, echoes=True)
    both.session.echo()
    return both


async def test_a_body_sent_back_as_it_came_is_the_one_that_was_sent(tmp_path: Path) -> None:
    both = echoing(tmp_path)
    try:
        await both.asked()
        copy = memoryview(bytes(MODEL))  # whatever the app's code did with it in between
        first = await both.answered(lambda: both.session.send({"op": "reply"}, [copy[:7], copy[7:]]))
        again = await both.answered(lambda: both.session.send({"op": "reply"}, [copy]))
        assert first == MODEL and again is first and first.readonly
        assert both.session._room is not None  # nothing was written
    finally:
        both.close()


@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
async def test_a_body_that_differs_anywhere_is_sent_whole(tmp_path: Path, at: int) -> None:
    both = echoing(tmp_path)
    try:
        received = await both.asked()
        assert isinstance(received.obj, Received)
        own = received.obj.take(0, SIZE)
        assert own is not None
        own[at] ^= 1  # in place: the app's own copy of that page, not what was received
        answer = await both.answered(lambda: both.session.send({"op": "reply"}, [own]))
        assert answer == own and answer != MODEL
    finally:
        both.close()


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
async def test_what_claims_to_be_sent_back_is_of_the_size_that_was_sent(tmp_path: Path, size: int) -> None:
    both = echoing(tmp_path)
    frame = b"".join(bytes(part) for part in encode_frame({"op": "reply"}, in_file=size, echo=True))
    try:
        await both.asked()
        with pytest.raises(SessionFrameError):
            await both.answered(lambda: both.raw.sendall(frame))
    finally:
        both.close()


async def test_no_answer_is_sent_back_where_none_may_be(ends: Ends) -> None:
    """At a node a reply is what the app computed: one that claims to be the model as it was sent is none."""
    await ends.asked()
    frame = b"".join(bytes(part) for part in encode_frame({"op": "reply"}, in_file=SIZE, echo=True))
    with pytest.raises(SessionFrameError):
        await ends.answered(lambda: ends.raw.sendall(frame))


@pytest.mark.parametrize("size", [0, FILE_FROM - 1, SIZE + 1])
async def test_what_is_small_or_finds_no_room_crosses_the_socket(ends: Ends, size: int) -> None:
    await ends.asked()
    body = memoryview(bytes(size))
    assert await ends.answered(lambda: ends.session.send({"op": "reply"}, [body])) == body


async def test_a_body_above_the_sessions_own_memory_crosses_the_socket(tmp_path: Path) -> None:
    both = Ends(tmp_path, SIZE - 1)
    try:
        assert not isinstance((await both.asked()).obj, mmap.mmap)
        assert await both.answered(lambda: both.session.send({"op": "reply"}, [MODEL])) == MODEL
    finally:
        both.close()


async def test_a_sent_body_is_sealed_against_the_session(ends: Ends) -> None:
    file = MemoryFile.holding([MODEL], SIZE)
    for change in (
        lambda: os.pwrite(file.descriptor, b"x", 0),
        lambda: os.ftruncate(file.descriptor, 1),
        lambda: mmap.mmap(file.descriptor, SIZE, mmap.MAP_SHARED, mmap.PROT_WRITE),
        lambda: fcntl.fcntl(file.descriptor, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(PermissionError):
            change()
    file.close()


async def held_by(ends: Ends) -> int:
    """The file that was lent, as a hostile job keeps it."""
    await ends.asked()
    assert ends.session._room is not None
    return os.dup(ends.session._room.descriptor)


async def test_an_answer_that_could_still_be_changed_is_no_answer(ends: Ends) -> None:
    kept = await held_by(ends)
    hold = mmap.mmap(kept, SIZE)
    with pytest.raises(SessionFrameError):
        await ends.answered(lambda: ends.raw.sendall(forged(SIZE)))
    hold.close()
    os.close(kept)


async def test_without_the_seal_an_answer_changes_after_it_was_judged(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await held_by(ends)
    os.pwrite(kept, b"judged", 0)
    with monkeypatch.context() as without:
        without.setattr(MemoryFile, "seal", lambda self: None)
        answer = await ends.answered(lambda: ends.raw.sendall(forged(SIZE)))
    os.pwrite(kept, b"CHANGE", 0)
    assert answer[:6] == b"CHANGE"
    os.close(kept)
    kept = await held_by(ends)
    os.pwrite(kept, b"judged", 0)
    answer = await ends.answered(lambda: ends.raw.sendall(forged(SIZE)))
    with pytest.raises(PermissionError):
        os.pwrite(kept, b"CHANGE", 0)
    assert answer[:6] == b"judged"
    os.close(kept)


async def test_a_lent_file_has_the_size_it_was_lent_with(ends: Ends) -> None:
    kept = await held_by(ends)
    for size in (0, SIZE - 1, SIZE + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(kept, size)
    os.close(kept)


@pytest.mark.parametrize("size", [SIZE + 1, 2**60])
async def test_an_answer_longer_than_its_room_is_refused(ends: Ends, size: int) -> None:
    await ends.asked()
    with pytest.raises(SessionFrameError):
        await ends.answered(lambda: ends.raw.sendall(forged(size)))


async def test_a_room_is_lent_for_one_answer(ends: Ends) -> None:
    await ends.asked()
    await ends.answered(lambda: ends.session.send({"op": "reply"}, [MODEL]))
    with pytest.raises(SessionFrameError):
        await ends.answered(lambda: ends.raw.sendall(forged(SIZE)))


async def test_a_session_lends_nothing(ends: Ends) -> None:
    frame = b"".join(bytes(part) for part in encode_frame({"op": "reply"}, room=True))
    with pytest.raises(SessionFrameError):
        await ends.answered(lambda: ends.raw.sendall(frame))


async def test_files_that_a_session_sends_are_dropped(ends: Ends) -> None:
    """Descriptors beside a frame are the kernel's to close: none of them reaches the trusted process."""
    frame = b"".join(bytes(part) for part in encode_frame({"op": "reply"}))
    file = os.memfd_create("theirs")

    def send() -> None:
        socket.send_fds(ends.raw, [frame[:HEAD_BYTES]], [file])
        ends.raw.sendall(frame[HEAD_BYTES:])

    assert len(await ends.answered(send)) == 0
    assert held("theirs") == 1
    os.close(file)
    assert held("theirs") == 0


def held(name: str) -> int:
    """How many descriptors of this process are of a memory file of that name."""
    links = (Path("/proc/self/fd") / one for one in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(link) and os.readlink(link).startswith(f"/memfd:{name}") for link in links)


@pytest.mark.parametrize("size", [100, SIZE])
async def test_an_answer_above_the_limit_is_not_taken_however_it_comes(ends: Ends, size: int) -> None:
    await ends.asked()
    with pytest.raises(SessionFrameError) as refused:
        await ends.answered(lambda: ends.session.send({"op": "reply"}, [MODEL[:size]]), limit=99)
    assert refused.value.code == "session-frame-size"


async def test_without_the_limit_the_large_answer_is_taken(ends: Ends) -> None:
    await ends.asked()
    assert len(await ends.answered(lambda: ends.session.send({"op": "reply"}, [MODEL]))) == SIZE


def test_the_mark_of_a_file_is_no_length() -> None:
    assert IN_FILE > 2**61


async def test_a_body_that_came_for_a_session_is_given_to_it_as_it_is(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = memoryview(os.urandom(MEMORY_BYTES + FILE_FROM))
    body = Body(len(content), tmp_path, hashed=True, lent=0)
    for start in range(0, len(content), FILE_FROM):
        body.write(content[start : start + FILE_FROM])
    assert body.view == content and body.view.readonly and body.digest == body_digest([content])
    monkeypatch.setattr(MemoryFile, "holding", None)  # no second file is made of it
    assert await ends.asked(body.view) == content
    file = file_of([body.view])
    assert file is not None and file_of([body.view[1:]]) is None
    with pytest.raises(PermissionError):
        os.pwrite(file.descriptor, b"x", 0)  # sealed: what was hashed is what the session reads
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_memory_has_no_room_for_is_spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = MEMORY_BYTES + 1
    for free, others, lends in ((4 * size, 0, True), (4 * size - 1, 0, False), (4 * size, 1, False), (0, 0, False)):
        monkeypatch.setattr("federation.wire.body.free_memory", lambda free=free: free)
        body = Body(size, tmp_path, lent=others)
        body.write(bytes(size))
        assert len(body.view) == size and (file_of([body.view]) is not None) == lends


def test_what_memory_is_free_is_known_here() -> None:
    assert 0 < free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
