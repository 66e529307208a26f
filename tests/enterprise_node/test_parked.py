"""Engines that wait for the next query: for whom, how long, and what ends them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from enterprise_node.parked import MOST_PARKED, PARKED_SECONDS, Parked
from enterprise_node.query_session import Key


class Held:
    """What the keeping of sessions looks at."""

    def __init__(self, key: Key | None = None) -> None:
        self.key, self.live, self.closed = key, True, False

    def strike(self) -> None:
        self.live = False

    async def close(self) -> None:
        self.closed = True


KEY = Key("institute", "sha256:a", "passes", "sha256:d", "sha256:1", "", ("alloy",), "T2", 2**31)


def key(agreement: str = "sha256:a") -> Key:
    return replace(KEY, agreement=agreement)


def others() -> list[Key]:
    """Keys that differ from it in one part each."""
    said = {field.name: getattr(KEY, field.name) for field in fields(KEY)}
    changed: dict[str, Any] = {
        name: ("force",) if isinstance(value, tuple) else value + 1 if isinstance(value, int) else value + "x"
        for name, value in said.items()
    }
    return [replace(KEY, **{name: value}) for name, value in changed.items()]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_an_engine_serves_the_next_query_of_its_agreement_alone() -> None:
    parked, session = Parked(), Held(key())
    await parked.park(session)  # type: ignore[arg-type]
    assert not session.closed
    for other in others():
        assert parked.take(other) is None
    assert parked.take(key()) is session and parked.take(key()) is None


async def test_inv1_an_engine_ends_with_its_agreement_its_time_and_its_node() -> None:
    clock = Clock()
    parked = Parked(clock)
    first, second, third = Held(key("sha256:a")), Held(key("sha256:b")), Held(key("sha256:c"))
    for session in (first, second):
        await parked.park(session)  # type: ignore[arg-type]
    over = parked.ended(lambda agreement: agreement == "sha256:a")
    await parked.sweep(over.__contains__)
    assert first.closed and not second.closed and parked.take(key("sha256:a")) is None
    clock.now = PARKED_SECONDS + 1
    await parked.sweep(lambda agreement: False)
    assert second.closed
    await parked.park(third)  # type: ignore[arg-type]
    await parked.close()
    assert third.closed
    late = Held(key("sha256:d"))
    await parked.park(late)  # type: ignore[arg-type]
    assert late.closed


async def test_what_cannot_be_asked_again_is_not_kept() -> None:
    parked = Parked()
    for session in (dead := Held(key()), unkeyed := Held(None)):
        session.live = session is not dead
        await parked.park(session)  # type: ignore[arg-type]
    assert dead.closed and unkeyed.closed
    many = [Held(key(f"sha256:{number}")) for number in range(MOST_PARKED + 1)]
    for session in many:
        await parked.park(session)  # type: ignore[arg-type]
    assert [session.closed for session in many] == [True] + [False] * MOST_PARKED
