"""Nodes that lie: every lie is theirs alone, and the others' round goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest

import coordinator.intake
import coordinator.open_exchange
import coordinator.rounds
from coordinator.answers import verify_answer
from coordinator.cohort import Cohort
from coordinator.recording import Recording
from federation.home import now
from federation.jobs import Content
from federation.secagg.layout import ONE, SATURATED, WEIGHT
from federation.statements import DecisionRecord, Isolation, Receipt
from federation.wire import messages as m
from tests.coordinator.parties import FEDAVG, Consortium, bundle_of, with_totals

OTHER = "sha256:" + "9" * 64
ONE_ROUND = FEDAVG.replace("num_rounds=context.run_config", "evaluate_fn=None, num_rounds=1 or context.run_config")


def big(reply):
    narrow = reply.narrow.copy()
    narrow[0] = 2**30 - 1
    return type(reply)(reply.header, narrow, reply.wide, reply.totals)


def shorter(reply):
    return type(reply)(reply.header, reply.narrow[:-1], reply.wide, reply.totals)


def field(**changes):
    return lambda receipt: receipt.model_copy(update=changes)


LIES = {
    "another body than the receipt names": ("body", lambda body: body[:-1] + bytes([body[-1] ^ 1]), "receipt"),
    "a reply of another layout": ("encoded", shorter, "reply-format"),
    "ten gigabytes announced": ("body", lambda body: body * 2, "reply-format"),
    "counts twice": ("encoded", with_totals(ONE, 2), "reply"),
    "another weight than its receipt's": ("encoded", with_totals(WEIGHT, 300), "reply"),
    "an element no honest node could send": ("encoded", big, "reply"),
    "a metric no honest node could send": ("encoded", with_totals(3, 2**62), "reply"),
    "more saturated than there are": ("encoded", with_totals(SATURATED, 99), "reply"),
    "a receipt for another step": ("receipt", field(round=9), "receipt"),
    "a receipt for other content": ("receipt", field(input=OTHER), "receipt"),
    "a receipt for other code": ("receipt", field(code_digest=OTHER), "receipt"),
    "a receipt of another protection": ("receipt", field(protection="fed:masked"), "receipt"),
    "a receipt for another plan": ("receipt", field(plan=OTHER), "receipt"),
    "ok without a permit": ("receipt", field(decision=DecisionRecord(permit=False)), "receipt"),
    "a proof that is none": ("proof", lambda proof: b"garbage", None),
    "no proof": ("proof", lambda proof: b"", None),
}


def of(node, name: str):
    """What the node's record is asked for in the test of a proof for another entry."""
    index = node.ledger.append("outcome", {"receipt": b"another"}).index
    return node.ledger.receipt_bundle(index)


@pytest.mark.parametrize("lie", [*LIES, "a proof of another entry"])
async def test_a_lie_makes_its_node_fall_out_and_no_other(quiet: Consortium, lie: str, monkeypatch):
    liar = quiet.nodes[1]
    if lie == "a proof of another entry":
        liar.proof, code = (lambda _: of(liar, lie)), "receipt"
    else:
        hook, change, code = LIES[lie]
        setattr(liar, hook, change)
    exchange = await _exchange(quiet)
    assert set(exchange.fallen) == {"mill-b"}
    assert code is None or exchange.fallen["mill-b"] == code
    assert sorted(exchange.contributed) == ["mill-a", "mill-c"]
    # as if mill-b had never been: (1 * 100 + 3 * 300) / 400
    np.testing.assert_allclose(exchange.aggregate.arrays["arrays"]["w"], np.full(3, 2.5), rtol=1e-6)
    assert exchange.aggregate.total_weight == 400


async def test_without_the_look_at_each_reply_one_node_voids_the_round_for_all(quiet: Consortium, monkeypatch):
    def unjudged(answer, incoming, layout, encoding, n):
        from federation.secagg import EncodedReply

        return EncodedReply.from_buffers(incoming.body, layout, encoding)

    monkeypatch.setattr(coordinator.open_exchange, "read_encoded", unjudged)
    quiet.nodes[1].encoded = with_totals(ONE, 2)
    with pytest.raises(Exception, match="void"):
        await _exchange(quiet)


