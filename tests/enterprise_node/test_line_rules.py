"""Rules and sources on the whole line: what INTENT and receipt name, what agreements pin, what a job cannot reach."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pyarrow.parquet as pq
import pytest

from enterprise_node.datasets import inspect_source
from enterprise_node.rules import Rules, parse_rules
from federation.errors import UsageError
from federation.statements import DatasetDescription, Envelope
from keyong import previewing, registering

RULES = "[columns.x]\nrule = 'round'\nstep = 5\n[columns.y]\nrule = 'drop'"


def seen(world: Any) -> dict[str, list[Any]]:
    """What the job's session was given."""
    folder = world.sessions[-1].request.snapshot.folder
    found: dict[str, list[Any]] = pq.read_table(folder / "data.parquet").to_pydict()
    return found


async def test_intent_and_receipt_name_the_rules_that_the_job_sees_the_data_under(world: Any) -> None:
    rules = parse_rules(RULES)
    before = world.store.dataset("passes").data_version
    registering.set_rules(world.home, "passes", rules)
    row = world.store.dataset("passes")
    described = DatasetDescription.read(Envelope.from_bytes(row.description))
    assert [one.name for one in described.columns] == ["x"] and described.rules == rules.digest
    assert row.data_version == described.data_version != before
    plan = world.plan(world.agreement())
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok" and receipt.rules == rules.digest
    assert seen(world) == {"x": [7530.0, 5.0, 5.0]}
    assert [entry["rules"] for entry in world.entries("intent")] == [rules.digest]
    assert world.entries("dataset")[-1]["rules"] == rules.digest
    # Other rules are another version: the plan's next step is refused.
    registering.set_rules(world.home, "passes", Rules({}))
    receipt, _ = await world.invoke(plan, 2)
    assert (receipt.outcome, receipt.code) == ("denied", "data-version")


async def test_an_agreement_may_name_the_rules(world: Any) -> None:
    rules = parse_rules(RULES)
    agreement = world.agreement(rules=rules.digest)
    opened = await world.open(world.plan(agreement))
    assert (opened.permitted, opened.code) == (False, "rules"), "under no rules"
    registering.set_rules(world.home, "passes", rules)
    plan = world.plan(agreement)
    assert (await world.open(plan)).permitted
    receipt, _ = await world.invoke(plan)
    assert receipt.outcome == "ok"
    registering.set_rules(world.home, "passes", parse_rules(RULES.replace("5", "50")))
    assert (await world.open(world.plan(agreement))).code == "rules"


async def test_a_dropped_column_cannot_be_granted(world: Any) -> None:
    registering.set_rules(world.home, "passes", parse_rules(RULES))
    opened = await world.open(world.plan(world.agreement(columns=["y"])))
    assert not opened.permitted
    plan = world.plan(world.agreement(columns=["x", "y"]))
    await world.open(plan)
    await world.invoke(plan)
    assert set(seen(world)) == {"x"}


async def test_a_source_that_fails_is_on_record_and_tells_the_requester_a_code_alone(world: Any) -> None:
    path = world.base / "plant.sqlite"
    with closing(sqlite3.connect(path)) as one:
        one.execute("CREATE TABLE t AS SELECT 1.5 AS x, 2 AS y")
        one.commit()
    found = inspect_source(path, table="t")
    described = registering.describe_dataset(world.home, found, dataset="passes", title="Passes")
    registering.register(world.home, found, described)
    plan = world.plan(world.agreement())
    await world.open(plan)
    assert (await world.invoke(plan))[0].outcome == "ok" and seen(world) == {"x": [1.5], "y": [2]}
    with closing(sqlite3.connect(path)) as one:
        one.execute("DROP TABLE t")
    other = world.plan(world.agreement())
    await world.open(other)
    receipt, answer = await world.invoke(other)
    assert (receipt.outcome, receipt.code, answer.body) == ("failed", "source-query", ())
    assert [entry["outcome"] for entry in world.entries("outcome")] == ["ok", "failed"]
    assert world.record.open_steps() == []


async def test_a_preview_shows_what_the_agreement_shows_and_is_on_record(world: Any) -> None:
    registering.set_rules(world.home, "passes", parse_rules("[columns.x]\nrule = 'round'\nstep = 5"))
    agreement = world.agreement(columns=["x"])
    one = previewing.preview_dataset(world.home, "passes", 2, agreement.digest)
    assert one.head == ((7530.0,), (5.0,)) and (one.rows, one.withheld, one.dropped) == (3, ("y",), ())
    (column,) = one.columns
    assert (column.changed, column.missing, column.least, column.greatest) == (3, 0, "5.0", "7530.0")
    everything = previewing.preview_dataset(world.home, "passes", 0, None)
    assert [seen.column.name for seen in everything.columns] == ["x", "y"] and everything.head == ()
    assert [entry["what"] for entry in world.entries("owner")] == ["preview", "preview"]
    assert not any("7530" in str(entry) for entry in world.entries("owner"))
    plan = world.plan(agreement)
    await world.open(plan)
    receipt, _ = await world.invoke(plan)
    assert receipt.snapshot == one.snapshot, "the very snapshot that a job gets"
    assert list(world.home.folder("spool").iterdir()) == []
    with pytest.raises(UsageError):
        previewing.preview_dataset(world.home, "passes", 2, "0000")


async def test_what_the_rules_keep_is_the_owners(world: Any) -> None:
    registering.set_rules(world.home, "passes", parse_rules("[columns.y]\nrule = 'codes'\nprefix = 'Y'"))
    plan = world.plan(world.agreement())
    await world.open(plan)
    await world.invoke(plan)
    kept = previewing.kept_of_rules(world.home, "passes")
    assert {one["value"]: one["code"] for one in kept["codes"]} == dict(zip("123", seen(world)["y"], strict=True))
    folder = world.sessions[-1].request.snapshot.folder
    assert sorted(path.name for path in folder.iterdir()) == ["data.parquet", "schema.json"]
    assert world.entries("owner")[-1]["what"] == "rules-export"
