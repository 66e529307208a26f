"""Whose turn it is among members whose jobs wait."""

from __future__ import annotations

from collections import Counter

from coordinator.turns import Turns


def served(turns: Turns, at_once: int) -> list[str]:
    """Run everything, the oldest running job ending each time a place is wanted; the order in which jobs began."""
    running: list[str] = []
    order = []
    while len(turns):
        if len(running) == at_once:
            running.pop(0)
        job = turns.take(Counter(one[0] for one in running))
        running.append(job)
        order.append(job)
    return order


def test_fifty_jobs_of_one_do_not_keep_anothers_one_waiting() -> None:
    turns = Turns()
    for number in range(50):
        turns.add("a", f"a{number}")
    assert turns.take({}) == "a0"
    turns.add("b", "b0")
    assert turns.order({"a": 4})[0] == "b0"
    assert turns.take({"a": 4}) == "b0"


def test_members_take_turns_and_each_ones_jobs_keep_their_order() -> None:
    turns = Turns()
    for number in range(4):
        turns.add("a", f"a{number}")
    for number in range(2):
        turns.add("b", f"b{number}")
        turns.add("c", f"c{number}")
    assert served(turns, 1) == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "a3"]


def test_where_others_wait_each_has_an_equal_share_of_what_runs() -> None:
    turns = Turns()
    for number in range(20):
        turns.add("a", f"a{number}")
    running: Counter[str] = Counter()
    for _ in range(4):
        running[turns.take(running)[0]] += 1
    assert running == {"a": 4}, "nobody else waits: one may have it all"
    for number in range(20):
        turns.add("b", f"b{number}")
    for _ in range(12):
        running["a" if running["a"] >= running["b"] else "b"] -= 1
        running[turns.take(running)[0]] += 1
    assert running == {"a": 2, "b": 2}


def test_places_are_the_order_in_which_they_come_to_their_turn() -> None:
    turns = Turns()
    for name in ("a0", "a1", "b0", "a2", "c0"):
        turns.add(name[0], name)
    told = turns.order({"b": 1})
    assert told == served(turns, 100) or told[:2] == ["a0", "c0"]
    assert sorted(told) == ["a0", "a1", "a2", "b0", "c0"]


def test_a_job_that_is_cancelled_leaves_its_place() -> None:
    turns = Turns()
    turns.add("a", "a0")
    turns.add("a", "a1")
    turns.remove("a", "a0")
    turns.remove("a", "never")
    assert turns.order({}) == ["a1"] and len(turns) == 1
