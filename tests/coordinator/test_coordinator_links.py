"""Which link a node is asked over."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.links import Links
from federation.wire.peer import Incoming, LinkLostError


class Lost:
    """A link that has broken, and whose end the listener has not told yet."""

    member, version = "mill", 1

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, *_: Any, **__: Any) -> Incoming:
        self.asked += 1
        raise LinkLostError("the link was lost before an answer came")


class Live(Lost):
    """The next one."""

    async def call(self, *_: Any, **__: Any) -> Incoming:
        return Incoming("x", b"done", memoryview(b""))


async def test_a_broken_link_is_asked_once_and_the_next_one_waited_for() -> None:
    links, broken = Links(lambda peer: None), Lost()
    links.serves(broken)  # type: ignore[arg-type]
    asking = asyncio.create_task(links.call_again("mill", "job.invoke", b"", timeout=30))
    for _ in range(20):
        await asyncio.sleep(0)
    assert broken.asked == 1 and not asking.done() and "mill" not in links.online
    links.serves(Live())  # type: ignore[arg-type]
    assert (await asking).header == b"done"
    links.went(broken)  # type: ignore[arg-type]
    assert "mill" in links.online, "the end of the old link took the new one with it"


async def test_were_it_kept_the_broken_link_would_be_asked_again(monkeypatch: Any) -> None:
    links, broken = Links(lambda peer: None), Lost()
    monkeypatch.setattr(links, "_drop", lambda peer: None)
    links.serves(broken)  # type: ignore[arg-type]
    try:
        await links.call_again("mill", "job.invoke", b"", timeout=30)
    except LinkLostError:
        assert broken.asked > 1
