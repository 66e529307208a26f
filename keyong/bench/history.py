"""A long history to verify: as a node writes it, with real signatures, no two entries alike.

Each round of a job is an INTENT with the coordinator's signed invocation and the decision, and its OUTCOME with the node's
signed receipt: the fields, names and sizes of a real node's entries. Statements are made from one template whose bytes are
filled in (round, digests), then signed one by one; the ledger takes them as it always does, in groups with a signed checkpoint
each.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from federation.crypto import SigningKey
from federation.home import Home
from federation.ledger import Ledger
from federation.ledger.writer import Appended
from federation.statements import DecisionRecord, Invocation, Isolation, Judged, Receipt, sign
from keyong.bench.progress import Advance

PURPOSE = "fed:RollingForceModel"
WINDOW = 2048
"""Entries that wait for their COMMIT at once; the writer takes groups of 256."""
APART, CHUNK = 10_000, 4_000
"""Entries from which on another process signs, and how many it hands over at once."""
_ROUND = 123_456_789
_DIGESTS = tuple(f"sha256:{hashlib.sha256(bytes([number])).hexdigest()}" for number in range(12))
_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def write_history(home: Home, entries: int, advance: Advance) -> None:
    """Append so many entries to the home's ledger, half of them intents, half their outcomes."""
    waiting: deque[Future[Appended]] = deque()
    with home.open_ledger() as ledger:
        for done, pair in zip(range(0, entries, 2), _made(home, ledger.size, entries), strict=False):
            waiting.extend(_submit(ledger, *pair))
            while len(waiting) > WINDOW:
                waiting.popleft().result()
            if not done % WINDOW:
                advance(done, entries)
        for one in waiting:
            one.result()
        advance(entries, entries)


Pair = tuple[dict[str, Any], dict[str, Any]]
"""The fields of an INTENT and of its OUTCOME."""


def _made(home: Home, start: int, entries: int) -> Iterator[Pair]:
    """The pairs of so many entries, in order; those of a long history are signed by a process of their own meanwhile."""
    if entries < APART:
        yield from itertools.islice(_pairs(home.identity.member, home.key("statement"), start), -(-entries // 2))
        return
    chunks = [(start + at, min(CHUNK, entries - at)) for at in range(0, entries, CHUNK)]
    # Spawned, not forked: the ledger's writer is a thread.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ahead = deque(pool.submit(_chunk, home.path, *one) for one in chunks[:2])
        for number in range(len(chunks)):
            yield from ahead.popleft().result()
            if number + 2 < len(chunks):
                ahead.append(pool.submit(_chunk, home.path, *chunks[number + 2]))


def _chunk(home: Path, start: int, entries: int) -> list[Pair]:
    return list(_made(Home(home), start, entries))


def _submit(ledger: Ledger, intent: dict[str, Any], outcome: dict[str, Any]) -> list[Future[Appended]]:
    return [ledger.submit("intent", intent), ledger.submit("outcome", outcome, ref=outcome["intent"])]


def _pairs(member: str, key: SigningKey, start: int) -> Iterator[Pair]:
    decision = _decision()
    invocation, receipt = _invocation(member), _receipt(member, decision)
    judged = decision.model_dump(mode="json")
    for at in itertools.count(start, 2):
        number = at // 2 + 1
        asked = sign(key, Invocation.TYPE, _filled(invocation, number % 200_000 + 1, number, at))
        answered = sign(key, Receipt.TYPE, _filled(receipt, number % 200_000 + 1, number, at))
        intent = {
            "plan": _DIGESTS[0],
            "invocation": asked.to_bytes(),
            "requester": member,
            "agreement": _DIGESTS[1],
            "dataset": "rows",
            "data_version": _DIGESTS[2],
            "purpose": PURPOSE,
            "action": "fed:train",
            "code": _DIGESTS[3],
            "runtime": _DIGESTS[4],
            "protection": "fed:masked",
            "round": number,
            "attempt": 1,
            "stage": "train",
            "decision": judged,
        }
        outcome = {
            "receipt": answered.to_bytes(),
            "plan": _DIGESTS[0],
            "outcome": "ok",
            "code": "",
            "dataset": "rows",
            "intent": at,
        }
        yield intent, outcome


def _filled(template: bytes, round_: int, number: int, at: int) -> bytes:
    """The template with this step's round, digest and intent in place of its own."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest().encode()
    return (
        template.replace(b'"round":200000', b'"round":%d' % round_)
        .replace(_DIGESTS[5][7:].encode(), digest)
        .replace(b'"intent":%d' % _ROUND, b'"intent":%d' % at)
    )


def _invocation(member: str) -> bytes:
    return Invocation(
        issued=_MOMENT,
        expires=_MOMENT + timedelta(hours=1),
        plan=_DIGESTS[0],
        node=member,
        round=200_000,
        stage="train",
        content=_DIGESTS[5],
    ).payload()


def _receipt(member: str, decision: DecisionRecord) -> bytes:
    isolation = Isolation(
        tier="T2", kernel="6.1.0", landlock_abi=4, seccomp=_DIGESTS[6], arguments=_DIGESTS[7], limits_by="supervisor"
    )
    return Receipt(
        issued=_MOMENT,
        expires=_MOMENT + timedelta(days=3650),
        node=member,
        plan=_DIGESTS[0],
        invocation=_DIGESTS[5],
        round=200_000,
        stage="train",
        intent=_ROUND,
        outcome="ok",
        decision=decision,
        dataset="rows",
        data_version=_DIGESTS[2],
        snapshot=_DIGESTS[8],
        code_digest=_DIGESTS[3],
        runtime=_DIGESTS[4],
        isolation=isolation,
        input=_DIGESTS[9],
        output=_DIGESTS[10],
        output_bytes=4304,
        weight=22_431,
        protection="fed:masked",
        started=_MOMENT,
        ended=_MOMENT,
    ).payload()


def _decision() -> DecisionRecord:
    judged = (
        ("@type", "eq", "Agreement", "Agreement", ""),
        ("profile", "eq", "https://w3id.org/keyong/fed/1", "https://w3id.org/keyong/fed/1", ""),
        ("odrl:assignee", "eq", "urn:keyong:member:institute", "urn:keyong:member:institute", ""),
        ("odrl:purpose", "isA", PURPOSE, PURPOSE, "permission/1/constraint/0"),
        ("odrl:count", "lteq", "2", "2", "permission/1/constraint/1"),
        ("odrl:dateTime", "lt", "2027-01-21T02:40:16Z", "2026-11-22T02:42:02+00:00", "permission/1/constraint/2"),
        ("fed:codeDigest", "isAnyOf", _DIGESTS[3], _DIGESTS[3], "permission/1/constraint/3"),
        ("fed:minParticipants", "gteq", "3", "4", "permission/1/constraint/4"),
        ("fed:protection", "isAnyOf", "fed:masked", "fed:masked", "permission/1/constraint/5"),
        ("duty", "eq", "odrl:inform", "receipt", "permission/1/duty/0"),
    )
    constraints = tuple(
        Judged(operand=operand, operator=operator, right=right, left=left, satisfied=True, note=note)
        for operand, operator, right, left, note in judged
    )
    return DecisionRecord(permit=True, agreement=_DIGESTS[1], rule="permission/1", constraints=constraints)


def statement_bytes(member: str, number: int, at: int) -> tuple[bytes, bytes]:
    """The payloads of one step, as they are signed; the tests hold them against the models."""
    round_ = number % 200_000 + 1
    return (
        _filled(_invocation(member), round_, number, at),
        _filled(_receipt(member, _decision()), round_, number, at),
    )
