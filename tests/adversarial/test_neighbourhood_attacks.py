"""Attacks on cohorts of neighbourhoods: each fails against the code as it is, and succeeds where the step it attacks is weakened.

The attacker is the coordinator with 21 nodes, who sit where it wants. Where the size does not matter, the graph has fewer
neighbours; the code is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enterprise_node.mask_rules import MaskRules
from federation.errors import KeyongError
from federation.secagg import (
    EncodedReply,
    Layout,
    MaskGraph,
    MaskingError,
    MaskKey,
    ShareError,
    SurvivorsError,
    choose_encoding,
    cohorts,
    colluders,
    mask_keys,
    residual_masks,
)
from federation.secagg.layout import ONE, WEIGHT
from federation.secagg.shamir import combine, from_bytes
from tests.federation.secagg.masked_cohort import OUTPUT, SENT, MaskedCohort, reply_of
from tests.masked import MaskedWorld, masked_world

LAYOUT = Layout.derive(SENT, OUTPUT)


def reply(cohort: MaskedCohort, seed: int = 1) -> EncodedReply:
    return reply_of(seed, LAYOUT, choose_encoding([(10, 100)] * cohort.n), cohort.n, 50)


def opens(vector: EncodedReply, keys: list[MaskKey]) -> bool:
    """Whether taking these masks away leaves one node's reply."""
    vector.mask([MaskKey(key.key, -key.sign) for key in keys])
    return int(vector.totals[ONE]) == 1 and int(vector.totals[WEIGHT]) == 50


def masks_of(cohort: MaskedCohort, victim: str, seed: int, private: int) -> list[MaskKey]:
    """All masks of a node, from both its secrets."""
    context, announcements = cohort.context(), cohort.announcements
    keys = [MaskKey(mask_keys.self_key(seed, context, victim), 1)]
    for other in announcements.graph.around(victim):
        if other != victim:
            key = mask_keys.pair_key(private, announcements.public(other, 0), context, victim, other)
            keys.append(MaskKey(key, cohort.scope.sign(victim, other)))
    return keys


@pytest.mark.parametrize("weak", [False, True])
def test_nobody_chooses_a_nodes_neighbourhood(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the neighbours named by the coordinator, it would name its 21 nodes alone, which then hold all shares."""
    n, victim = 66, "n00"
    allies = [f"n{at:02}" for at in range(1, 1 + colluders(n))]
    if weak:
        named = tuple(sorted([victim, *allies]))
        rest = tuple(f"n{at:02}" for at in range(len(named), n))
        monkeypatch.setattr(MaskGraph, "around", lambda _, node: named if node in named else rest)
        monkeypatch.setattr(MaskGraph, "threshold", cohorts.threshold(len(named)))
    cohort = MaskedCohort(n, rounds=1)
    graph = cohort.announcements.graph
    vector = reply(cohort)
    cohort.mask(victim, vector, cohort.context())
    held = {at: cohort.nodes[by]._held[0][victim] for at, by in enumerate(graph.around(victim), 1) if by in allies}
    if (
        not weak
    ):  # wherever it sits, 43 of its 64 neighbours are honest, and the allies hold less than half of what it takes
        assert len(set(graph.around(victim)) - {victim, *allies}) >= 43
        with pytest.raises(ShareError):
            combine({at: key for at, (key, _) in held.items()}, graph.threshold)
    need = min(graph.threshold, len(held))
    private, seed = (combine({at: pair[kind] for at, pair in held.items()}, need) for kind in (0, 1))
    assert opens(vector, masks_of(cohort, victim, seed, private)) is weak


@pytest.mark.parametrize("weak", [False, True])
def test_a_neighbours_seed_and_key_are_not_both_released(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both put together, from the shares of its neighbourhood alone, a single vector is bare."""
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 6)
    n, victim = 12, "n00"
    cohort = MaskedCohort(n, rounds=1)
    context, graph = cohort.context(), cohort.announcements.graph
    vector = reply(cohort)
    others = [name for name in cohort.scope.participants if name != victim]
    cohort.mask(victim, vector, context)
    for name in others:
        cohort.nodes[name].masks(1, 1, "train", context.content)
    holders = [name for name in graph.around(victim) if name != victim][: graph.threshold]
    found: list[dict[int, int]] = []
    for left in (frozenset(cohort.scope.participants), frozenset(others)):
        shares: dict[int, int] = {}
        for name in holders:
            held = dict(cohort.nodes[name]._held)
            if len(found) and not weak:
                with pytest.raises(MaskingError, match="no shares to release"):
                    cohort.nodes[name].release(1, 1, left)
                continue
            seeds, keys = cohort.nodes[name].release(1, 1, left)
            shares[graph.around(victim).index(name) + 1] = from_bytes(mask_keys.decode_key((seeds | keys)[victim]))
            if weak:  # nodes that forget nothing, and answer again
                cohort.nodes[name]._held = held
        found.append(shares)
    if weak:
        seed, private = (combine(shares, graph.threshold) for shares in found)
        assert opens(vector, masks_of(cohort, victim, seed, private))
    else:
        assert len(found[0]) == graph.threshold
        assert not found[1]


