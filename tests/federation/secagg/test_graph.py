"""Neighbourhoods: who has masks in common in a large cohort, and that no dropouts and colluders cut the survivors in two."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import secrets
from collections.abc import Collection

import pytest

from federation.crypto import SigningKey
from federation.secagg import (
    Accumulator,
    Announcements,
    Layout,
    MaskGraph,
    MaskingError,
    NodeMasks,
    Scope,
    ShareError,
    SurvivorsError,
    choose_encoding,
    cohorts,
    colluders,
    dropouts,
    dropouts_apart,
    neighbourhood,
    threshold,
)
from federation.statements import MASKED_COHORT, Envelope, KeyAnnouncement, RoundKeys
from federation.wire.messages import MaskShares, pack
from federation.wire.peer import HEADER_BYTES
from tests.federation.secagg.masked_cohort import LATER, NOW, OUTPUT, PLAN, ROSTER, SENT, MaskedCohort, reply_of

COHORT = "sha256:" + "c" * 64
LAYOUT = Layout.derive(SENT, OUTPUT)


def graph_of(n: int, cohort: str = COHORT) -> MaskGraph:
    return MaskGraph(tuple(f"n{at:03}" for at in range(n)), cohort)


def parts(graph: MaskGraph, nodes: Collection[str]) -> int:
    """How many parts of these nodes have no masks in common with each other."""
    left, count = set(nodes), 0
    while left:
        count += 1
        reached = [left.pop()]
        while reached:
            found = left.intersection(graph.around(reached.pop()))
            left -= found
            reached += found
    return count


def test_up_to_65_nodes_all_are_around_each() -> None:
    for n in (3, 4, 10, 64, 65):
        graph = graph_of(n)
        assert all(graph.around(node) == graph.participants for node in graph.participants)
        assert (graph.size, graph.threshold, neighbourhood(n)) == (n, threshold(n), n)
        assert (dropouts(n), colluders(n)) == (n - threshold(n), 2 * threshold(n) - n - 1)


def test_no_larger_cohort_survives_less_or_protects_less_than_one_of_64() -> None:
    assert (dropouts(64), colluders(64)) == (21, 21)
    for n in range(66, MASKED_COHORT + 1):
        assert (dropouts(n), colluders(n)) == (21, 21)
        assert 2 * threshold(n) - n > colluders(n)  # so no two survivor sets are both acknowledged


@pytest.mark.parametrize("n", [66, 67, 70, 99, 130, 131, 150])
def test_a_neighbourhood_is_32_on_either_side_of_a_circle(n: int) -> None:
    graph = graph_of(n)
    assert sorted(graph.circle) == list(graph.participants)
    for at, node in enumerate(graph.circle):
        around = graph.around(node)
        assert list(around) == sorted({graph.circle[(at + step) % n] for step in range(-32, 33)})
        assert len(around) == 65 == graph.size
        assert all(node in graph.around(other) for other in around)


def test_the_circle_is_what_the_protocol_says_and_nobody_names_it() -> None:
    """Recomputed from the text of docs/protocol.md with the standard library alone."""

    def place(node: str) -> str:
        text = json.dumps(
            {"cohort": COHORT, "node": node, "protocol": "keyong/masks/v1", "use": "graph"}, separators=(",", ":")
        )
        return hashlib.sha256(text.encode()).hexdigest()

    graph = graph_of(100)
    assert list(graph.circle) == sorted(graph.participants, key=place)
    assert graph_of(100, "sha256:" + "d" * 64).circle != graph.circle


@pytest.mark.parametrize("n", [5, 64, 66, 100])
def test_thin_neighbourhoods_are_those_that_counting_finds(n: int) -> None:
    graph, source = graph_of(n), random.Random(n)
    seen = set()
    for _ in range(60):
        nodes = set(source.sample(graph.participants, source.randint(n // 2, n)))
        counted = [node for node in graph.circle if len(nodes.intersection(graph.around(node))) < graph.threshold]
        assert sorted(graph.thin(nodes)) == sorted(counted)
        seen.add(bool(counted))
    assert seen == {True, False}


@pytest.mark.parametrize(("neighbours", "n"), [(4, 6), (4, 8), (4, 12), (6, 9)])
def test_inv5_whoever_vanishes_and_colludes_only_one_sum_opens(
    neighbours: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every survivor set that nodes accept beside every set of colluders, in the same graph with fewer neighbours."""
    monkeypatch.setattr(cohorts, "NEIGHBOURS", neighbours)
    graph, most = graph_of(n), colluders(n)
    assert graph.size == neighbours + 1 < n
    assert 2 * threshold(n) - n > most
    cut = []
    for size in range(threshold(n), n + 1):
        for left in itertools.combinations(graph.participants, size):
            if graph.thin(left):
                continue
            for bad in itertools.combinations(graph.participants, most):
                assert parts(graph, set(left) - set(bad)) == 1
            cut += [
                bad
                for bad in itertools.combinations(graph.participants, most + 1)
                if parts(graph, set(left) - set(bad)) > 1
            ]
    for node in graph.participants:  # its colluding holders cannot have both its seed and its key
        assert 2 * (graph.threshold - most) > graph.size - most
        assert len(graph.around(node)) == graph.size
    assert bool(cut) is (n == 12)  # where neighbourhoods lie apart, one more colluder cuts some set


