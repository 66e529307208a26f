"""``keyong audit``: each ledger by itself, and all of them against one another."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from federation.ledger import Ledger
from federation.statements import OutputSchema, ResultAcknowledgement, StageOutput
from federation.statements.query import Measure, QueryPlan
from keyong import reconciling
from keyong.receiving import receive
from tests.keyong.conftest import Ran
from tests.keyong.conftest import Run as Keyong
from tests.keyong.parties import NODES, Parties, Run, copied


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def story(parties: Parties, tmp_path: Path) -> Run:
    """One job from the request to the acknowledgement, witnessed."""
    run = parties.ask()
    parties.work(run)
    parties.ledgers["mill-c"].append("node", {"event": "started"})
    parties.attest()
    receive(parties.client(run), run.id, run.plan.digest, tmp_path / "result", seconds=0)
    parties.attest()
    return run


Audit = Callable[..., Ran]
QUESTION: dict[str, Any] = {
    "actions": ("fed:aggregateQuery",),
    "query": QueryPlan(measures=(Measure(kind="count", name="n"),), context="sha256:" + "0" * 64),
    "outputs": OutputSchema(train=StageOutput(sent=False), evaluate=StageOutput(sent=False)),
    "rounds": 1,
}


@pytest.fixture
def audit(keyong: Keyong, parties: Parties, tmp_path: Path) -> Audit:
    """Exports every party's ledger and audits them all; ``without`` leaves parties out."""

    def call(*more: object, without: tuple[str, ...] = (), also: tuple[Path, ...] = ()) -> Ran:
        folder = tmp_path / "exports"
        folder.mkdir(exist_ok=True)
        files = [parties.export(name, folder / f"{name}.export") for name in parties.homes if name not in without]
        return keyong("audit", *files, *also, "--root", parties.fingerprint, "--format", "json", *more)

    return call


def codes(ran: Ran) -> list[str]:
    assert ran.code == 4, ran.err
    return [one["code"] for one in ran.json["completeness"]["findings"]]


def only(ran: Ran, code: str) -> dict[str, Any]:
    """The one finding, which is of this code."""
    assert codes(ran) == [code], ran.out
    found: dict[str, Any] = ran.json["completeness"]["findings"][0]
    return found


def test_honest_parties_tell_one_story(parties: Parties, story: Run, audit: Audit) -> None:
    ran = audit("--require", "anchored")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["holds"] and not found["forks"] and found["completeness"]["jobs"] == 1
    assert {one["member"]: one["anchoring"]["state"] for one in found["ledgers"]} == dict.fromkeys(
        parties.homes, "final"
    )


def test_a_person_reads_three_verdicts(parties: Parties, story: Run, keyong: Keyong, tmp_path: Path) -> None:
    files = [parties.export(name, tmp_path / f"{name}.export") for name in parties.homes]
    ran = keyong("audit", *files, "--root", parties.fingerprint)
    assert ran.code == 0, ran.err
    assert "5 of 5 ledgers hold" in ran.out and "5 of 5 ledgers are final" in ran.out
    assert "all ledgers tell one story; jobs reconciled: 1" in ran.out


def test_an_export_given_twice_is_one_ledger(parties: Parties, story: Run, keyong: Keyong, tmp_path: Path) -> None:
    file, again, page = (tmp_path / name for name in ("one.export", "two.export", "audit.html"))
    parties.export("mill-a", file)
    again.write_bytes(file.read_bytes())
    ran = keyong("audit", file, again, "--root", parties.fingerprint, "--page", page)
    assert "1 of 1 ledgers hold" in ran.out and "of 1 ledgers are final" in ran.out
    assert "1 / 1" in page.read_text(encoding="utf-8")


def test_what_others_cosigned_is_demanded_apart(parties: Parties, story: Run, audit: Audit) -> None:
    parties.ledgers["mill-a"].append("note", {})
    assert audit().code == 0
    ran = audit("--require", "anchored")
    assert ran.code == 4 and "mill-a" in ran.err and ran.json["holds"]


def test_some_parties_alone_are_judged_as_far_as_they_speak(parties: Parties, story: Run, audit: Audit) -> None:
    for without in (("lab",), ("institute",), ("mill-a",), ("lab", "institute"), ("mill-a", "mill-b", "mill-c")):
        assert audit(without=without).code == 0


# -- what one party left out, another one has ---------------------------------------------------------------------------


