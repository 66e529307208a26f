"""inv3, inv4, inv8: a job that was written to steal gets nothing, and what holds it off shows when a layer is taken away.

Here all acts share a session, each in a process of its own; ``make attack`` gives each attack a job of its own, with a
session, an INTENT and an OUTCOME, at every tier, and takes the layers away one by one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from federation.errors import KeyongError
from keyong import runtime as runtimes
from sandbox import Report, SandboxError, Tier, _bubblewrap, _kernel, probe, prove_tier
from sandbox._cgroup import open_group
from tests.adversarial.attacks.ground import Ground, Result, catalogue, ground
from tests.adversarial.attacks.table import LAYERS, PAGES, SECOND_WALLS, written

EVERY = os.environ.get("KEYONG_ATTACK") == "1"
ATTACKS = catalogue()
ACTS = [one.name for one in ATTACKS.values() if one.kind == "act"]
OTHERS = [one.name for one in ATTACKS.values() if one.kind != "act"]
QUICK = ["replies.value_in_a_name", "replies.hidden_zeros", "replies.exception_text", "resources.memory_bomb"]
PAIRS = {
    ("network-namespace", "landlock"): {"network.abstract_socket", "network.datagram_pair"},
    ("network-namespace", "seccomp", "landlock"): {"network.tcp", "network.udp_out"},
}
"""What second walls hold off once the first is gone."""
USERS_ALONE = frozenset({"files.chmod_data", "files.utime_data"})
"""What a read-only mount alone holds off where an ordinary user runs the node, whose files the data are."""
every = pytest.mark.skipif(not EVERY, reason="a part of `make attack`")


@pytest.fixture(scope="module")
def machine() -> Report:
    try:
        runtimes.load()
    except KeyongError as error:
        pytest.skip(f"the runtime is not built: {error}")
    report = probe()
    if Tier.T2 not in report.tiers:
        pytest.skip("this machine has no T2: " + str(report.refusals))
    return report


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(machine: Report) -> AsyncIterator[Ground]:
    with ground(seconds=30) as here:
        yield here
        await here.world.line.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def weaker_node(machine: Report) -> AsyncIterator[Ground]:
    if os.geteuid() != 0:
        pytest.skip("T1 needs root")
    with ground(Tier.T1, seconds=30) as here:
        yield here
        await here.world.line.close()


def judge(node: Ground, result: Result, tier: Tier = Tier.T2) -> None:
    """The attacker got nothing, and the owner has it on record: INTENT, OUTCOME with a code, and the job's own words."""
    assert result.recorded, "the ledger lacks INTENT or OUTCOME"
    if str(tier) in ATTACKS[result.name].conceded:
        return
    assert result.blocked, (result, node.errors())
    if ATTACKS[result.name].kind == "act":
        assert result.outcome in ("ok", "failed"), result


@pytest.mark.asyncio(loop_scope="module")
async def test_acts(node: Ground) -> None:
    assert len(ATTACKS) >= 60
    found = await node.attack(*ACTS)
    assert {one.name for one in found} == set(ACTS)
    for result in found:
        judge(node, result)


@pytest.mark.parametrize("name", [*([] if EVERY else QUICK), *(OTHERS if EVERY else [])])
@pytest.mark.asyncio(loop_scope="module")
async def test_attack(node: Ground, name: str) -> None:
    judge(node, (await node.attack(name))[0])


@every
@pytest.mark.parametrize("name", ACTS)
@pytest.mark.asyncio(loop_scope="module")
async def test_act_in_a_session_of_its_own(node: Ground, name: str) -> None:
    judge(node, (await node.attack(name))[0])


@every
@pytest.mark.parametrize("name", [*ACTS, *OTHERS])
@pytest.mark.asyncio(loop_scope="module")
async def test_attack_without_namespaces(weaker_node: Ground, name: str) -> None:
    (result,) = await weaker_node.attack(name)
    judge(weaker_node, result, Tier.T1)
    if "T1" in ATTACKS[name].conceded:
        assert not result.blocked, "the page concedes what is held off"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stronger_node(machine: Report) -> AsyncIterator[Ground]:
    if Tier.T3 not in machine.tiers:
        pytest.skip("this machine has no T3: " + machine.refusals[Tier.T3])
    with ground(Tier.T3, seconds=90) as here:
        yield here
        await here.world.line.close()


