"""Attacks by adding and taking away sums that were opened one by one: each fails against the code as it is, and succeeds
where the rule it is up against is taken away.

The attacker is the coordinator together with the requester, who choose cohorts, contents and who is said to have vanished.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node.datasets import inspect_source
from enterprise_node.record import Record
from enterprise_node.service import NodeService
from federation.errors import KeyongError
from federation.jobs.codec import Content
from federation.ledger import Ledger
from federation.secagg import multiplier_for, noised_encoding, threshold
from federation.statements import MetricSpec, OutputSchema, StageOutput
from keyong import registering
from keyong.backing_up import back_up
from keyong.restoring import restore
from tests.masked import RUNTIME, MaskedWorld, masked_world, trained

WEAK = pytest.mark.parametrize("weak", [False, True], ids=["as-it-is", "without-the-rule"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    with masked_world(tmp_path, monkeypatch) as world:
        yield world


def update_of(mill: str, world: MaskedWorld) -> Any:
    return trained(mill, world.model()).arrays["arrays"]["w"]


def sum_of(done: Any) -> Any:
    return len(done.contributed) * done.aggregate.arrays["arrays"]["w"].astype(float)


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enterprise_node.record.check_difference", lambda *_: None)


@WEAK
async def test_three_sums_that_are_far_apart_isolate_one_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """``{a,b,c} + {a,d,e} - {b,c,d,e}`` is twice ``a``, and any two of the three differ by three companies or more."""
    if weak:
        take_away(monkeypatch)
    sums = []
    with masked_world(tmp_path, monkeypatch, mills=5) as world:
        for cohort in ("abc", "ade", "bcde"):
            job = await world.job(world.plan([f"mill-{one}" for one in cohort]), cohort).open()
            if sums and not weak:
                assert "differencing" in job.cohort.out.values()
                with pytest.raises(KeyongError):
                    await job.exchange(world.model())
                continue
            sums.append(sum_of(await job.exchange(world.model())))
        if weak:
            assert np.allclose((sums[0] + sums[1] - sums[2]) / 2, update_of("mill-a", world), atol=1e-4)
            return
        assert len(sums) == 1
        again = await (await world.job(world.plan(["mill-a", "mill-b", "mill-c"]), "again").open()).exchange(
            world.model(1)
        )
        assert again.contributed == ["mill-a", "mill-b", "mill-c"], "the same set, as often as agreements permit"
        for mill in "abc":
            world.nodes[f"mill-{mill}"]._record.forgive(world.versions[f"mill-{mill}"], "passes")
        allowed = await world.job(world.plan(["mill-a", "mill-d", "mill-e"]), "allowed").open()
        assert not allowed.cohort.out, "the owners' word"


@WEAK
async def test_another_version_of_one_company_s_data_counts_as_another_company(
    world: MaskedWorld, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Between two jobs mill-d registers data of which its update is nothing: the difference is its update on the others."""
    if weak:
        take_away(monkeypatch)
    first = sum_of(await (await world.job(world.plan(), "one").open()).exchange(world.model()))
    home = world.homes["mill-d"]
    (world.base / "mill-d.csv").write_text("x,y\n0.0,0\n0.0,0\n0.0,0\n")
    source = inspect_source(world.base / "mill-d.csv")
    registering.register(home, source, registering.describe_dataset(home, source, dataset="passes", title="Passes"))
    world.versions["mill-d"] = world.nodes["mill-d"]._store.dataset("passes").data_version
    world.reply = lambda mill, sent: trained(mill, sent) if mill != "mill-d" else trained("none", sent)
    job = await world.job(world.plan(), "two").open()
    if not weak:
        assert job.cohort.out == dict.fromkeys(("mill-a", "mill-b", "mill-c"), "differencing")
        return
    change = first - sum_of(await job.exchange(world.model()))
    assert np.allclose(change, update_of("mill-d", world) - update_of("none", world), atol=1e-4)


def live(world: MaskedWorld, mill: str, rows: int) -> None:
    """Let a mill's passes be those of a database, with so many rows."""
    path = world.base / f"{mill}.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS t (x REAL, y INTEGER)")
        database.execute("DELETE FROM t")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(one + 0.5, one) for one in range(rows)])
    if world.nodes[mill]._store.dataset("passes").path != str(path):
        home, source = world.homes[mill], inspect_source(path, table="t")
        registering.register(home, source, registering.describe_dataset(home, source, dataset="passes", title="Passes"))
        world.versions[mill] = world.nodes[mill]._store.dataset("passes").data_version