@pytest.mark.parametrize("weak", ["", "the check of neighbourhoods", "that and the threshold of shares"])
def test_dropouts_around_a_node_do_not_cut_it_off(weak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator says that a node's neighbours vanished, but for one that is its own: then its masks are all known."""
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 4)
    if "threshold" in weak:
        monkeypatch.setattr(MaskGraph, "threshold", 2)
    if weak:
        monkeypatch.setattr(MaskGraph, "thin", lambda *_: [])
    cohort = MaskedCohort(12, rounds=1)
    context, graph = cohort.context(), cohort.announcements.graph
    victim, gone, ally = graph.circle[2], {graph.circle[at] for at in (0, 1, 3)}, graph.circle[4]
    left = [name for name in cohort.scope.participants if name not in gone]
    assert len(left) >= cohort.scope.threshold
    known = cohort.nodes[ally]._masking[0].key
    replies = {name: reply(cohort, at) for at, name in enumerate(left)}
    inputs = [cohort.mask(name, one, context) for name, one in replies.items()]
    said = cohort.survivor_set(left, context)
    if not weak:
        with pytest.raises(SurvivorsError, match="fewer nodes are left"):
            cohort.acknowledge(victim, said, inputs, context)
        with pytest.raises(MaskingError, match="too few are left around"):
            cohort.nodes[victim].release(1, 1, frozenset(left))
        return
    acknowledged = [cohort.acknowledge(name, said, inputs, context) for name in left]
    released = {name: cohort.release(name, said, acknowledged, context) for name in left}
    if "threshold" not in weak:  # even then nobody has shares enough
        with pytest.raises(ShareError):
            residual_masks(cohort.announcements, context, frozenset(left), released)
        return
    keys = residual_masks(cohort.announcements, context, frozenset(left), released)
    own = [key for key in keys if key.key in {one.key for one in _residual_of(cohort, victim, left, released)}]
    key = mask_keys.pair_key(known, cohort.announcements.public(victim, 0), context, ally, victim)
    masks = [MaskKey(one.key, -one.sign) for one in own]
    assert opens(replies[victim], [*masks, MaskKey(key, cohort.scope.sign(victim, ally))])


def _residual_of(cohort: MaskedCohort, victim: str, left: list[str], released: Any) -> list[MaskKey]:
    """What the coordinator can put together of one node's masks alone: its seed, and the keys of vanished neighbours."""
    context, graph = cohort.context(), cohort.announcements.graph

    def secret(node: str, kind: str) -> int:
        shares = {
            at: from_bytes(mask_keys.decode_key(getattr(released[by], kind)[node]))
            for at, by in enumerate(graph.around(node), 1)
            if by in released
        }
        return combine(shares, graph.threshold)

    keys = [MaskKey(mask_keys.self_key(secret(victim, "seeds"), context, victim), 1)]
    for other in set(graph.around(victim)) - set(left):
        public = cohort.announcements.public(victim, 0)
        keys.append(MaskKey(mask_keys.pair_key(secret(other, "keys"), public, context, other, victim), 1))
    return keys


# -- through the coordinator and its nodes -------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 4)
    with masked_world(tmp_path, monkeypatch, mills=8) as world:
        yield world


@pytest.mark.parametrize("weak", [False, True])
async def test_a_neighbourhood_of_one_company_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    """Six of eight nodes are one company's: there are three in the cohort, but not around each of the others."""
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 4)
    sham = {f"mill-{letter}": "Sham Ltd" for letter in "cdefgh"}
    with masked_world(tmp_path, monkeypatch, mills=8, entities=sham) as world:
        # seated here, so that the test does not depend on where the circle seats them
        seats = tuple(f"mill-{letter}" for letter in "acdebfgh")
        monkeypatch.setattr(MaskGraph, "circle", seats)
        if weak:
            monkeypatch.setattr(MaskRules, "check_neighbourhood", lambda *_: None)
        job = await world.job(world.plan()).open()
        if weak:
            assert (await job.exchange(world.model())).aggregate is not None
        else:
            with pytest.raises(KeyongError, match="too few of 8 nodes"):
                await job.exchange(world.model())
            assert not world.calls  # no data was touched


async def test_inv5_no_second_sum_of_one_content_in_a_cohort_of_neighbourhoods(world: MaskedWorld) -> None:
    """After a dropout the same content is asked for again under another plan: the difference would be one company's."""
    job = await world.job(world.plan()).open()
    job.links.loses_answer = lambda call: (call.node, call.method) == ("mill-h", "job.invoke")
    first = await job.exchange(world.model())
    assert first.contributed == world.mills[:7]
    again = world.job(world.plan(), "again")
    await again.open()
    assert set(again.cohort.out.values()) == {"differencing"}