def test_a_request_its_author_does_not_record(parties: Parties, audit: Audit) -> None:
    run = parties.ask()
    parties.work(run, 1)
    # The lab's ledger as it would be had it never written the plan.
    parties.ledgers["lab"].close()
    fresh = copied(parties.homes["lab"], parties.base / "fresh")
    for file in (fresh.path / "ledger").iterdir():
        file.unlink()
    parties.ledgers["lab"] = Ledger.create(fresh.path / "ledger", parties.ledgers["lab"].origin, fresh.key("ledger"))
    found = only(audit(), "request-missing")
    assert found["against"] == ["lab"] and found["plan"] == run.plan.digest
    assert {one["member"] for one in found["evidence"]} == {"institute", *NODES}


def test_a_job_its_coordinator_does_not_record(parties: Parties, audit: Audit) -> None:
    run = parties.ask()
    parties.ledgers["institute"].close()
    fresh = copied(parties.homes["institute"], parties.base / "fresh")
    for file in (fresh.path / "ledger").iterdir():
        file.unlink()
    origin = parties.ledgers["institute"].origin
    parties.ledgers["institute"] = Ledger.create(fresh.path / "ledger", origin, fresh.key("ledger"))
    parties.step(run, "mill-a", 1)
    found = only(audit(), "job-missing")
    assert found["against"] == ["institute"] and found["evidence"] == [{"member": "mill-a", "entry": 0}]


def test_an_omitted_outcome(parties: Parties, audit: Audit) -> None:
    run = parties.ask()
    _, _, intent = parties.intend(run, "mill-a", 1)
    parties.step(run, "mill-b", 1)
    assert audit().code == 0, "the job goes on: nothing is missing yet"
    parties.end(run, 1)
    found = only(audit(), "outcome-missing")
    assert found["against"] == ["mill-a"]
    assert {"member": "mill-a", "entry": intent} in found["evidence"]


def test_inv6_a_receipt_that_its_node_left_out(parties: Parties, audit: Audit, tmp_path: Path) -> None:
    """The node rewrites its whole history without the job, under its real key; but the lab holds receipts."""
    before = copied(parties.homes["mill-a"], tmp_path / "before")
    run = parties.ask()
    parties.work(run)
    receive(parties.client(run), run.id, run.plan.digest, tmp_path / "result", accept="committed", seconds=0)
    parties.ledgers["mill-a"].close()
    rewritten = Ledger.open(before.path / "ledger", before.key("ledger"))
    for number in range(8):
        rewritten.append("node", {"event": "started", "number": number})
    parties.ledgers["mill-a"] = rewritten
    ran = audit("--evidence", tmp_path / "forks")
    assert ran.code == 4
    assert [one["member"] for one in ran.json["forks"]] == ["mill-a"]
    missing = [one for one in ran.json["completeness"]["findings"] if one["code"] == "receipt-missing"]
    assert len(missing) == 2 and {one["node"] for one in missing} == {"mill-a"}
    assert ran.json["proofs"] == [str(tmp_path / "forks" / "fork-mill-a-1.json")]