@WEAK
async def test_a_live_source_that_changed_is_read_into_no_second_sum(
    world: MaskedWorld, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Its version stays, so the others see no change; its own node does."""
    if weak:
        take_away(monkeypatch)
    live(world, "mill-d", 3)
    for name in ("one", "two"):
        done = await (await world.job(world.plan(), name).open()).exchange(world.model())
        assert len(done.contributed) == 4, "as long as its rows stay as they are"
    live(world, "mill-d", 4)
    job = await world.job(world.plan(), "three").open()
    assert not job.cohort.out
    if weak:
        assert len((await job.exchange(world.model())).contributed) == 4
        return
    with pytest.raises(KeyongError):
        await job.exchange(world.model())
    assert not any(call.method == "mask.open" for call in job.links.calls)
    assert ("killed", "differencing") in {
        (one.receipt.outcome, one.receipt.code) for one in world.answers if one.receipt.node == "mill-d"
    }
    vectors = [call.node for call, answer in job.links.answers if call.method == "job.invoke" and answer.body]
    assert "mill-d" not in vectors, "what was computed on the changed rows did not leave"
    world.nodes["mill-d"]._record.forgive(world.versions["mill-d"], "passes")
    done = await (await world.job(world.plan(), "four").open()).exchange(world.model())
    assert len(done.contributed) == 4, "its owner's word is enough: nobody else's data changed"


@WEAK
async def test_one_content_is_not_summed_twice_under_two_stages(
    world: MaskedWorld, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """A plan whose evaluation releases arrays: training with four, evaluation of the same content with three."""
    if weak:
        monkeypatch.setattr("enterprise_node.mask_rules.compared_stage", lambda _, stage: stage)
    arrays = StageOutput(sent=True, metrics=(MetricSpec(name="loss"), MetricSpec(name="num-examples")))
    plan = world.plan(outputs=OutputSchema(train=arrays, evaluate=arrays))
    job = await world.job(plan).open()
    first = await job.exchange(world.model(), "train")
    job.links.loses_answer = lambda call: (call.node, call.method) == ("mill-d", "job.invoke")
    if not weak:
        with pytest.raises(KeyongError):
            await job.exchange(world.model(), "evaluate")
        assert [call.method for call in job.links.calls].count("mask.open") == 4, "the first sum's alone"
        return
    second = await job.exchange(world.model(), "evaluate")
    assert np.allclose(sum_of(first) - sum_of(second), update_of("mill-d", world), atol=1e-4)


async def test_a_round_of_other_content_completes_without_who_vanished(world: MaskedWorld) -> None:
    """Within one plan: protocol, what is not shown. Another plan on the same data is refused afterwards, over either set."""
    job = await world.job(world.plan(), "one").open()
    await job.exchange(world.model())
    job.links.loses_answer = lambda call: (call.node, call.method) == ("mill-d", "job.invoke")
    for value in (1, 2):
        done = await job.exchange(world.model(value))
        assert done.contributed == world.mills[:3]
    for name, mills in (("all", world.mills), ("left", world.mills[:3])):
        later = await world.job(world.plan(mills), name).open()
        assert {later.cohort.out[mill] for mill in world.mills[:3]} == {"differencing"}, mills


@pytest.mark.parametrize(("when", "weak"), [("keys", False), ("vectors", False), ("vectors", True)])
async def test_a_sum_with_less_noise_than_is_paid_for_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool, when: str
) -> None:
    """The noise is shared out over seven; more are said to have vanished than it allows for, and those left would open."""
    n = 7
    if weak:
        monkeypatch.setattr("enterprise_node.mask_rules.check_enough_left", lambda *_: None)
    with masked_world(tmp_path, monkeypatch, mills=n, actions=["fed:train"]) as world:
        output = OutputSchema(train=StageOutput(sent=True), evaluate=StageOutput(sent=False))
        plan = world.plan(
            actions=("fed:train",), rounds=2, outputs=output, minimal_participants=3, micro_rho=100_000,
            encoding=noised_encoding(n, "1", multiplier_for(100_000, 2), n - threshold(n) + 1),
        )  # fmt: skip
        still = {"arrays": {"w": np.zeros(37, dtype=np.float32)}}
        world.reply = lambda mill, sent: Content(arrays=still)
        job = await world.job(plan).open()
        gone = set(world.mills[3:]) if when == "keys" else set(world.mills[5:])
        job.links.loses = lambda call: call.node in gone
        if when == "vectors":  # five of seven, and then four of these five
            assert len((await job.exchange(Content(arrays=still))).contributed) == 5
            gone |= set(world.mills[4:])
            still = {"arrays": {"w": np.ones(37, dtype=np.float32)}}
        if weak:
            left = len((await job.exchange(Content(arrays=still))).contributed)
            colluders = 2 * threshold(n) - n - 1
            assert left - colluders < n - threshold(n) + 1, "shares of the noise that are certain"
            return
        opened = [call.method for call in job.links.calls].count("mask.open")
        with pytest.raises(KeyongError):
            await job.exchange(Content(arrays=still))
        assert [call.method for call in job.links.calls].count("mask.open") == opened


def begin_anew(world: MaskedWorld, mill: str, *, carried: bool) -> None:
    """A mill's ledger is lost, and a new one begun; of the old file a copy from before the first sum is all there is."""
    home = world.homes[mill]
    origin = world.nodes[mill]._record.ledger.origin
    world.stop(mill)
    (home.path / "ledger").rename(home.path / "ledger-1")
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (home.path / "ledger-1" / name).unlink(missing_ok=True)
    (home.path / "ledger").mkdir(mode=0o700)
    Ledger.create(home.path / "ledger", origin, home.key("ledger")).close()
    if carried:
        with home.open_ledger() as ledger:
            Record(ledger).carry_openings(home.path / "ledger-1" / "ledger.db", [world.versions[mill]])
    world.nodes[mill] = NodeService(home, RUNTIME)


@WEAK
async def test_inv5_a_ledger_begun_anew_forgets_no_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Sums over four, and after every mill lost its ledger, over three of them: the difference is the fourth's part."""
    with masked_world(tmp_path, monkeypatch) as world:
        first = sum_of(await (await world.job(world.plan(), "one").open()).exchange(world.model()))
        for mill in world.mills:
            begin_anew(world, mill, carried=not weak)
        job = await world.job(world.plan(world.mills[:3]), "two").open()
        if weak:
            second = sum_of(await job.exchange(world.model()))
            assert np.allclose(first - second, update_of("mill-d", world), atol=1e-4)
            return
        assert job.cohort.out == dict.fromkeys(world.mills[:3], "differencing")
        same = await world.job(world.plan(), "same").open()
        assert set(same.cohort.out.values()) == {"differencing"}, "nor the same companies: nobody knows that they are"
        assert [one.members for one in world.nodes["mill-a"]._record.openings()] == [{}]
        for mill in world.mills:
            assert world.nodes[mill]._record.forgive(world.versions[mill], "passes") == 1
        allowed = await (await world.job(world.plan(), "allowed").open()).exchange(world.model())
        assert len(allowed.contributed) == 4, "the owners' word"


async def test_a_lost_ledger_s_file_still_tells_of_its_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file knows is carried over, its own set included; the owner's word on one of them stays the owner's word."""
    with masked_world(tmp_path, monkeypatch) as world:
        await (await world.job(world.plan(), "one").open()).exchange(world.model())
        lost = world.nodes["mill-a"]._record.ledger.folder / "ledger.db"
        known = world.nodes["mill-a"]._record.openings()
        (tmp_path / "new").mkdir()
        with Ledger.create(tmp_path / "new", "keyong/new/mill-a", world.homes["mill-a"].key("ledger")) as ledger:
            record = Record(ledger)
            assert record.carry_openings(lost, ["sha256:" + "e" * 64]) == len(known) == 1
            found = {(one.data_version, one.plan): one.members for one in record.openings()}
        version = world.versions["mill-a"]
        assert found[version, known[0].plan] == known[0].members
        assert found[version, "unknown"] == found["sha256:" + "e" * 64, "unknown"] == {}


@WEAK
async def test_inv5_a_restored_node_opens_nothing_beside_what_it_may_have_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Each mill is put back to a backup from before the first sum; the mark that restoring leaves is what refuses."""
    with masked_world(tmp_path, monkeypatch) as world:
        for mill in world.mills:
            back_up(world.homes[mill], tmp_path / f"{mill}.backup")
        first = sum_of(await (await world.job(world.plan(), "one").open()).exchange(world.model()))
        for mill in world.mills:
            world.stop(mill)
            old = world.homes[mill].path.rename(tmp_path / f"{mill}.old")
            again = restore(tmp_path / f"{mill}.backup", world.homes[mill].path).home
            shutil.copytree(old / "keys", again.path / "keys")
            if weak:
                again.mark_openings_lost(False)
            world.homes[mill], world.nodes[mill] = again, NodeService(again, RUNTIME)
            assert not again.openings_lost
        job = await world.job(world.plan(world.mills[:3]), "two").open()
        if weak:
            second = sum_of(await job.exchange(world.model()))
            assert np.allclose(first - second, update_of("mill-d", world), atol=1e-4)
            return
        assert job.cohort.out == dict.fromkeys(world.mills[:3], "differencing")


def test_a_backup_that_is_the_newest_state_has_forgotten_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with masked_world(tmp_path, monkeypatch) as world:
        home = world.homes["mill-a"]
        back_up(home, tmp_path / "copy")
        newest = (home.path / "ledger" / "ledger.checkpoint").read_bytes()
        assert not restore(tmp_path / "copy", tmp_path / "again", checkpoints=[newest]).home.openings_lost
        assert restore(tmp_path / "copy", tmp_path / "other").home.openings_lost