async def test_without_the_proof_check_an_unrecorded_receipt_counts(quiet: Consortium, monkeypatch):
    class Bundle:
        class entry:
            kind = "outcome"

        def __init__(self, receipt: bytes) -> None:
            self.fields = {"receipt": receipt}

    def trusting(*args):
        incoming = args[4]
        from federation.wire import messages as m

        receipt = m.unpack(m.Invoked.from_bytes(incoming.header).receipt).to_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("coordinator.answers.verify_bundle", lambda *_: Bundle(receipt))
            return verify_answer(*args)

    quiet.nodes[1].proof = lambda proof: b"garbage"
    monkeypatch.setattr(coordinator.open_exchange, "verify_answer", trusting)
    monkeypatch.setattr("asyncio.to_thread", _here)  # the patch above is not for several threads
    assert not (await _exchange(quiet)).fallen


async def _here(function, *args, **named):
    return function(*args, **named)


async def test_a_node_that_never_answers_has_the_plans_time_and_no_more(quiet: Consortium, monkeypatch):
    monkeypatch.setattr(coordinator.rounds, "MARGIN_SECONDS", 0.5)
    monkeypatch.setattr("federation.statements.plan.SETUP_SECONDS", 0.0)

    async def never(_) -> None:
        await asyncio.sleep(600)

    quiet.nodes[1].before = never
    exchange = await _exchange(quiet, round_seconds=1)
    assert exchange.fallen == {"mill-b": "no-answer"}


async def test_too_few_fail_the_round_and_say_who(quiet: Consortium):
    quiet.nodes[1].encoded = with_totals(ONE, 2)
    with pytest.raises(coordinator.rounds.RoundFailedError, match=r"2 of 3 .* needs 3 \(mill-b: reply\)"):
        await _exchange(quiet, minimal_participants=3)


async def test_more_rounds_than_planned_ask_no_node(quiet: Consortium):
    async with quiet.serving():
        rounds = _rounds(quiet)
        for stage in ("train", "train", "evaluate", "evaluate", "evaluate"):
            await rounds.exchange(stage, *_content())
        for stage in ("train", "evaluate"):
            with pytest.raises(coordinator.rounds.RoundRefusedError, match="goes on after the 2 rounds"):
                await rounds.exchange(stage, *_content())
    assert len(quiet.nodes[0].asked) == 5


async def test_a_denial_with_someone_elses_receipt_counts_as_no_answer(quiet: Consortium, tmp_path):
    from federation.wire import messages as m

    quiet.nodes[1].opened = lambda _: m.JobOpened(permitted=False, code="x" * 100_000 + "\n", receipt="")
    quiet.nodes[2].opened = lambda _: m.JobOpened(permitted=False, code="count", receipt="AAAA")
    async with quiet.serving():
        _, last, events = await quiet.run(bundle_of(tmp_path / "app"))
    assert last.kind == "denied" and last.data["exit"] == 3
    assert {
        event.data["node"]: event.data["code"] for event in events if event.kind == "denied" and "node" in event.data
    } == {"mill-b": "malformed"}
    assert [event.data["node"] for event in events if event.kind == "node-unavailable"] == ["mill-c"]


