"""Attacks on masked rounds: each fails against the code as it is, and succeeds where the step it attacks is weakened.

The attacker is the coordinator, together with the requester and fewer than ``2t - n`` nodes, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.exchange import RoundFailedError
from federation.crypto import SigningKey
from federation.errors import KeyongError, VerificationError
from federation.jobs.codec import Content
from federation.secagg import (
    Accumulator,
    Announcements,
    EncodedReply,
    Layout,
    MaskContext,
    MaskingError,
    MaskKey,
    NodeMasks,
    Scope,
    choose_encoding,
    mask_keys,
    node_masks,
)
from federation.secagg.layout import ONE, WEIGHT
from federation.secagg.shamir import combine, from_bytes
from federation.statements import ReleasedShares
from tests.federation.secagg.masked_cohort import LATER, NOW, OUTPUT, PLAN, ROSTER, SENT, MaskedCohort, reply_of
from tests.masked import MaskedWorld, masked_world, trained

LAYOUT = Layout.derive(SENT, OUTPUT)


def encoding(n: int) -> Any:
    return choose_encoding([(10, 100)] * n)


def opens(reply: EncodedReply, keys: list[MaskKey], weight: int = 50) -> bool:
    """Whether taking these masks away leaves one node's reply; it is masked again afterwards."""
    reply.mask([MaskKey(key.key, -key.sign) for key in keys])
    found = int(reply.totals[ONE]) == 1 and int(reply.totals[WEIGHT]) == weight
    reply.mask(keys)
    return found


def secret(released: dict[str, ReleasedShares], cohort: MaskedCohort, node: str, kind: str) -> int:
    """A node's seed or key, put together from what was released."""
    place = {name: at for at, name in enumerate(cohort.scope.participants, start=1)}
    shares = {place[by]: from_bytes(mask_keys.decode_key(getattr(one, kind)[node])) for by, one in released.items()}
    return combine(shares, cohort.scope.threshold)


# -- the keys ----------------------------------------------------------------------------------------------------------

BITS = 12


def folded(derive: Callable[..., bytes]) -> Callable[..., bytes]:
    """A derivation whose keys have few bits, as where a shared key seeds a generator of 32."""

    def weak(*arguments: Any) -> bytes:
        return (int.from_bytes(derive(*arguments), "big") % (1 << BITS)).to_bytes(16, "big")

    return weak