def gaps(graph: MaskGraph, gone: int) -> tuple[set[str], list[str]]:
    """Survivors of a cohort in which two runs of 32 seats lose so many each, and those who are left in the runs."""
    circle = graph.circle
    runs = [circle[1:33], circle[len(circle) // 2 + 1 :][:32]]
    left = set(circle) - {node for run in runs for node in run[:gone]}
    return left, [node for run in runs for node in run[gone:]]


def test_inv5_two_runs_of_dropouts_and_21_colluders_leave_one_sum() -> None:
    graph = graph_of(150)
    left, between = gaps(graph, 21)
    assert graph.thin(left) == []
    assert len(between) == 22
    for spared in between:
        assert parts(graph, left - (set(between) - {spared})) == 1
    assert parts(graph, left - set(between)) == 2  # what one more could do
    fewer, _ = gaps(graph, 22)
    assert graph.thin(fewer)  # and 22 dropouts in a run are refused: shares there are too few


def plan_of_dropouts(n: int, source: random.Random, cohort: MaskedCohort) -> tuple[list[str], list[str], list[str]]:
    """Who vanishes before masking, before acknowledging, and before releasing: as many as any round survives."""
    circle = cohort.announcements.graph.circle
    at = source.randrange(n)
    run = [circle[(at + step) % n] for step in range(dropouts(n))]
    gone = run if source.random() < 0.5 else source.sample(circle, dropouts(n))
    source.shuffle(gone)
    first, second = sorted(source.sample(range(len(gone) + 1), 2))
    return gone[:first], gone[first:second], gone[second:]


def check_exact(n: int, seed: int) -> None:
    source = random.Random(seed)
    cohort = MaskedCohort(n, rounds=1)
    before, silent, mute = plan_of_dropouts(n, source, cohort)
    encoding = choose_encoding([(10, 100)] * n)
    plain = Accumulator(LAYOUT, encoding, n)
    left = [name for name in cohort.scope.participants if name not in before]
    weights = {name: source.randint(10, 100) for name in left}
    replies = {}
    for at, name in enumerate(left):
        plain.add(reply_of(seed + at, LAYOUT, encoding, n, weights[name]))
        replies[name] = reply_of(seed + at, LAYOUT, encoding, n, weights[name])
    expected = plain.finish(len(left), SENT)
    opened = cohort.run(replies, LAYOUT, encoding, SENT, silent=silent, mute=mute)
    assert (opened.count, opened.total_weight, opened.metrics) == (len(left), sum(weights.values()), expected.metrics)
    for name, array in expected.arrays["arrays"].items():
        assert (opened.arrays["arrays"][name] == array).all()


def test_inv5_a_large_cohorts_masked_sum_is_the_plain_sum_to_the_last_bit() -> None:
    check_exact(66, 7)


@pytest.mark.long
@pytest.mark.parametrize("n", [65, 66, 67, 80, 97, 100, 128, 149, 150])
@pytest.mark.parametrize("seed", [1, 2])
def test_inv5_so_is_that_of_any_larger_one_whoever_vanishes_when(n: int, seed: int) -> None:
    check_exact(n, seed * 1000 + n)


@pytest.mark.parametrize("n", [66, 67, 80, 100, 149, 150])
def test_so_many_may_vanish_evenly_spread_and_never_one_more(n: int) -> None:
    """One more is in more neighbourhoods than may lose that many, however they sit."""
    names = tuple(f"n{at:03}" for at in range(n))
    graph, most = MaskGraph(names, "sha256:" + "0" * 64), dropouts_apart(n)
    gone = {graph.circle[at * n // most] for at in range(most)}
    assert len(gone) == most and not graph.thin(set(names) - gone)
    assert most == n - threshold(n) or (most + 1) * graph.size > dropouts(n) * n


@pytest.mark.long
def test_more_may_vanish_where_they_sit_apart() -> None:
    n = 150
    cohort = MaskedCohort(n, rounds=1)
    most = dropouts_apart(n)
    gone = {cohort.announcements.graph.circle[at * n // most] for at in range(most)}
    assert len(gone) == most > 2 * dropouts(n)
    encoding = choose_encoding([(10, 100)] * n)
    left = [name for name in cohort.scope.participants if name not in gone]
    opened = cohort.run({name: reply_of(1, LAYOUT, encoding, n, 50) for name in left}, LAYOUT, encoding, SENT)
    assert opened.count == len(left)


def test_a_set_that_leaves_a_neighbourhood_too_thin_is_refused_and_opens_nothing() -> None:
    """The whole cohort's minimum holds, one neighbourhood's does not."""
    n = 70
    cohort = MaskedCohort(n, rounds=1)
    context, circle = cohort.context(), cohort.announcements.graph.circle
    gone = set(circle[:22])
    left = [name for name in cohort.scope.participants if name not in gone]
    assert len(left) >= threshold(n)
    encoding = choose_encoding([(10, 100)] * n)
    inputs = [cohort.mask(name, reply_of(1, LAYOUT, encoding, n, 50), context) for name in left]
    survivors = cohort.survivor_set(left, context)
    with pytest.raises(SurvivorsError, match="fewer nodes are left than the 44 of 65"):
        cohort.acknowledge(left[0], survivors, inputs, context)
    with pytest.raises(MaskingError, match="too few are left around"):
        cohort.nodes[left[0]].release(1, 1, frozenset(left))


def test_two_cohorts_shown_have_two_circles_and_what_is_shared_in_one_opens_in_no_other() -> None:
    """A coordinator with a node on its side shows one victim another announcement of that node than it shows the others."""
    keys = MaskedCohort(3).keys | {f"n{at:02}": SigningKey.generate() for at in range(3, 66)}
    scope = Scope(PLAN, ROSTER, tuple(sorted(keys)), 1, 1, 1)
    nodes = {name: NodeMasks(scope, name, secrets.randbelow) for name in keys}
    announced = {name: one.announce(NOW, LATER).seal(keys[name]) for name, one in nodes.items()}
    second = NodeMasks(scope, "n65", secrets.randbelow).announce(NOW, LATER).seal(keys["n65"])
    public = {name: key.public for name, key in keys.items()}.__getitem__
    theirs = Announcements.open(list(announced.values()), scope, public, NOW)
    shown = Announcements.open(list((announced | {"n65": second}).values()), scope, public, NOW)
    assert theirs.graph.circle != shown.graph.circle
    nodes["n00"].share(shown)
    partners = [name for name in shown.graph.around("n00") if name != "n00"]
    boxes = {name: nodes[name].share(theirs) for name in partners if name != "n65"}
    sealed = {name: made.get("n00", next(iter(made.values()))) for name, made in boxes.items()}
    with pytest.raises(MaskingError, match="all other"):
        nodes["n00"].receive({name: made["n00"] for name, made in boxes.items() if "n00" in made})
    with pytest.raises(ShareError):
        nodes["n00"].receive({"n65": next(iter(sealed.values()))} | sealed if "n65" in partners else sealed)


def test_what_all_say_to_each_fits_one_message_at_the_longest_names() -> None:
    names = tuple(sorted(f"{at:03}-" + "x" * 53 for at in range(MASKED_COHORT)))
    key = base64.b64encode(b"k" * 32).decode()
    one = KeyAnnouncement(
        issued=NOW, expires=LATER, plan=PLAN, roster=ROSTER, node=names[0], participants=names, first=100_000,
        attempt=1000, box=key, rounds=(RoundKeys(key=key, commitment=key),) * 8,
    )  # fmt: skip
    cohort = MaskedCohort(3)
    sealed: Envelope = one.seal(cohort.coordinator)
    assert len(MaskShares(plan=PLAN, announcements=(pack(sealed),) * MASKED_COHORT).to_bytes()) < HEADER_BYTES


def test_a_common_secret_goes_to_all_and_shares_to_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "NEIGHBOURS", 4)
    keys = {f"n{at}": SigningKey.generate() for at in range(8)}
    scope = Scope(PLAN, ROSTER, tuple(keys), 1, 1, 2)
    nodes = {name: NodeMasks(scope, name, secrets.randbelow, shared=True) for name in keys}
    announced = [one.announce(NOW, LATER).seal(keys[name]) for name, one in nodes.items()]
    found = Announcements.open(announced, scope, lambda name: keys[name].public, NOW)
    boxes = {name: one.share(found) for name, one in nodes.items()}
    for name, one in nodes.items():
        assert set(boxes[name]) == set(keys) - {name}
        one.receive({sender: made[name] for sender, made in boxes.items() if sender != name})
        assert all(set(held) == set(found.graph.around(name)) for held in one._held.values())
        assert len(one.masks(1, 1, "flags", COHORT)) == 5
    assert len({one.common for one in nodes.values()}) == 1
