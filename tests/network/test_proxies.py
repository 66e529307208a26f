"""Links through boxes in the middle: idle streams cut, streams cut at random, silence, and a coordinator that returns.

Keepalive is scaled down here, both its times alike; what the real figures are is tested where they are documented.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.links import Links
from federation.errors import KeyongError
from federation.wire import credentials, dial, listen
from federation.wire.dial import keep_attached
from federation.wire.peer import Incoming, LinkLostError, Outgoing, Peer
from tests.federation.wire.conftest import Hub
from tests.network.proxy import Proxy

SCALE = 1 / 50
"""Pings each 0.4 s, answered within as much."""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    one = Hub(tmp_path)
    yield one
    assert one.listener is not None
    await one.listener.stop(0.2)


Scale = Callable[..., None]


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Scale:
    def scale(**changes: int | None) -> None:
        options: dict[str, Any] = {
            name: int(value * SCALE) if name.endswith("_ms") else value  # type: ignore[operator]
            for name, value in credentials.CHANNEL_OPTIONS
        }
        options |= {f"grpc.{name}": value for name, value in changes.items()}
        kept = tuple((name, value) for name, value in options.items() if value is not None)
        for module in (dial, listen):
            monkeypatch.setattr(module, "CHANNEL_OPTIONS", kept)

    return scale


def through(hub: Hub, proxy: Proxy, identity: Any, **options: Any) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Dial the hub through a proxy."""
    address = replace(hub.address, target=f"127.0.0.1:{proxy.port}")
    return dial.dial(address, identity.key_pem, identity.certificate_pem, spool=hub.folder, timeout=5, **options)


def port_of(hub: Hub) -> int:
    assert hub.listener is not None
    return hub.listener.port


async def idle_link(hub: Hub, seconds: float) -> bool:
    """Whether a link that carries nothing outlives a proxy that cuts after a second; both ends."""
    await hub.start()
    async with Proxy(port_of(hub), idle=1.0).serving() as proxy, through(hub, proxy, hub.member("mill")) as peer:
        await peer.call("x", b"", timeout=5)
        return not await peer.ended(seconds)


async def test_an_idle_link_outlives_a_proxy_that_cuts_idle_streams(hub: Hub, scaled: Scale) -> None:
    scaled()
    assert await idle_link(hub, 3)


async def test_without_keepalive_it_is_cut(hub: Hub, scaled: Scale) -> None:
    scaled(keepalive_time_ms=None)
    assert not await idle_link(hub, 60)