@pytest.mark.parametrize("weak", [False, True])
def test_the_space_of_a_small_seed_is_searched_in_vain(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weak:
        monkeypatch.setattr(node_masks, "pair_key", folded(node_masks.pair_key))
    cohort = MaskedCohort(3, rounds=1)
    context = cohort.context()
    # the coordinator knows the victim's own mask (opened with the round), and n02 is on its side
    seed, ally = cohort.nodes["n00"]._masking[0].seed, cohort.nodes["n02"]._masking[0].key
    reply = reply_of(1, LAYOUT, encoding(3), 3, 50)
    cohort.mask("n00", reply, context)
    common = node_masks.pair_key(ally, cohort.announcements.public("n00", 0), context, "n02", "n00")
    known = [MaskKey(mask_keys.self_key(seed, context, "n00"), 1), MaskKey(common, 1)]
    found = any(opens(reply, [*known, MaskKey(guess.to_bytes(16, "big"), 1)]) for guess in range(1 << BITS))
    assert found is weak


@pytest.mark.parametrize("weak", [False, True])
def test_substituted_keys_are_found_out(weak: bool) -> None:
    """The coordinator announces keys in the others' names, and so holds all but the victim's own."""
    names, victim = ("n00", "n01", "n02"), SigningKey.generate()
    mallory, scope = SigningKey.generate(), Scope(PLAN, ROSTER, ("n00", "n01", "n02"), 1, 1, 1)
    roster = {"n00": victim.public, "n01": SigningKey.generate().public, "n02": SigningKey.generate().public}
    believed = {"n00": victim.public, "n01": mallory.public, "n02": mallory.public} if weak else roster
    nodes = {name: NodeMasks(scope, name, secrets.randbelow) for name in names}
    announced = [one.announce(NOW, LATER).seal(victim if name == "n00" else mallory) for name, one in nodes.items()]
    if not weak:
        with pytest.raises(VerificationError):
            Announcements.open(announced, scope, believed.__getitem__, NOW)
        return
    found = Announcements.open(announced, scope, believed.__getitem__, NOW)
    boxes = {name: one.share(found) for name, one in nodes.items()}
    for name, one in nodes.items():
        one.receive({sender: sealed[name] for sender, sealed in boxes.items() if sender != name})
    context = found.context(1, 1, "train", PLAN)
    reply = reply_of(1, LAYOUT, encoding(3), 3, 50)
    seeds = {at: nodes[name]._held[0]["n00"][1] for at, name in ((2, "n01"), (3, "n02"))}
    seeds[1] = nodes["n00"]._held[0]["n00"][1]  # the victim's own share it releases with the round
    keys = [MaskKey(mask_keys.self_key(combine(seeds, 3), context, "n00"), 1)]
    for name in ("n01", "n02"):
        private = nodes[name]._masking[0].key
        keys.append(MaskKey(node_masks.pair_key(private, found.public("n00", 0), context, name, "n00"), 1))
    reply.mask(nodes["n00"].masks(1, 1, "train", PLAN))
    assert opens(reply, keys)


# -- active and dropped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weak", [False, True])
def test_a_node_is_not_both_active_and_dropped(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its seed and its key put together, a single vector is bare."""
    cohort = MaskedCohort(4, rounds=1)
    context = cohort.context()
    names = list(cohort.scope.participants)
    replies = {name: reply_of(at, LAYOUT, encoding(4), 4, 50) for at, name in enumerate(names)}
    inputs = [cohort.mask(name, reply, context) for name, reply in replies.items()]
    everybody, without = cohort.survivor_set(names, context), cohort.survivor_set(names[1:], context)
    acknowledged = [cohort.acknowledge(name, everybody, inputs, context) for name in names]
    active = {name: cohort.release(name, everybody, acknowledged, context) for name in names[1:]}
    if not weak:
        with pytest.raises(MaskingError, match="acknowledged another set"):
            cohort.release("n01", without, acknowledged[1:], context)
        again = [cohort.acknowledge(name, without, inputs[1:], context) for name in names[1:]]
        with pytest.raises(MaskingError, match="no shares to release"):
            cohort.release("n01", without, again, context)
        return
    cohort = MaskedCohort(4, rounds=1)  # nodes that forget nothing, and answer again
    context = cohort.context()
    reply = reply_of(1, LAYOUT, encoding(4), 4, 50)
    held = {name: dict(cohort.nodes[name]._held) for name in names}
    inputs = [cohort.mask(name, reply if name == "n00" else replies[name], context) for name in names]
    active, dropped = {}, {}
    for store, left in ((active, frozenset(names)), (dropped, frozenset(names[1:]))):
        for name in names[1:]:
            cohort.nodes[name]._held = dict(held[name])
            seeds, keys = cohort.nodes[name].release(1, 1, left)
            store[name] = _released(name, context, seeds, keys)
    masks = [MaskKey(mask_keys.self_key(secret(active, cohort, "n00", "seeds"), context, "n00"), 1)]
    private = secret(dropped, cohort, "n00", "keys")
    for name in names[1:]:
        public = cohort.announcements.public(name, 0)
        masks.append(MaskKey(node_masks.pair_key(private, public, context, "n00", name), 1))
    assert opens(reply, masks)


def _released(node: str, context: MaskContext, seeds: dict[str, str], keys: dict[str, str]) -> ReleasedShares:
    return ReleasedShares(
        issued=NOW, expires=LATER, plan=context.plan, cohort=context.cohort, node=node, round=1, attempt=1,
        seeds=seeds, keys=keys,
    )  # fmt: skip


# -- the cohort --------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MaskedWorld]:
    with masked_world(tmp_path, monkeypatch) as world:
        yield world


def blind(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Take a rule away from the nodes, wherever it is asked."""
    for module in ("enterprise_node.mask_rules", "enterprise_node.record", "enterprise_node.protection"):
        monkeypatch.setattr(f"{module}.{rule}", lambda *_: None, raising=False)


async def test_a_cohort_of_one_is_refused(world: MaskedWorld) -> None:
    job = world.job(world.plan(["mill-a"], minimal_participants=1))
    await job.open()
    assert job.cohort.out == {"mill-a": "min-participants"}


def test_without_that_rule_the_sum_of_one_is_its_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.secagg.announcements.check_size", lambda n: None)
    cohort = MaskedCohort(1, rounds=1)
    done = cohort.run({"n00": reply_of(1, LAYOUT, encoding(1), 1, 50)}, LAYOUT, encoding(1), SENT)
    assert (done.count, done.total_weight) == (1, 50)


@pytest.mark.parametrize("sham", ["two nodes of one company", "a company that nobody accepted"])
@pytest.mark.parametrize("weak", [False, True])
async def test_companies_are_counted_not_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sham: str, weak: bool
) -> None:
    entities = {"mill-c": "mill-b Ltd"} if "two" in sham else {"mill-c": "Sham Ltd"}
    with masked_world(tmp_path, monkeypatch, mills=3, entities=entities) as world:
        if "accepted" in sham:
            for mill in world.mills:
                service = world.nodes[mill]
                known = {name: one for name, one in service._store.accepted().items() if one.entity != "Sham Ltd"}
                monkeypatch.setattr(service._store, "accepted", lambda known=known: known)
        if weak:
            blind(monkeypatch, "check_entities")
        job = await world.job(world.plan()).open()
        if weak:
            assert (await job.exchange(world.model())).aggregate is not None
        else:
            assert set(job.cohort.out.values()) == {"min-participants"}


@pytest.mark.parametrize("weak", [False, True])
async def test_survivors_are_counted_again(world: MaskedWorld, weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cohort of four companies whose survivors are three, one of them not accepted here."""
    for mill in world.mills:
        service = world.nodes[mill]
        known = {name: one for name, one in service._store.accepted().items() if name in ("mill-a", "mill-b", "mill-d")}
        monkeypatch.setattr(service._store, "accepted", lambda known=known: known)
    if weak:
        blind(monkeypatch, "check_entities")
    job = await world.job(world.plan()).open()
    job.links.loses_answer = lambda call: (call.node, call.method) == ("mill-d", "job.invoke")
    if weak:
        assert (await job.exchange(world.model())).contributed == world.mills[:3]
        return
    with pytest.raises(RoundFailedError):
        await job.exchange(world.model())
    assert not any(call.method == "mask.open" for call in job.links.calls)


@pytest.mark.parametrize("what", ["cohort", "config"])
async def test_nodes_that_are_shown_different_things_open_nothing(world: MaskedWorld, what: str) -> None:
    job = await world.job(world.plan()).open()

    def change(call: Any) -> None:
        if call.node == "mill-d" and what == "cohort" and call.method == "mask.keys":
            call.header["participants"] = ["mill-b", "mill-c", "mill-d"]
        if call.node == "mill-d" and what == "config" and call.method == "job.invoke":
            call.header["content"] = call.header["content"].replace("0.5", "0.25")

    job.links.changes = change
    sent = world.model()
    try:
        done = await job.exchange(sent)
    except KeyongError:
        return  # nothing was opened at all
    assert done.contributed == world.mills[:3], "who was shown something else is in no sum"


# -- again and again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weak", [False, True])
async def test_a_round_is_not_taken_twice(world: MaskedWorld, weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator rolls its own state back to before a round, and would have it opened without one company."""
    if weak:
        monkeypatch.setattr("enterprise_node.record.check_new", lambda *_: None)
        monkeypatch.setattr("enterprise_node.record.check_course", lambda *_: None)
        blind(monkeypatch, "check_difference")
    plan, sent = world.plan(), world.model()
    first_job = await world.job(plan).open()
    first = await first_job.exchange(sent)
    again = world.job(plan, folder="rolled-back")
    again.cohort.resume(world.mills)
    again.rounds.count = 1
    sealed = {node: again.rounds._seal(node, "train", first.content).to_bytes() for node in world.mills}
    again.rounds.count = 0
    again.recording.ask(1, "train", first.content, sealed)  # as if the first attempt had never been opened
    again.links.loses_answer = lambda call: (call.node, call.method) == ("mill-d", "job.invoke")
    if not weak:
        with pytest.raises(KeyongError):
            await again.exchange(sent)
        assert not any(call.method == "mask.open" for call in again.links.calls)
        return
    _victim_is_bare(world, sent, first, await again.exchange(sent))


@pytest.mark.parametrize("weak", [False, True])
async def test_n_and_then_n_less_one_survivors_by_another_plan(
    world: MaskedWorld, weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same model once with all and once without mill-d: the difference would be mill-d's update."""
    if weak:
        blind(monkeypatch, "check_difference")
    sent = world.model()
    first = await (await world.job(world.plan(), "one").open()).exchange(sent)
    job = await world.job(world.plan(), "two").open()
    job.links.loses_answer = lambda call: (call.node, call.method) == ("mill-d", "job.invoke")
    if not weak:
        with pytest.raises(KeyongError):
            await job.exchange(sent)
        assert not any(call.method == "mask.open" for call in job.links.calls)
        third = world.job(world.plan(world.mills[:3]), "three")
        await third.open()
        assert set(third.cohort.out.values()) == {"differencing"}, "nor where the plan itself leaves it out"
        return
    _victim_is_bare(world, sent, first, await job.exchange(sent))


def _victim_is_bare(world: MaskedWorld, sent: Content, first: Any, second: Any) -> None:
    difference = 4 * first.aggregate.arrays["arrays"]["w"].astype(float)
    difference -= 3 * second.aggregate.arrays["arrays"]["w"].astype(float)
    assert np.allclose(difference, trained("mill-d", sent).arrays["arrays"]["w"], atol=1e-5)


# -- what the coordinator sees -----------------------------------------------------------------------------------------


def test_gradient_inversion_finds_nothing_under_a_mask() -> None:
    """A linear model's gradient for one row is the row itself, scaled by the bias's (DLG's simplest case)."""
    row, error = np.random.default_rng(7).normal(size=36), 0.7
    gradient = np.append(row * error, error).astype(np.float32)
    sent = {"arrays": {"w": np.zeros(37, dtype=np.float32)}}
    layout = Layout.derive(sent, OUTPUT.model_copy(update={"metrics": ()}))

    def invert(reply: EncodedReply) -> Any:
        seen = reply.narrow.view(np.int32).astype(float)
        return seen[:-1] / (seen[-1] or 1.0)

    def encoded() -> EncodedReply:
        from types import SimpleNamespace

        from federation.secagg import encode

        return encode(SimpleNamespace(arrays={"arrays": {"w": gradient}}, metrics={}), sent, layout, encoding(3), 50, 3)

    assert np.allclose(invert(encoded()), row, atol=1e-4), "the attack works on what is bare"
    cohort = MaskedCohort(3, rounds=8)
    for number in range(1, 9):
        masked = encoded()
        cohort.mask("n00", masked, cohort.context(number))
        assert abs(np.corrcoef(invert(masked), row)[0, 1]) < 0.8


async def test_what_the_coordinator_holds_depends_on_the_sum_alone(world: MaskedWorld) -> None:
    """Two sets of inputs with one sum, round about: each message has one size, and masked vectors look alike."""
    job = await world.job(world.plan(minimal_participants=4)).open()
    sent = world.model()
    random = np.random.default_rng(3)
    sets = []
    for _ in range(2):
        parts = random.normal(size=(4, 37)).astype(np.float32)
        parts[3] = 1.0 - parts[:3].sum(axis=0)
        sets.append(parts)
    current = sets[0]

    def reply(node: str, content: Content) -> Content:
        delta = current[world.mills.index(node)]
        arrays = {"w": content.arrays["arrays"]["w"] + delta, "k": content.arrays["arrays"]["k"]}
        return Content(arrays={"arrays": arrays}, metrics={"metrics": {"loss": 0.5, "num-examples": 3}})

    world.reply = reply
    await job.exchange(sent)  # keys are shared with the first
    shapes: list[list[tuple[str, str, int, int]]] = []
    bits: list[list[Any]] = [[], []]
    for number in range(4):
        current = sets[number % 2]
        job.links.answers.clear()
        done = await job.exchange(sent := world.model(0.0))
        assert done.aggregate is not None
        order = sorted(job.links.answers, key=lambda one: (one[0].method, one[0].node))
        shapes.append([(call.method, call.node, len(got.header), len(got.body)) for call, got in order])
        for call, got in order:
            if call.method == "job.invoke":
                # the header and the padding before the vectors are the same bytes for all
                bits[number % 2].append(np.unpackbits(np.frombuffer(got.body, dtype=np.uint8)[-37 * 4 :]))
    sizes = [[(method, node, body) for method, node, _, body in one] for one in shapes]
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]
    headers = [[size for _, _, size, _ in one] for one in shapes]
    # proofs grow with the ledger, not with what was sent: set against set at the same length they are equal
    assert max(abs(a - b) for a, b in zip(headers[0], headers[1], strict=True)) < 400
    ones = [float(np.mean(one)) for one in bits]
    count = bits[0][0].size * len(bits[0])
    # two of them, each by chance once in five hundred million runs
    assert all(abs(one - 0.5) < 6 * 0.5 / count**0.5 for one in ones)
    same = [float(np.mean(a == b)) for a in bits[0] for b in bits[1]]
    assert abs(float(np.mean(same)) - 0.5) < 0.05


def test_how_long_a_mask_takes_does_not_depend_on_what_it_covers() -> None:
    """By the processor time of this thread, two inputs in turns; masked are a vector of zeros and one of noise."""
    import time

    size = 1 << 16
    # full and not np.zeros: pages that nobody wrote lie in no memory of their own
    inputs = [np.full(size, 0, dtype=np.uint32), np.random.default_rng(1).integers(0, 2**32, size, dtype=np.uint32)]
    taken: list[list[float]] = [[], []]
    from federation.secagg import Z32, add_masks

    keys = [MaskKey(secrets.token_bytes(16), 1) for _ in range(4)]
    for number in range(120):
        vector = inputs[number % 2].copy()
        began = time.thread_time_ns()
        add_masks([(vector, Z32)], keys, threads=1)
        taken[number % 2].append(time.thread_time_ns() - began)
    ranks = np.argsort(np.argsort(taken[0] + taken[1])) + 1.0
    rank_sum = float(ranks[:60].sum())
    mean, spread = 60 * 121 / 2, (60 * 60 * 121 / 12) ** 0.5
    assert abs(rank_sum - mean) / spread < 5, "the Wilcoxon rank sum tells them apart"


async def test_a_mask_of_another_job_does_not_open_this_one(world: MaskedWorld) -> None:
    """Shares released in one plan are of no use in another: the keys are bound to plan, cohort and round."""
    sent = world.model()
    one = await world.job(world.plan(), "one").open()
    await one.exchange(sent)
    two = await world.job(world.plan(), "two").open()
    await two.exchange(sent)
    seeds = [[got.header for call, got in job.links.answers if call.method == "mask.open"] for job in (one, two)]
    assert len(seeds[0]) == len(seeds[1]) == 4 and not set(seeds[0]) & set(seeds[1])
    await asyncio.sleep(0)


def test_a_sum_that_is_still_masked_is_void() -> None:
    total = Accumulator(LAYOUT, encoding(3), 3)
    cohort = MaskedCohort(3, rounds=1)
    for name in cohort.scope.participants:
        reply = reply_of(1, LAYOUT, encoding(3), 3, 50)
        cohort.mask(name, reply, cohort.context())
        total.add(reply)
    with pytest.raises(VerificationError):
        total.finish(3, SENT)