@every
@pytest.mark.asyncio(loop_scope="module")
async def test_acts_on_gvisors_kernel(stronger_node: Ground) -> None:
    found = await stronger_node.attack(*ACTS)
    assert {one.name for one in found} == set(ACTS)
    for result in found:
        judge(stronger_node, result, Tier.T3)
    succeeded = {one.name for one in found if not one.blocked}
    assert succeeded == {one.name for one in ATTACKS.values() if "T3" in one.conceded and one.kind == "act"}


@every
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.asyncio(loop_scope="module")
async def test_attack_on_gvisors_kernel(stronger_node: Ground, name: str) -> None:
    judge(stronger_node, (await stronger_node.attack(name))[0], Tier.T3)


@pytest.mark.parametrize("layer", [name for name in LAYERS if EVERY or name in ("seccomp", "landlock")])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_layer_holds_off_what_nothing_else_does(machine: Report, layer: str) -> None:
    """A suite that cannot fail proves nothing: without this layer exactly these succeed."""
    expected = {one.name for one in ATTACKS.values() if layer in one.only}
    assert expected, f"{layer} holds nothing off alone: say why it is a second wall"
    if layer == "pid-namespace" and (group := open_group()) is not None:
        group.remove()
        expected.add(
            "files.read_cgroup"
        )  # its own is hidden as that of process 1; where there is no group, there is no name
    with ground(without=[layer], seconds=6) as here:
        found = await here.attack(*ACTS)
        for name in sorted(expected - set(ACTS)):
            found += await here.attack(name)
        await here.world.line.close()
    assert {one.name for one in found if not one.blocked} == expected


@every
@pytest.mark.parametrize("layer", SECOND_WALLS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_wall_is_one(machine: Report, layer: str) -> None:
    with ground(without=[layer]) as here:
        found = await here.attack(*ACTS)
        await here.world.line.close()
    alone = USERS_ALONE if layer == "read-only" and os.geteuid() else frozenset()
    assert {one.name for one in found if not one.blocked} == alone


@every
@pytest.mark.parametrize("layers", PAIRS, ids=" ".join)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_second_wall_holds_once_the_first_is_gone(machine: Report, layers: tuple[str, ...]) -> None:
    succeeded = []
    for left_out in (layers, layers[1:]):
        with ground(without=left_out) as here:
            succeeded.append({one.name for one in await here.attack(*ACTS) if not one.blocked})
            await here.world.line.close()
    gone, held = succeeded
    assert PAIRS[layers] <= gone
    assert not PAIRS[layers] & held


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bubblewrap that is told by the kernel what it is told where user namespaces are blocked."""
    real = _bubblewrap.find_bubblewrap().path
    fake = tmp_path / "bwrap"
    fake.write_text(
        f'#!/bin/sh\ncase "$1" in --version|--help) exec {real} "$@";; esac\n'
        'echo "bwrap: No permissions to create new namespace" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)  # the session's own user starts it
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))


def test_inv8_where_namespaces_are_blocked_root_has_t1_if_that_was_accepted(no_namespaces: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert prove_tier(Tier.T1) is Tier.T1
    with pytest.raises(SandboxError, match="namespace"):
        prove_tier(Tier.T2)


def test_inv8_where_namespaces_are_blocked_an_ordinary_user_has_nothing(no_namespaces: None) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user")
    for floor in (Tier.T1, Tier.T2):
        with pytest.raises(SandboxError) as caught:
            prove_tier(floor)
        assert caught.value.hint


@pytest.mark.parametrize("floor", [Tier.T1, Tier.T2])
def test_inv8_without_landlock_nothing_runs(monkeypatch: pytest.MonkeyPatch, floor: Tier) -> None:
    monkeypatch.setattr(_kernel, "landlock_abi", lambda: 0)
    with pytest.raises(SandboxError, match="Landlock") as caught:
        prove_tier(floor)
    assert "lsm=" in caught.value.hint or os.geteuid()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name)
def test_the_page_has_the_table(path: Path) -> None:
    page, words = path.read_text(encoding="utf-8"), PAGES[path]
    if os.environ.get("KEYONG_GOLDEN") == "write":
        path.write_text(written(page, words), encoding="utf-8")
        page = written(page, words)
    assert page == written(page, words), "write it anew: KEYONG_GOLDEN=write, and this test"