async def test_a_listener_that_did_not_expect_these_pings_would_end_the_link(
    hub: Hub, scaled: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's own default takes a ping in five minutes: the fourth is answered by GOAWAY, too_many_pings."""
    scaled(**{"http2.min_ping_interval_without_data_ms": None})
    # The listener pings, too, and what it sends forgives: a lone dialler shows what the option is for.
    options = tuple(one for one in listen.CHANNEL_OPTIONS if "keepalive_time" not in one[0])
    monkeypatch.setattr(listen, "CHANNEL_OPTIONS", options)
    assert not await idle_link(hub, 60)


def test_keepalive_stays_below_what_boxes_cut_and_what_listeners_forgive() -> None:
    options = dict(credentials.CHANNEL_OPTIONS)
    ping, allowed = options["grpc.keepalive_time_ms"], options["grpc.http2.min_ping_interval_without_data_ms"]
    assert isinstance(ping, int) and isinstance(allowed, int)
    assert ping <= 30_000, "the shortest idle time of common proxies and NATs is 60 s, and one ping may be lost"
    assert allowed <= ping / 2 and options["grpc.http2.max_pings_without_data"] == 0


async def test_both_ends_notice_a_line_that_went_silent(hub: Hub, scaled: Scale) -> None:
    scaled()
    await hub.start()
    async with Proxy(port_of(hub)).serving() as proxy, through(hub, proxy, hub.member("mill")) as peer:
        await peer.call("x", b"", timeout=5)
        (other,) = hub.peers
        proxy.silent = True
        assert await peer.ended(60) and await other.ended(60)


async def test_without_a_time_for_the_ping_neither_would(hub: Hub, scaled: Scale) -> None:
    """gRPC's keepalive time-out alone does not end a link whose TCP still acknowledges; its ping's does."""
    scaled(**{"http2.ping_timeout_ms": None})
    await neither_notices(hub)


async def test_without_keepalive_neither_would(hub: Hub, scaled: Scale) -> None:
    # Nor may a ping that measures bandwidth be on its way: it has the same time.
    scaled(keepalive_time_ms=None, **{"http2.bdp_probe": 0})
    await neither_notices(hub)


async def neither_notices(hub: Hub) -> None:
    await hub.start()
    async with Proxy(port_of(hub)).serving() as proxy, through(hub, proxy, hub.member("mill")) as peer:
        await peer.call("x", b"", timeout=5)
        (other,) = hub.peers
        proxy.silent = True
        assert not await peer.ended(2) and not await other.ended(0.01)


async def test_a_member_comes_back_through_a_proxy_that_cuts_every_stream(hub: Hub) -> None:
    """Every connection ends after a quarter of a megabyte, wherever that is; what is asked again arrives in the end."""
    await hub.start()
    identity, jitter = hub.member("mill"), random.Random(1)
    answered = 0
    reasons: list[str] = []

    async def session(peer: Peer) -> None:
        nonlocal answered
        while answered < 10:
            size = jitter.randrange(100_000)
            assert len((await peer.call("x", b"", [bytes(size)], timeout=5)).body) == size
            answered += 1

    async with Proxy(port_of(hub), most=2**18).serving() as proxy:
        attached = asyncio.create_task(
            keep_attached(
                lambda: through(hub, proxy, identity),
                session,
                on_down=lambda error: reasons.append(error.code),
                jitter=jitter,
            )
        )
        async with asyncio.timeout(30):
            while answered < 10:
                await asyncio.sleep(0.05)
        attached.cancel()
        await asyncio.gather(attached, return_exceptions=True)
    assert proxy.cuts >= 2 and set(reasons) <= {"link-lost", "unreachable"}


async def test_a_node_is_back_within_five_seconds_of_its_coordinator(hub: Hub) -> None:
    """However long that was away; the waits are those of the release."""
    await hub.start()
    identity, port = hub.member("mill"), port_of(hub)
    address = hub.address
    there = asyncio.Event()

    async def session(peer: Peer) -> None:
        await peer.call("hello", b"", timeout=5)
        there.set()
        await peer.ended()

    def connect() -> contextlib.AbstractAsyncContextManager[Peer]:
        return dial.dial(address, identity.key_pem, identity.certificate_pem, timeout=dial.REDIAL_SECONDS)

    down: list[KeyongError] = []
    attached = asyncio.create_task(keep_attached(connect, session, on_down=down.append, jitter=random.Random(7)))
    try:
        await asyncio.wait_for(there.wait(), 10)
        assert hub.listener is not None
        await hub.listener.stop(0.1)
        there.clear()
        async with asyncio.timeout(20):
            while len(down) < 5:  # by now it waits as long as it ever does
                await asyncio.sleep(0.05)
        assert not there.is_set()
        hub.listener = listen.Listener(
            f"127.0.0.1:{port}",
            hub.identity,
            trusted=lambda: tuple(one.certificate_pem.decode() for one in hub.members.values()),
            who=hub.who,
            handler=hub.handle,
            on_link=hub.on_link,
            body_limit=2**30,
            spool=hub.folder,
        )
        await hub.listener.start()
        await asyncio.wait_for(there.wait(), 5)
    finally:
        attached.cancel()
        await asyncio.gather(attached, return_exceptions=True)


async def test_a_slow_member_does_not_hold_up_the_others(hub: Hub, scaled: Scale) -> None:
    """One takes nothing of eighty megabytes; the other's calls go on, and what waits is not held in memory."""

    async def take(peer: Peer, message: Incoming) -> Outgoing:
        return Outgoing(b"")

    await hub.start()
    slow, quick = hub.member("slow"), hub.member("quick")
    async with Proxy(port_of(hub)).serving() as proxy:
        async with through(hub, proxy, slow, handler=take) as one, hub.dial(quick, handler=take) as two:
            await one.call("x", b"", timeout=5)
            await two.call("x", b"", timeout=5)
            peers = {peer.member: peer for peer in hub.peers}
            proxy.silent = True
            before = resident()
            piece = bytes(2**20)
            stuck = asyncio.create_task(peers["slow"].call("x", b"", [piece] * 80, timeout=60))
            for _ in range(20):
                await peers["quick"].call("x", b"", [piece], timeout=5)
            assert not stuck.done()
            assert resident() - before < 40 * 2**20, "what a slow member does not take is kept in memory"
            proxy.silent = False
            await stuck


def resident() -> int:
    """Bytes of this process in memory."""
    for text in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if text.startswith("Pss:"):
            return int(text.split()[1]) * 1024
    raise AssertionError("no Pss")


async def ask_over_lost_links(hub: Hub, losses: int) -> tuple[bytes, int]:
    """Ask a member whose first links are cut while it works; its answer, and how often it was asked."""
    await hub.start()
    assert hub.listener is not None
    links, identity = Links(hub.listener.cut), hub.member("mill")
    asked = 0

    def on_link(peer: Peer, came: bool) -> None:
        (links.came if came else links.went)(peer)

    async def greeted(peer: Peer, message: Incoming) -> Outgoing:
        links.serves(peer)
        return Outgoing(b"")

    hub.listener._on_link, hub.handler = on_link, greeted
    async with Proxy(port_of(hub)).serving() as proxy:

        async def work(peer: Peer, message: Incoming) -> Outgoing:
            nonlocal asked
            asked += 1
            if asked <= losses:
                proxy.cut()
                await peer.ended()
            return Outgoing(b"done")

        async def session(peer: Peer) -> None:
            await peer.call("hello", b"", timeout=5)
            await peer.ended()

        attached = asyncio.create_task(
            keep_attached(
                lambda: through(hub, proxy, identity, handler=work),
                session,
                on_down=lambda error: None,
                jitter=random.Random(1),
            )
        )
        try:
            async with asyncio.timeout(10):
                while not links.online:
                    await asyncio.sleep(0.01)
            answer = await links.call_again("mill", "job.invoke", b"", [b"content"], timeout=10)
            return answer.header, asked
        finally:
            attached.cancel()
            await asyncio.gather(attached, return_exceptions=True)


async def test_an_answer_is_asked_for_over_as_many_links_as_it_takes(hub: Hub) -> None:
    assert await ask_over_lost_links(hub, losses=3) == (b"done", 4)


async def test_asked_for_once_more_only_it_would_be_lost(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.links.LINKS_A_CALL", 2)
    with pytest.raises(LinkLostError):
        await ask_over_lost_links(hub, losses=3)