def test_the_proof_of_a_fork_can_be_handed_on(parties: Parties, audit: Audit, keyong: Keyong, tmp_path: Path) -> None:
    test_inv6_a_receipt_that_its_node_left_out(parties, audit, tmp_path)
    proof = tmp_path / "forks" / "fork-mill-a-1.json"
    ran = keyong("verify", proof, "--root", parties.fingerprint, "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["fork"]["member"] == "mill-a" and ran.json["fork"]["proved"]
    assert "PROVED: the ledger of mill-a" in keyong("verify", proof, "--root", parties.fingerprint).out
    assert keyong("verify", proof, "--root", "sha256:" + "0" * 64).code == 4
    lines = proof.read_bytes().splitlines(keepends=True)
    forged = tmp_path / "forged.json"
    forged.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"root":"', b'"root":"AAAA', 1)]))
    assert keyong("verify", forged, "--root", parties.fingerprint).code == 4


def test_inv6_the_whole_database_signed_anew_with_the_real_key(
    parties: Parties, story: Run, audit: Audit, keyong: Keyong, tmp_path: Path
) -> None:
    """Alone it is only unanchored, never OK; the requester's export alone proves the fork."""
    ledger = parties.ledgers["mill-a"]
    entries = [(entry.kind, entry.ref, ledger.fields(entry.index)) for entry in ledger.entries()]
    ledger.close()
    fresh = copied(parties.homes["mill-a"], tmp_path / "fresh")
    for file in (fresh.path / "ledger").iterdir():
        file.unlink()
    again = Ledger.create(fresh.path / "ledger", ledger.origin, fresh.key("ledger"))
    for kind, ref, fields in entries:
        again.append(kind, {**fields, **({"round": 7} if kind == "intent" else {})}, ref=ref)
    parties.ledgers["mill-a"] = again
    alone = keyong("verify", fresh.path, "--root", parties.fingerprint, "--format", "json")
    assert alone.json["integrity"]["holds"] and alone.json["anchoring"]["state"] == "unanchored"
    assert keyong("verify", fresh.path, "--root", parties.fingerprint, "--require", "anchored").code == 4
    ran = audit(without=("institute", "mill-b", "mill-c"))
    assert ran.code == 4 and [one["member"] for one in ran.json["forks"]] == ["mill-a"]
    assert ran.json["forks"][0]["held_by"] == "lab"


def test_an_export_cut_short(parties: Parties, story: Run, audit: Audit, tmp_path: Path) -> None:
    older = parties.export("mill-b", tmp_path / "older.export")
    run = parties.ask()
    parties.work(run, 3)
    parties.attest()
    receive(parties.client(run), run.id, run.plan.digest, tmp_path / "second", seconds=0)
    ran = audit(without=("mill-b",), also=(older,))
    assert "cut-short" in codes(ran) and "receipt-missing" not in codes(ran)
    assert audit(also=(older,)).code == 0, "an older export beside the newer one is no finding"


def test_a_step_begun_twice(parties: Parties, audit: Audit) -> None:
    """A replayed request: the same signed step under two INTENTs."""
    run = parties.ask()
    _, invocation, first = parties.intend(run, "mill-a", 1)
    fields = {"plan": run.plan.digest, "invocation": invocation.to_bytes(), "requester": "lab", "round": 1}
    again = parties.ledgers["mill-a"].append("intent", fields).index
    found = only(audit(), "step-repeated")
    assert [one["entry"] for one in found["evidence"]] == [first, again]


def test_a_coordinator_that_counts_otherwise(parties: Parties, audit: Audit) -> None:
    run = parties.ask()
    parties.step(run, "mill-a", 1)
    fields = {"count": 2, "digest": "sha256:" + "1" * 64}
    ended = {"event": "done", "plan": run.plan.digest, "rounds": 1, "receipts": {"mill-a": fields}}
    parties.ledgers["institute"].append("job", ended)
    assert only(audit(), "receipts-differ")["against"] == ["mill-a", "institute"]


def test_a_result_given_out_and_not_acknowledged(parties: Parties, audit: Audit) -> None:
    run = parties.ask()
    parties.work(run)
    delivered = parties.ledgers["institute"].append("job", {"event": "delivered", "plan": run.plan.digest}).index
    found = only(audit(), "acknowledgement-missing")
    assert found["against"] == ["lab"] and found["evidence"] == [{"member": "institute", "entry": delivered}]


def test_an_answer_that_its_asker_recorded_needs_no_acknowledgement(parties: Parties, audit: Audit) -> None:
    run = parties.ask(**QUESTION)
    parties.ledgers["institute"].append("job", {"event": "delivered", "plan": run.plan.digest})
    assert only(audit(), "acknowledgement-missing")["against"] == ["lab"], "whether it was taken is on no record"
    parties.ledgers["lab"].append("result", {"plan": run.plan.digest, "status": "done"}, ref=run.asked)
    assert audit().code == 0


def test_a_training_under_the_name_of_a_question(parties: Parties, audit: Audit) -> None:
    """A requester that puts a question's text under the digest of a training is not let off."""
    question, run = parties.ask(**QUESTION), parties.ask()
    fields = {"plan": question.plan.to_bytes(), "digest": run.plan.digest, "purpose": "fed:ProcessOptimization"}
    asked = parties.ledgers["lab"].append("plan", fields).index
    parties.ledgers["institute"].append("job", {"event": "delivered", "plan": run.plan.digest})
    parties.ledgers["lab"].append("result", {"plan": run.plan.digest, "status": "done"}, ref=asked)
    assert only(audit(), "acknowledgement-missing")["against"] == ["lab"]


def test_a_result_that_was_refused_needs_no_acknowledgement(parties: Parties, audit: Audit, tmp_path: Path) -> None:
    run = parties.ask()
    parties.work(run)
    with pytest.raises(Exception, match="not witnessed yet"):
        receive(parties.client(run), run.id, run.plan.digest, tmp_path / "result", seconds=0)
    assert audit().code == 0


def test_an_acknowledgement_that_its_author_left_out(parties: Parties, story: Run, audit: Audit) -> None:
    ledger = parties.ledgers["lab"]
    (ack,) = ledger.find(kind="ack")
    before = ResultAcknowledgement.read(_envelope(ledger.fields(ack.index)["ack"]))
    other = before.model_copy(update={"status": "failed"}).seal(parties.keys["lab"].statement)
    fields = {"ack": other.to_bytes(), "digest": other.digest, "plan": story.plan.digest}
    at = parties.ledgers["mill-b"].append("ack", fields).index
    found = only(audit(), "acknowledgement-omitted")
    assert found["against"] == ["lab"] and found["evidence"] == [{"member": "mill-b", "entry": at}]


def test_an_acknowledgement_that_contradicts_its_authors_record(parties: Parties, story: Run, audit: Audit) -> None:
    ledger = parties.ledgers["lab"]
    (ack,) = ledger.find(kind="ack")
    before = ResultAcknowledgement.read(_envelope(ledger.fields(ack.index)["ack"]))
    nodes = (before.nodes[0].model_copy(update={"digest": "sha256:" + "1" * 64}), *before.nodes[1:])
    other = before.model_copy(update={"nodes": nodes}).seal(parties.keys["lab"].statement)
    ledger.append("ack", {"ack": other.to_bytes(), "digest": other.digest, "plan": story.plan.digest})
    assert only(audit(), "acknowledgement-false")["node"] == "mill-a"


# -- what cannot be judged, and what does not hold ---------------------------------------------------------------------


def test_sealed_entries_are_not_judged_and_accuse_nobody(
    parties: Parties, story: Run, keyong: Keyong, tmp_path: Path
) -> None:
    files = [parties.export(name, tmp_path / f"{name}.export") for name in ("institute", "lab")]
    sealed = tmp_path / "sealed.export"
    assert keyong("--home", parties.homes["mill-a"].path, "ledger", "export", sealed, "--sealed").code == 0
    ran = keyong("audit", *files, sealed, "--root", parties.fingerprint, "--format", "json")
    assert ran.code == 0, ran.out
    assert {"member": "mill-a", "kind": "outcome"} in ran.json["completeness"]["not_judged"]


def test_one_ledger_that_does_not_hold_leaves_the_others_judged(
    parties: Parties, story: Run, keyong: Keyong, tmp_path: Path
) -> None:
    files = [parties.export(name, tmp_path / f"{name}.export") for name in ("institute", "lab", "mill-b")]
    damaged = copied(parties.homes["mill-a"], tmp_path / "damaged").path
    with closing(sqlite3.connect(damaged / "ledger" / "ledger.db")) as connection:
        (data,) = connection.execute("SELECT data FROM entry WHERE idx = 1").fetchone()
        changed = data.replace(b'"kind":"outcome"', b'"kind":"outcomf"')
        assert changed != data
        connection.execute("UPDATE entry SET data = ? WHERE idx = 1", (changed,))
        connection.commit()
    ran = keyong("audit", *files, damaged, "--root", parties.fingerprint, "--format", "json")
    assert ran.code == 4
    found = {one["member"]: one["integrity"] for one in ran.json["ledgers"]}
    assert not found["mill-a"]["holds"] and found["mill-a"]["entry"] == 1
    assert all(found[name]["holds"] for name in ("institute", "lab", "mill-b"))
    assert not ran.json["completeness"]["findings"]


def test_another_consortiums_export_is_refused(parties: Parties, story: Run, keyong: Keyong, tmp_path: Path) -> None:
    other = Parties(tmp_path / "other")
    try:
        files = [parties.export("lab", tmp_path / "lab.export"), other.export("lab", tmp_path / "other.export")]
        assert keyong("audit", *files, "--root", parties.fingerprint).code == 4
    finally:
        other.close()


def test_every_finding_has_a_meaning() -> None:
    from keyong.cli.audit import MEANINGS

    text = reconciling.__doc__ or ""
    assert all(code in text for code in MEANINGS)


def test_without_the_rules_nothing_is_found(parties: Parties, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    run = parties.ask()
    parties.intend(run, "mill-a", 1)
    parties.end(run, 1)
    assert codes(audit()) == ["outcome-missing"]
    monkeypatch.setattr("keyong.reconciling._Reconciler._outcomes", lambda *_: None)
    assert audit().code == 0


def _envelope(data: bytes) -> Any:
    from federation.statements import Envelope

    return Envelope.from_bytes(data)
