"""Request ids: carried with an exchange and what it sets going, replaced where they are none."""

from __future__ import annotations

import asyncio

import pytest

from federation.wire import request_id
from federation.wire._generated.link_pb2 import Frame, Head
from federation.wire.peer import Incoming, Outgoing, Peer
from tests.federation.wire.conftest import Pair, Pipe


async def under(peer: Peer, message: Incoming) -> Outgoing:
    """Answer with the id that is worked under."""
    return Outgoing(request_id.current().encode())


async def test_an_exchange_is_answered_under_the_id_it_was_asked_under(pair: Pair) -> None:
    async with pair(right=under) as (one, _, _):
        request = request_id.carry()
        assert (await one.call("m", b"")).header == request.encode()


async def test_the_id_goes_on_through_what_the_answer_sets_going(pair: Pair) -> None:
    async def ask_back(peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing((await peer.call("back", b"")).header)

    async with pair(left=under, right=ask_back) as (one, _, _):
        request = request_id.carry()
        assert (await one.call("m", b"")).header == request.encode()


async def test_each_exchange_without_an_id_gets_one_of_its_own(pair: Pair) -> None:
    async with pair(right=under) as (one, _, _):
        assert request_id.current() == ""  # whoever asks has none: an older release, say
        first, second = (await one.call("m", b"")).header, (await one.call("m", b"")).header
    assert first != second
    assert len(first) == len(second) == 16


@pytest.mark.parametrize("given", ["x" * 16, "0123", "0" * 17, 'a\n{"level": "x"}', "A" * 16, "０" * 16])
async def test_what_is_no_id_never_reaches_a_log(given: str, pair: Pair, pipes: tuple[Pipe, Pipe]) -> None:
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(peer: Peer, message: Incoming) -> Outgoing:
        seen.set_result(request_id.current())
        return Outgoing(b"")

    async with pair(right=note):
        await pipes[0].send(Frame(exchange=1, open=Head(method="m", request=given)))
        found = await asyncio.wait_for(seen, 30)
    assert found != given
    assert len(found) == 16 and set(found) <= set("0123456789abcdef")


def test_a_head_of_an_older_release_is_read() -> None:
    assert Head.FromString(Head(method="m", header=b"{}", body_bytes=3).SerializeToString()).request == ""
    assert Head(method="m").SerializeToString() == b"\n\x01m"  # and nothing is added where there is no id
