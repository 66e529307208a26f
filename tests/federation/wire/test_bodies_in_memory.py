"""An answer that arrives fast lies in memory that the one before has left: the same bytes, and a file where there is none."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from federation.pages import LEAST_BYTES, KeptPages
from federation.wire import body as module
from federation.wire.body import CHUNK_BYTES, Body, BodyError
from federation.wire.dial import refuse_all
from federation.wire.peer import Incoming, Outgoing, Peer
from federation.wire.places import Places

SIZE = LEAST_BYTES + 5


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> KeptPages:
    kept = KeptPages()
    monkeypatch.setattr(module, "PAGES", kept)
    monkeypatch.setattr(module, "free_memory", lambda: 2**40)
    return kept


def filled(body: Body, data: bytes) -> Body:
    for start in range(0, len(data), CHUNK_BYTES):
        body.write(data[start : start + CHUNK_BYTES])
    return body


def test_bytes_and_digest_are_those_that_came_whatever_lay_there_before(pages: KeptPages, tmp_path: Path) -> None:
    for data in (os.urandom(SIZE), os.urandom(SIZE)):
        body = Body(SIZE, tmp_path, hashed=True)
        body.in_memory(0)
        assert bytes(filled(body, data).view) == data
        assert body.view.readonly
        assert body.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        del body
        assert pages.kept == SIZE


def test_half_a_body_is_never_seen_nor_kept(pages: KeptPages, tmp_path: Path) -> None:
    body = Body(SIZE, tmp_path)
    body.in_memory(0)
    body.write(b"x" * CHUNK_BYTES)
    with pytest.raises(BodyError):
        _ = body.view
    body.discard()
    assert pages.kept == SIZE


def test_what_has_no_memory_or_is_too_long_for_it_lies_in_a_file(
    pages: KeptPages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(SIZE)
    for name, value in (("free_memory", lambda: 4 * SIZE - 1), ("_KEPT_BYTES", 1)):
        with monkeypatch.context() as scarce:
            scarce.setattr(module, name, value)
            body = Body(SIZE, tmp_path)
            body.in_memory(0)
        assert bytes(filled(body, data).view) == data
    assert pages.kept == 0


def test_no_more_of_them_lie_in_memory_than_may(pages: KeptPages, tmp_path: Path) -> None:
    """However many come at once, or slowly: memory does not grow with the number of nodes."""
    data = os.urandom(SIZE)
    bodies = [Body(SIZE, tmp_path) for _ in range(4)]
    for body in bodies:
        body.in_memory(1)
    assert all(bytes(filled(body, data).view) == data for body in bodies)
    del body
    bodies.clear()
    assert pages.kept == 2 * SIZE


@pytest.mark.parametrize("places", [Places(1), None], ids=["with places", "without"])
async def test_answers_for_which_there_is_a_place_are_taken_into_memory(
    pages: KeptPages, places: Places | None, pipes: Any, tmp_path: Path
) -> None:
    data = os.urandom(SIZE)

    async def answer(_: Peer, message: Incoming) -> Outgoing:
        return Outgoing(message.header, [data])

    there, back = pipes
    options: dict[str, Any] = {"body_limit": 2**30, "spool": tmp_path, "tell": True}
    one = Peer(there.send, back.frames(), dialled=True, handler=refuse_all, places=places, **options)
    two = Peer(back.send, there.frames(), dialled=False, handler=answer, **options)
    tasks = [asyncio.create_task(peer.run()) for peer in (one, two)]
    try:
        message = await asyncio.wait_for(one.call("a", b""), 20)
        assert bytes(message.body) == data
        assert message.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        assert pages.kept == 0
        del message
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert pages.kept == (SIZE if places else 0)
