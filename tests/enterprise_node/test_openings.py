"""What stands against opening a sum, as the record has it: each kind of set once, however many plans opened it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from enterprise_node.openings import SCHEMA, SCHEMA_2, earlier_openings, forgive, note_opening
from federation.secagg import DifferenceError, Opened, check_difference

VERSION = "sha256:1"
ALL = {"a": "A", "b": "B", "c": "C", "d": "D"}
DATA = dict.fromkeys(ALL, "passes 1")


def opened(plan: str, members: str = "abcd", **more: object) -> Opened:
    chosen = {node: ALL[node] for node in members}
    return Opened(plan, "cells", "", chosen, {node: DATA[node] for node in chosen}, **more)  # type: ignore[arg-type]


@pytest.fixture
def record() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in (*SCHEMA, *SCHEMA_2):
            connection.execute(statement)
        yield connection


def test_plans_that_opened_alike_sets_are_told_once(record: sqlite3.Connection) -> None:
    for number in range(300):
        note_opening(record, VERSION, opened(f"plan-{number}"), 1)
    note_opening(record, VERSION, opened("other", "abc"), 1)
    note_opening(record, VERSION, opened("noised", noised=True), 1)
    note_opening(record, "sha256:2", opened("elsewhere", "bcd"), 1)
    found = list(earlier_openings(record, VERSION, opened("mine")))
    assert sorted(("".join(one.members), one.noised) for one in found) == [
        ("abc", False),
        ("abcd", False),
        ("abcd", True),
    ]
    with pytest.raises(DifferenceError, match="D differ"):
        check_difference(opened("mine"), found)


def test_a_plan_s_own_sets_are_told_as_its_own(record: sqlite3.Connection) -> None:
    note_opening(record, VERSION, opened("mine", "abc"), 1)
    found = list(earlier_openings(record, VERSION, opened("mine")))
    assert {one.plan for one in found} == {"mine"}
    with pytest.raises(DifferenceError, match="does not come back"):
        check_difference(opened("mine"), found)
    check_difference(opened("mine", "abc"), earlier_openings(record, VERSION, opened("mine", "abc")))


def test_readings_stand_beside_the_sets_they_were_read_for(record: sqlite3.Connection) -> None:
    for number, rows in enumerate(("5", "5", "6")):
        note_opening(record, VERSION, opened(f"plan-{number}", readings=({"": rows},)), 1)
    (one,) = earlier_openings(record, VERSION, opened("mine"))
    assert sorted(reading[""] for reading in one.readings) == ["5", "6"]
    with pytest.raises(DifferenceError, match="rows of this live source changed"):
        check_difference(opened("mine", readings=({"": "5"},)), [one])
    forgive(record, VERSION)
    assert list(earlier_openings(record, VERSION, opened("mine"))) == []
