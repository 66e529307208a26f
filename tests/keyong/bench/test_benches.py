"""Each benchmark once with real processes, at its smallest size: `make bench-smoke`."""

from __future__ import annotations

import os

import pytest

from federation.errors import UnavailableError
from keyong import runtime
from keyong.bench import (
    flower,
    ledger,
    masks,
    materialise,
    memory,
    pages,
    reconnect,
    rest,
    round,
    start,
    streams,
    verify,
)
from keyong.bench.figure import Figure
from keyong.bench.rows import check_complete

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("KEYONG_BENCH_SMOKE") != "1", reason="takes minutes: make bench-smoke (KEYONG_BENCH_SMOKE=1)"
    ),
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("bench"),
]


def values(figures: list[Figure]) -> dict[str, float]:
    found = {one.figure: one.value for one in figures}
    assert len(found) == len(figures)
    assert all(value > 0 for name, value in found.items() if name != "flower-poll-share")
    return found


def _runtime() -> None:
    try:
        runtime.check()
    except UnavailableError as error:
        pytest.skip(f"the runtime is needed: {error}")


def test_round_beside_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    _runtime()
    monkeypatch.setattr("keyong.bench.round.FLOWER_ROUNDS", 3)
    figures = round.measure(3)
    check_complete("round", figures)
    found = values(figures)
    if flower.available():
        assert 0 <= found["flower-poll-share"] <= 1
        assert found["flower-round-seconds"] > found["round-seconds"]


def test_round_of_a_larger_model_beside_bare_streams() -> None:
    _runtime()
    found = values(round.measure(3, round.STREAMED_FROM, compare=False))
    assert found["bare-streams-seconds"] < found["round-seconds-other"]


def test_memory() -> None:
    _runtime()
    figures = memory.measure(floats=100_000, few=3, many=4, rounds=2)
    check_complete("memory", figures)
    assert values(figures)["sum-memory-ratio"] >= 1


def test_ledger() -> None:
    _runtime()
    figures = ledger.measure(2000, 16, nodes=3)
    check_complete("ledger", figures)
    values(figures)


def test_verify() -> None:
    figures = verify.measure(2000)
    check_complete("verify", figures)
    values(figures)


def test_pages() -> None:
    figures = pages.measure(2000)
    check_complete("pages", figures)
    values(figures)


def test_rest() -> None:
    _runtime()
    figures = rest.measure()
    check_complete("rest", figures)
    values(figures)


def test_start() -> None:
    figures = start.measure(3)
    check_complete("start", figures)
    values(figures)


def test_reconnect() -> None:
    figures = reconnect.measure(2, nodes=1)
    check_complete("reconnect", figures)
    values(figures)


def test_streams() -> None:
    assert streams.measure(1_000_000, clients=2, repetitions=2) > 0


def test_materialise() -> None:
    figures = materialise.measure(200_000, 1)
    check_complete("materialise", figures)
    assert values(figures)["materialise-memory"] > 20


def test_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    _runtime()
    monkeypatch.setattr(masks, "PARAMETERS", 100_000)
    figures = masks.measure(5)
    check_complete("masks", figures)
