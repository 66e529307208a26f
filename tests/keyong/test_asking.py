"""An answer as the coordinator gave it out: what lacks or does not hold is said, and is not on record as done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from federation.ledger import LedgerUnavailableError
from federation.query import pack_parts
from federation.statements import JobPlan
from federation.statements.code import CodeBundle
from federation.wire.messages import Event
from keyong import bilateral
from keyong.asking import _asked, _vector
from keyong.receipts import ReceivedError
from tests.keyong.parties import NODES, Conversation, Parties, Run

ANSWER = b"".join(bytes(part) for part in pack_parts([b"cipher"]))


class Course(Conversation):
    """A query's conversation: submitted, done, and its files given out, but for what a test takes away."""

    def __init__(self, parties: Parties, run: Run, folder: Path) -> None:
        super().__init__(parties, run)
        self.result(run.id, folder)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self.files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
        self.files |= {"answer.bfv": ANSWER, "summary.json": json.dumps({"contributed": [*NODES]}).encode()}

    def submit(self, envelope: Any, bundle: bytes) -> str:
        return self.run.id

    def events(self, job: str) -> list[Event]:
        return [Event(number=1, time="2026-01-01T00:00:00Z", kind="done", data={})]

    def result_files(self, job: str) -> dict[str, bytes]:
        return self.files


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Course]:
    parties = Parties(tmp_path)
    run = parties.ask(rounds=1)
    for node in NODES:
        parties.step(run, node, 1)
    bundle = CodeBundle({"context.bfv": b"public"})
    monkeypatch.setattr("keyong.asking.planned", lambda *_: (JobPlan.read(run.plan), bundle))
    monkeypatch.setattr("keyong.answer_receipts.CELLS", "train")
    yield Course(parties, run, tmp_path / "result")
    parties.close()


def ask(course: Course) -> Any:
    keys = {"keys": lambda: (b"public", b"secret"), "expect": lambda _: None, "opening": lambda *_: Future()}
    prepared: Any = None
    client: Any = course
    return _asked(client, prepared, "", SimpleNamespace(**keys), None)  # type: ignore[arg-type]


def recorded(course: Course) -> tuple[str, str]:
    (entry,) = course.ledger.find(kind="result")
    fields = course.ledger.fields(entry.index)
    return fields["status"], fields["code"]


def test_an_answer_whose_receipts_hold_is_done(course: Course) -> None:
    known, _, ended = ask(course)
    ended.result()
    assert (known.answer, known.nodes) == (ANSWER, len(NODES))
    assert recorded(course) == ("done", "")


def test_no_answer_is_given_out_before_its_end_is_on_record(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    opening: Future[Any] = Future()
    opening.set_result([1])
    ended: Future[Any] = Future()
    ended.set_exception(LedgerUnavailableError("the disk is full"))
    monkeypatch.setattr("keyong.asking._asked", lambda *_: (SimpleNamespace(nodes=3), opening, ended))
    kept: list[Any] = []
    monkeypatch.setattr("keyong.asking.KeptAnswers.keep", lambda *arguments: kept.append(arguments))
    client: Any = course
    prepared: Any = SimpleNamespace(repeatable=True, identity="a query")
    runtime: Any = SimpleNamespace(digest="")
    with pytest.raises(LedgerUnavailableError):
        _vector(client, prepared, runtime, SimpleNamespace(), True, None)  # type: ignore[arg-type]
    assert kept == [], "the next time it would be given out without a record"


@pytest.mark.parametrize("name", ["answer.bfv", "summary.json"])
def test_what_the_coordinator_left_out_is_named(course: Course, name: str) -> None:
    del course.files[name]
    with pytest.raises(ReceivedError, match=f"institute gave out the result without {name}"):
        ask(course)
    assert recorded(course) == ("failed", "received")


@pytest.mark.parametrize("summary", [b"{", b"[]", b"{}", b"\xff", b'{"contributed": 7}', b"[" * 100_000])
def test_a_summary_that_names_no_nodes_is_refused(course: Course, summary: bytes) -> None:
    course.files["summary.json"] = summary
    with pytest.raises(ReceivedError, match=r"summary\.json is malformed"):
        ask(course)
    assert recorded(course) == ("failed", "received")


def test_an_answer_without_its_receipts_is_not_on_record_as_done(course: Course) -> None:
    for name in [name for name in course.files if name.startswith("receipts/") and NODES[0] in name]:
        del course.files[name]
    with pytest.raises(ReceivedError, match="names other nodes"):
        ask(course)
    assert recorded(course) == ("failed", "received")


def test_a_score_or_an_intersection_without_its_answer_is_named(course: Course) -> None:
    client: Any = course
    plan = JobPlan.read(course.run.plan)
    with pytest.raises(bilateral.BilateralVoidError, match=r"without answer\.sealed"):
        bilateral._receipt(client, plan, course.run.plan.digest, "train", course.files)
