"""A result taken over: its receipts verified, witnessed before use, and acknowledged on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from federation.crypto import SignatureError
from federation.errors import KeyongError
from federation.ledger import ForkError, Ledger, ProofError, verify_bundle
from federation.statements import Envelope, Receipt, ResultAcknowledgement, receipts_digest
from keyong import receiving
from keyong.evidence import read_fork, verify_fork_file
from keyong.receiving import NotAnchoredError, ReceivedError, receive
from tests.keyong.parties import NODES, Conversation, Parties, Run, copied


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def run(parties: Parties) -> Run:
    run = parties.ask()
    parties.work(run)
    return run


def fetch(parties: Parties, run: Run, folder: Path, **more: Any) -> receiving.Received:
    more = {"seconds": 0.0} | more
    return receive(parties.client(run), run.id, run.plan.digest, folder, **more)


def test_inv6_a_result_comes_with_receipts_that_others_cosigned(parties: Parties, run: Run, tmp_path: Path) -> None:
    parties.attest()
    received = fetch(parties, run, tmp_path / "result")
    assert {one.node: one.anchoring for one in received.standings} == dict.fromkeys(NODES, "final")
    for proof in (tmp_path / "result" / "receipts").glob("*.proof.json"):
        node = next(name for name in NODES if name in proof.name)
        names = [parties.witnesses[other].vkey for other in parties.witnesses if other != node]
        assert len(verify_bundle(proof.read_bytes(), parties.ledgers[node].vkey, names).checkpoint.witnesses) == 2


def test_inv8_without_witnesses_nothing_is_handed_over(parties: Parties, run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotAnchoredError, match="mill-a, mill-b are not witnessed yet"):
        fetch(parties, run, tmp_path / "result")
    assert not (tmp_path / "result").exists() and not list(tmp_path.glob(".result*"))
    assert not list(parties.ledgers["lab"].find(kind="ack"))


def test_one_witness_is_witnessed_and_not_final(parties: Parties, run: Run, tmp_path: Path) -> None:
    parties.asleep = {"mill-a", "mill-b"}
    parties.attest("mill-a", "mill-b")
    received = fetch(parties, run, tmp_path / "result")
    assert received.anchoring == "witnessed"
    with pytest.raises(NotAnchoredError, match="are not final yet"):
        fetch(parties, run, tmp_path / "again", accept="final")


def test_it_waits_for_the_witnesses(parties: Parties, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    told: list[Any] = []

    def attested(_: float) -> None:
        parties.attest()

    monkeypatch.setattr("keyong.receipts.time.sleep", attested)
    received = fetch(parties, run, tmp_path / "result", seconds=60.0, waiting=told.append)
    assert received.anchoring == "final" and len(told) == 1


def test_a_plan_and_a_person_may_say_otherwise_on_record(parties: Parties, tmp_path: Path) -> None:
    planned, plain = parties.ask(anchoring="committed"), parties.ask()
    for run in (planned, plain):
        parties.work(run)
    assert fetch(parties, planned, tmp_path / "planned").anchoring == "committed"
    received = fetch(parties, plain, tmp_path / "plain", accept="committed")
    said = ResultAcknowledgement.read(received.acknowledgement)
    assert (said.anchoring, received.demanded, received.plan.anchoring) == ("committed", "committed", "witnessed")


def test_a_node_that_is_gone_holds_up_only_what_rests_on_its_last_answer(parties: Parties, tmp_path: Path) -> None:
    run = parties.ask()
    parties.work(run, 1)
    parties.step(run, "mill-a", 2)
    parties.attest()
    parties.away = {"mill-b"}
    received = fetch(parties, run, tmp_path / "result")
    found = {one.node: (one.anchoring, one.last, one.why) for one in received.standings}
    assert found == {"mill-a": ("final", True, ""), "mill-b": ("committed", False, "node-offline")}
    assert received.anchoring == "final"


def test_what_was_received_is_on_record_and_signed(parties: Parties, run: Run, tmp_path: Path) -> None:
    parties.attest()
    received = fetch(parties, run, tmp_path / "result")
    ledger = parties.ledgers["lab"]
    (ack,) = ledger.find(kind="ack")
    assert ack.ref == run.asked
    envelope = Envelope.from_bytes(ledger.fields(ack.index)["ack"])
    said = ResultAcknowledgement.open(envelope, [parties.keys["lab"].statement.public], receiving.now())
    assert envelope == received.acknowledgement and said.plan == run.plan.digest
    for one in said.nodes:
        digests = [envelope.digest for _, envelope, _ in run.receipts[one.node]]
        assert (one.count, one.digest) == (2, receipts_digest(digests))
    rows = [ledger.fields(entry.index) for entry in ledger.find(kind="receipts")]
    assert [[row[1] for row in fields["receipts"]] for fields in rows] == [
        [envelope.digest for _, envelope, _ in run.receipts[node]] for node in NODES
    ]
    assert (tmp_path / "result" / "acknowledgement.json").read_bytes() == envelope.to_bytes()


def test_fetched_again_it_is_acknowledged_once(parties: Parties, run: Run, tmp_path: Path) -> None:
    parties.attest()
    first = fetch(parties, run, tmp_path / "one")
    assert fetch(parties, run, tmp_path / "two").acknowledgement == first.acknowledgement
    assert len(list(parties.ledgers["lab"].find(kind="ack"))) == 1


@pytest.mark.parametrize("what", ["signature", "plan", "proof", "cohort"])
def test_a_receipt_that_does_not_hold_refuses_the_result(
    parties: Parties, run: Run, tmp_path: Path, what: str, monkeypatch: Any
) -> None:
    parties.attest()
    client = Conversation(parties, run)
    whole = client.result
    other = parties.ask()
    parties.step(other, "mill-a", 1)

    def tampered(job: str, folder: Path) -> dict[str, Any]:
        summary = whole(job, folder)
        path = folder / "receipts" / "000002-train-mill-a.receipt.json"
        receipt, envelope, _ = run.receipts["mill-a"][1]
        if what == "signature":
            forged = receipt.model_copy(update={"outcome": "failed"}).seal(parties.keys["mill-b"].statement)
            path.write_bytes(forged.to_bytes())
        elif what == "plan":
            path.write_bytes(other.receipts["mill-a"][0][1].to_bytes())
        elif what == "proof":
            wrong = parties.ledgers["mill-a"].bundle_of(run.receipts["mill-a"][0][2])
            path.with_name("000002-train-mill-a.proof.json").write_bytes(wrong)
        else:
            stranger = Receipt.read(envelope).model_copy(update={"node": "mill-c"})
            path.write_bytes(stranger.seal(parties.keys["mill-c"].statement).to_bytes())
        return summary

    monkeypatch.setattr(client, "result", tampered)
    with pytest.raises((ReceivedError, SignatureError, KeyongError)) as raised:
        receive(cast("Any", client), run.id, run.plan.digest, tmp_path / "result", seconds=0)
    assert raised.value.exit_code == 4
    assert not (tmp_path / "result").exists()


def test_another_jobs_result_is_not_taken(parties: Parties, run: Run, tmp_path: Path) -> None:
    other = parties.ask()
    parties.work(other)
    parties.attest()
    with pytest.raises(ReceivedError, match="another plan"):
        receive(parties.client(other), run.id, run.plan.digest, tmp_path / "result", seconds=0)


def test_inv6_a_node_that_shows_another_history_than_before_is_caught(parties: Parties, tmp_path: Path) -> None:
    first, second = parties.ask(), parties.ask()
    before = copied(parties.homes["mill-a"], tmp_path / "before")
    parties.work(first)
    parties.attest()
    fetch(parties, first, tmp_path / "first")
    # Its owner puts the old copy back, and goes on under the real key as if the first job had never been.
    parties.ledgers["mill-a"].close()
    parties.ledgers["mill-a"] = Ledger.open(before.path / "ledger", before.key("ledger"))
    parties.work(second, 4)
    with pytest.raises((ForkError, ProofError)):
        fetch(parties, second, tmp_path / "second", accept="committed")
    assert not (tmp_path / "second").exists()


def test_inv6_two_histories_of_one_size_leave_a_proof_that_can_be_handed_on(parties: Parties, tmp_path: Path) -> None:
    before = copied(parties.homes["mill-a"], tmp_path / "before")
    first, second = parties.ask(), parties.ask()
    parties.work(first, 1)
    fetch(parties, first, tmp_path / "first", accept="committed")
    parties.ledgers["mill-a"].close()
    parties.ledgers["mill-a"] = Ledger.open(before.path / "ledger", before.key("ledger"))
    parties.work(second, 1)
    with pytest.raises(ForkError):
        fetch(parties, second, tmp_path / "second", accept="committed")
    (proof,) = (parties.homes["lab"].path / "evidence").iterdir()
    fork = read_fork(proof)
    assert fork is not None and verify_fork_file(*fork, parties.fingerprint).member.id == "mill-a"


def test_a_failed_jobs_result_waits_for_nobody(parties: Parties, run: Run, tmp_path: Path) -> None:
    client = Conversation(parties, run)
    client.status = "failed"
    received = receive(cast("Any", client), run.id, run.plan.digest, tmp_path / "result", seconds=0)
    assert json.loads((tmp_path / "result" / "summary.json").read_text())["status"] == "failed"
    assert received.anchoring == "committed"


def test_a_folder_that_holds_something_stays_as_it_is(parties: Parties, run: Run, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "mine").write_text("x")
    with pytest.raises(KeyongError, match="is not empty"):
        fetch(parties, run, tmp_path / "result")
    assert (tmp_path / "result" / "mine").read_text() == "x"
