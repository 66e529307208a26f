"""Who holds the root key enters members of its own under the names of companies that a node's owner accepted, or exchanges keys.

Each fails against the code as it is, and succeeds where acceptance is of a name alone, as it once was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enterprise_node import acceptance
from enterprise_node.acceptance import Acceptances
from enterprise_node.datasets import inspect_source
from enterprise_node.service import NodeService
from enterprise_node.store import AcceptedMember
from federation.home import Home, Identity, NewKeys
from federation.jobs.codec import Content
from federation.statements import Member, Roster
from keyong import registering
from tests import masked
from tests.masked import MaskedWorld, masked_world, trained

WEAK = pytest.mark.parametrize("weak", [False, True], ids=["as-it-is", "by-name"])


def enter(world: MaskedWorld, *members: Member, instead: bool = False) -> None:
    """Sign a roster with these members, or with these for those of the same id, and push it to all."""
    old = world.institute.history
    kept = [one for one in old.latest.members if not instead or one.id not in {member.id for member in members}]
    values = old.latest.model_dump() | {"version": old.latest.version + 1, "previous": old.digest}
    values["members"] = [one.model_dump() for one in (*kept, *members)]
    root = world.keys["inst"].root
    assert root is not None
    roster = Roster.model_validate(values).seal(root)
    world.institute.learn(roster)
    for home in world.homes.values():
        home.learn(roster)


def shadow(world: MaskedWorld, name: str, entity: str) -> Member:
    """A member of the attacker's under a company's name, and its keys."""
    world.keys[name] = NewKeys(name, root=False)
    return masked._member(name, entity, world.keys[name])


def serve(world: MaskedWorld, name: str, entity: str) -> None:
    """Its node, which accepts everybody."""
    history = world.institute.history
    identity = Identity(
        consortium=history.latest.consortium, name="Test", fingerprint=history.fingerprint, member=name, entity=entity,
        roles=("member",), coordinator="inst", address="127.0.0.1:1",
    )  # fmt: skip
    home = world.homes[name] = Home.create(world.base / name, identity, world.keys[name], list(history.envelopes))
    (world.base / f"{name}.csv").write_text("x,y\n1.5,1\n2.5,2\n3.5,3\n")
    source = inspect_source(world.base / f"{name}.csv")
    registering.register(home, source, registering.describe_dataset(home, source, dataset="passes", title="Passes"))
    service = world.nodes[name] = NodeService(home, masked.RUNTIME)
    world.versions[name] = service._store.dataset("passes").data_version
    for one in history.latest.members:
        service._store.accept(one, "2026-01-01T00:00:00Z")
    world.agreements[name] = masked._agree(world, name, history.digest)


def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is of an entity that was accepted counts."""

    def judge(self: Acceptances, member: Member, kept: AcceptedMember | None, entities: set[str]) -> acceptance.Peer:
        return acceptance.Peer(member, accepted=member.entity in entities, waiting="")

    monkeypatch.setattr(Acceptances, "_judge", judge)


@WEAK
async def test_members_entered_under_accepted_names_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """A cohort of one company and two of the attacker's: what its sum says is that company's."""
    if weak:
        by_name(monkeypatch)
    with masked_world(tmp_path, monkeypatch, mills=3) as world:
        names = {"shadow-b": "mill-b Ltd", "shadow-c": "mill-c Ltd"}
        enter(world, *(shadow(world, name, entity) for name, entity in names.items()))
        for name, entity in names.items():
            serve(world, name, entity)

        async def opened(folder: Path, request: Any, *rest: Any) -> masked.Session:
            return masked.Session(
                request, next(one for one in world.nodes if folder.is_relative_to(tmp_path / one)), world
            )

        monkeypatch.setattr(masked.JobSession, "open", opened)

        def reply(node: str, sent: Content) -> Content:
            nothing = Content(arrays=sent.arrays, metrics={"metrics": {"loss": 0.0, "num-examples": 3}})
            return trained(node, sent) if node == "mill-a" else nothing

        world.reply = reply
        job = await world.job(world.plan(["mill-a", *names])).open()
        if weak:
            done = await job.exchange(world.model())
            alone = 3 * done.aggregate.arrays["arrays"]["w"].astype(float)  # type: ignore[union-attr]
            assert np.allclose(alone, trained("mill-a", world.model()).arrays["arrays"]["w"], atol=1e-4)
        else:
            assert job.cohort.out["mill-a"] == "min-participants"
            waiting = {one.member.id: one.waiting for one in registering.peers_of(world.homes["mill-a"]) if one.waiting}
            assert waiting == {"shadow-b": "new", "shadow-c": "new"}
        for name in names:
            world.stop(name)


@WEAK
async def test_another_key_of_an_accepted_company_waits_for_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    if weak:
        by_name(monkeypatch)
    with masked_world(tmp_path, monkeypatch, mills=3) as world:
        enter(world, shadow(world, "mill-c", "mill-c Ltd"), instead=True)
        job = await world.job(world.plan()).open()
        assert (job.cohort.out.get("mill-a") == "min-participants") is not weak
        if weak:
            return
        home = world.homes["mill-a"]
        assert {one.member.id: one.waiting for one in registering.peers_of(home) if one.waiting} == {"mill-c": "key"}
        assert [one.id for one in registering.accept_entities(home, ["mill-c Ltd"])] == ["mill-c"]
        job = await world.job(world.plan(), "accepted").open()
        assert "mill-a" not in job.cohort.out


async def test_an_entity_counts_only_with_each_of_its_nodes_in_the_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its accepted node would vouch for the other one, and then drop out."""
    with masked_world(tmp_path, monkeypatch, mills=3) as world:
        enter(world, shadow(world, "shadow-c", "mill-c Ltd"))
        acceptances = Acceptances(world.homes["mill-a"], world.nodes["mill-a"]._store)
        cohort = {mill: f"{mill} Ltd" for mill in world.mills}
        assert acceptances.entities(cohort) == set(cohort.values())
        assert acceptances.entities(cohort | {"shadow-c": "mill-c Ltd"}) == {"mill-a Ltd", "mill-b Ltd"}