def _refusing(refuser, changes):
    """Let a node refuse a plan with a receipt that says so, but for ``changes``."""
    at = now()

    def refuse(_):
        (digest, plan) = next(iter(refuser.plans.items()))
        share = plan.at(refuser.name)
        fields = {
            "issued": at,
            "expires": at + timedelta(days=30),
            "node": refuser.name,
            "plan": digest,
            "invocation": digest,
            "round": 0,
            "attempt": 1,
            "stage": "open",
            "intent": -1,
            "outcome": "denied",
            "code": "count",
            "decision": DecisionRecord(permit=False, rule="count"),
            "dataset": share.dataset,
            "data_version": share.data_version,
            "code_digest": plan.code,
            "runtime": plan.runtime,
            "isolation": Isolation(),
            "input": digest,
            "protection": plan.protection,
            "started": at,
            "ended": at,
        }
        receipt = Receipt(**{**fields, **changes}).seal(refuser.home.key("statement"))
        return m.JobOpened(permitted=False, code="count", receipt=m.pack(receipt))

    refuser.opened = refuse


async def _told_of_refusal(quiet: Consortium, tmp_path, **changes):
    """The kinds of event that name the node whose refusal has that receipt, and what its receipts folder holds."""
    node = quiet.nodes[1]
    _refusing(node, changes)
    async with quiet.serving():
        job, _, events = await quiet.run(bundle_of(tmp_path / "app"))
        kept = [name for name in await quiet.result(job) if name.startswith("receipts/")]
    return [event.kind for event in events if event.data.get("node") == node.name], kept


async def test_a_refusal_is_shown_with_its_receipt(quiet: Consortium, tmp_path):
    kinds, kept = await _told_of_refusal(quiet, tmp_path)
    assert kinds == ["denied"] and kept == ["receipts/000000-open-mill-b.receipt.json"]


FOREIGN = {"plan": OTHER, "invocation": OTHER, "round": 1, "stage": "train", "intent": 5, "node": "mill-a"}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_refusals_receipt_for_something_else_is_none(quiet: Consortium, tmp_path, name):
    kinds, kept = await _told_of_refusal(quiet, tmp_path, **{name: FOREIGN[name]})
    assert kinds == ["node-unavailable"] and not kept


async def test_without_that_check_it_would_be_shown_as_this_plans(quiet: Consortium, tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.cohort.check_refusal", lambda *_: None)
    kinds, kept = await _told_of_refusal(quiet, tmp_path, plan=OTHER)
    assert kinds == ["denied"] and kept


async def test_a_plan_that_wants_more_memory_than_there_is_is_refused(quiet: Consortium, tmp_path, monkeypatch):
    bundle = bundle_of(tmp_path / "app")
    plan = quiet.plan(bundle, memory_bytes=coordinator.intake.memory_here() + 1)
    async with quiet.serving():
        assert (await quiet.refused(plan, bundle)).code == "memory-unavailable"
        monkeypatch.setattr(coordinator.intake, "memory_here", lambda: 2**50)
        await quiet.submit(plan, bundle)  # the bound alone refused it


def _content():
    from federation.jobs import describe

    header, buffers = describe(Content({"arrays": {"w": np.zeros(3, dtype=np.float32)}}))
    return header, memoryview(b"".join(buffers))


def _rounds(quiet: Consortium, **changes):
    import tempfile
    from pathlib import Path

    from federation.statements import Envelope

    bundle = bundle_of(Path(tempfile.mkdtemp()) / "app")
    plan = quiet.plan(bundle, **{"minimal_participants": 1, **changes})
    envelope: Envelope = plan.seal(quiet.institute.key("statement"))
    for node in quiet.nodes:
        node.plans[envelope.digest] = plan

    async def noted(*_: object) -> None:
        return

    assert quiet.service is not None
    home = quiet.service._home
    links, numbers = quiet.service._links, {node.name: node.number for node in quiet.nodes}
    cohort = Cohort(home, links, envelope, plan, numbers, bundle.to_bytes, noted, noted)
    cohort.resume(numbers)  # they are taken in with the first exchange
    recording = Recording(Path(tempfile.mkdtemp()))
    return coordinator.rounds.Rounds(
        home, home.key("statement"), links, envelope, plan, cohort, recording, noted, noted
    )


async def _exchange(quiet: Consortium, **changes):
    async with quiet.serving():
        return await _rounds(quiet, **changes).exchange("train", *_content())
