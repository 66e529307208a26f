"""This release and the one before on one link: a recorded node, requester and coordinator of release 0.1.0."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import coordinator.service as coordinator_service
import enterprise_node.service as node_service
import federation.home
from coordinator import rounds
from coordinator.service import CoordinatorService
from enterprise_node.service import NodeService
from federation.crypto import certificate_fingerprint
from federation.errors import KeyongError
from federation.home import Home
from federation.statements import Envelope, Invocation
from federation.wire.dial import refuse_all
from federation.wire.peer import Peer
from federation.wire.protocol import PROTOCOL
from keyong import client as client_module
from keyong import runtime as runtimes
from keyong.upgrading import upgrade
from sandbox import Tier
from tests.integration.older_peers import OlderEnd, shape, unpack

PACKAGES = ("federation", "coordinator", "enterprise_node", "keyong")
STATUSES = {"submitted", "running", "done", "failed", "denied", "cancelled", "interrupted"}
"""What release 0.1.0 knows: it follows a job while the status is one of the first two."""


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The recording, with the clock of every module standing where it stood."""
    found = unpack(tmp_path / "recorded")
    frozen, real = datetime.fromisoformat(found["frozen"]), federation.home.now
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES and getattr(module, "now", None) is real:
            monkeypatch.setattr(module, "now", lambda: frozen)
    monkeypatch.setattr("coordinator.job.secrets.randbits", lambda bits: found["node_number"] - 1)
    for service in (coordinator_service, node_service):
        monkeypatch.setattr(service, "prove_tier", lambda floor, **_: Tier.T2)
    try:
        # The plan names the runtime of that day; what runs in it is today's.
        found["runtime_here"] = replace(runtimes.load(), digest=found["runtime"])
    except KeyongError as error:
        pytest.skip(f"the runtime is not built: {error}")
    found["homes"] = {}
    for name in ("institute", "mill"):
        home = Home(tmp_path / "recorded" / "before" / name)
        upgrade(home)
        found["homes"][name] = home
    with contextlib.closing(sqlite3.connect(found["homes"]["mill"].path / "store.db")) as connection:
        connection.execute("UPDATE dataset SET path = ?", (str(tmp_path / "recorded/data/passes.csv"),))
        connection.commit()
    found["node"] = next(link for name, link in found["links"].items() if name.endswith("mill-a"))
    found["requester"] = max((link for name, link in found["links"].items() if name.endswith("institute")), key=len)
    return found


class OfThatDay:
    """An invocation that expires as those of release 0.1.0 did."""

    read = staticmethod(Invocation.read)

    def __new__(cls, **fields: Any) -> Any:
        return Invocation(**fields | {"expires": fields["issued"] + timedelta(seconds=90)})


class Context:
    """What gRPC gives a servicer, as far as a listener uses it."""

    def __init__(self, end: OlderEnd) -> None:
        self.write = end.write

    async def send_initial_metadata(self, metadata: Any) -> None:
        assert metadata == ()

    async def abort(self, code: Any, text: str) -> None:
        raise AssertionError(f"the link was refused: {code} {text}")


@contextlib.asynccontextmanager
async def serving(recording: dict[str, Any]) -> AsyncIterator[CoordinatorService]:
    service = CoordinatorService(recording["homes"]["institute"], recording["runtime_here"], "127.0.0.1:0")
    ready = asyncio.Event()
    running = asyncio.create_task(service.run(lambda state: ready.set()))
    try:
        async with asyncio.timeout(60):
            await ready.wait()
        yield service
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def attached(service: CoordinatorService, home: Home, end: OlderEnd) -> AsyncIterator[None]:
    """A recorded member's link to this tree's listener, as gRPC hands it over after the handshake."""
    fingerprint = certificate_fingerprint(home.tls.certificate_pem)
    link = asyncio.create_task(service._listener._serve(end.frames(), Context(end), fingerprint))
    try:
        yield
    finally:
        end.end()
        await asyncio.wait_for(asyncio.gather(link, return_exceptions=True), 10)


async def test_a_node_and_a_requester_of_the_older_release_at_this_coordinator(
    recording: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In release 0.1.0 an invocation expired with its round, now with its plan: either is within what a node takes, but
    # the recorded receipts name the invocations of that day.
    monkeypatch.setattr(rounds, "Invocation", OfThatDay)
    node, asker = OlderEnd(recording["node"], member=True), OlderEnd(recording["requester"], member=True)
    async with (
        serving(recording) as service,
        attached(service, recording["homes"]["mill"], node),
        attached(service, recording["homes"]["institute"], asker),
    ):
        for exchange in node.begun():
            answered = await node.play(exchange)
            assert shape(json.loads(answered.answer)) == shape(json.loads(exchange.answer)), exchange.method
        for exchange in asker.begun():
            if exchange.method == "job.events":
                continue
            answered = await asker.play(exchange)
            assert shape_of_known(answered.answer) == shape_of_known(exchange.answer), exchange.method
            if exchange.method == "hello":
                assert json.loads(answered.answer)["version"] == 1
            if exchange.method == "job.submit":
                events = await follow(asker)
            if exchange.method == "job.result":
                assert told(node) == []
                assert files(answered) == files(exchange)
    recorded = [event for one in asker.begun("job.events") for event in json.loads(one.answer)["events"]]
    assert [event["kind"] for event in events] == [event["kind"] for event in recorded]
    for ours, theirs in zip(events, recorded, strict=True):
        assert set(ours) == set(theirs) and set(ours["data"]) >= set(theirs["data"])

    # What it asked of the node is, byte for byte, what the older coordinator asked.
    assert node.unknown == []
    wanted = [one for one in recording["node"] if not one.by_member]
    assert [one.method for one in node.asked] == [one.method for one in wanted]
    for asked, old in zip(node.asked, wanted, strict=True):
        assert (asked.header, asked.body) == (old.header, old.body), asked.method


async def follow(asker: OlderEnd) -> list[Any]:
    """A job's events as the older client asks for them."""
    events: list[Any] = []
    first = asker.begun("job.events")[0]
    while True:
        after = events[-1]["number"] if events else 0
        answered = await asker.play(first, lambda header, at=after: _with(header, after=at))
        answer = json.loads(answered.answer)
        assert set(answer) == {"events", "status"} and answer["status"] in STATUSES
        events += answer["events"]
        if not answer["events"] and answer["status"] not in ("submitted", "running"):
            return events


def told(node: OlderEnd) -> list[tuple[str, Any, Any]]:
    """Where what was asked of the node differs from what the older coordinator asked, by method, field by field."""
    found = []
    for asked in node.asked:
        if asked.recorded is None:  # a method that it does not know
            found.append((asked.method, True, None))
            continue
        ours, theirs = (document(asked.header), document(asked.recorded.header))
        found += [(asked.method, ours.get(k), theirs.get(k)) for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)]
    return found


def document(header: bytes) -> dict[str, Any]:
    """A header with the statement in it opened."""
    found: dict[str, Any] = json.loads(header)
    if "invocation" in found:
        found |= receipt(found.pop("invocation"))
    return found


def _with(header: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(header) | changes, separators=(",", ":"), sort_keys=True).encode()


def shape_of_known(header: bytes) -> Any:
    """The shape of an answer; a result's summary may say more than the older release knew."""
    found = json.loads(header)
    if "summary" in found:
        found["summary"] = {}
    return shape(found)


def files(exchange: Any) -> dict[str, bytes]:
    """The aggregate and the app's own files of a result."""
    found, at = {}, 0
    for file in json.loads(exchange.answer)["files"]:
        found[file["path"]] = exchange.answer_body[at : at + file["size"]]
        at += file["size"]
    return {path: data for path, data in found.items() if path.endswith(".safetensors")}


async def test_this_node_at_a_coordinator_of_the_older_release(
    recording: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = OlderEnd(recording["node"], member=False)
    home = recording["homes"]["mill"]
    # The plan was recorded with the exact number of rows, which requesters do not know; this release takes ranges alone.
    monkeypatch.setattr("enterprise_node.grounds.check_weights", lambda *_: None)
    service = NodeService(home, recording["runtime_here"])

    @contextlib.asynccontextmanager
    async def linked() -> AsyncIterator[Peer]:
        peer = Peer(
            end.write,
            end.frames(),
            dialled=True,
            handler=service._handle,
            body_limit=2**30,
            spool=home.folder("spool"),
            tell=False,
        )
        peer.member = "institute"
        carrying = asyncio.create_task(peer.run())
        try:
            yield peer
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)

    monkeypatch.setattr(service, "_connect", linked)
    up = asyncio.Event()
    states: list[str] = []

    def told(state: str) -> None:
        states.append(state)
        if state == "attached":
            up.set()

    running = asyncio.create_task(service.run(told))
    try:
        async with asyncio.timeout(60):
            await up.wait()
        for exchange in end.begun():
            answered = await end.play(exchange)
            compare(exchange, answered)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert set(end.unknown) == {"dataspace.gateway"} and not [state for state in states if state.startswith("detached")]
    for asked in end.asked:
        if asked.method == "dataspace.gateway":  # it knows nothing of it, and that is no fault
            continue
        assert asked.recorded is not None
        assert shape(json.loads(asked.header)) == shape(json.loads(asked.recorded.header)), asked.method


MINE = {"isolation", "runtime", "intent", "saturated", "leak_bits", "snapshot"}
"""Of a receipt: this machine's, where the ledger stands after its own entries, and what this release states otherwise: the
owner keeps the count of saturated elements, the bits that may have left are filled in, and a snapshot's digest is keyed."""


def compare(recorded: Any, answered: Any) -> None:
    """This node's answer has the fields of the older one's, and says the same."""
    old, new = json.loads(recorded.answer), json.loads(answered.answer)
    assert set(new) == set(old), recorded.method
    if recorded.method == "job.open":
        assert new["permitted"] is True
    if recorded.method == "job.invoke":
        assert answered.answer_body == recorded.answer_body
        ours, theirs = receipt(new["receipt"]), receipt(old["receipt"])
        assert set(ours) == set(theirs)
        assert {k: v for k, v in ours.items() if k not in MINE} == {k: v for k, v in theirs.items() if k not in MINE}


def receipt(text: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(Envelope.from_bytes(base64.b64decode(text)).payload)
    return payload


async def test_what_only_this_release_knows_would_show(
    recording: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_service, "negotiate", lambda offered: PROTOCOL[1])
    node, asker = OlderEnd(recording["node"], member=True), OlderEnd(recording["requester"], member=True)
    async with (
        serving(recording) as service,
        attached(service, recording["homes"]["mill"], node),
        attached(service, recording["homes"]["institute"], asker),
    ):
        for exchange in node.begun():
            await node.play(exchange)
        for method in ("hello", "job.submit"):
            await asker.play(asker.begun(method)[0])
        await follow(asker)
    assert any(method == "job.invoke" and theirs is None for method, _, theirs in told(node))


def test_this_requester_at_a_coordinator_of_the_older_release(
    recording: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    end = OlderEnd(recording["requester"], member=False)

    @contextlib.asynccontextmanager
    async def linked(home: Home, **_: Any) -> AsyncIterator[Peer]:
        spool = home.folder("spool")
        peer = Peer(
            end.write, end.frames(), dialled=True, handler=refuse_all, body_limit=2**30, spool=spool, tell=False
        )
        carrying = asyncio.create_task(peer.run())
        try:
            yield peer
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)

    monkeypatch.setattr(client_module, "connect", linked)
    submitted = next(one for one in recording["requester"] if one.method == "job.submit")
    plan = Envelope.from_bytes(base64.b64decode(json.loads(submitted.header)["plan"]))
    with client_module.Client(recording["homes"]["institute"]) as client:
        assert client.status().name == "Test" and [one.description.dataset for one in client.catalog()] == ["passes"]
        job = client.submit(plan, submitted.body)
        kinds = [event.kind for event in client.events(job)]
        assert kinds[0] == "permitted" and kinds[-1] == "done" and kinds.count("round") == 4
        assert client.jobs()[0].job == job
        assert client.result(job, tmp_path / "result")["status"] == "done"
    assert end.unknown == []
    for asked in end.asked:
        assert asked.recorded is not None
        assert shape(json.loads(asked.header)) == shape(json.loads(asked.recorded.header)), asked.method
        if asked.method == "job.submit":
            assert (asked.header, asked.body) == (submitted.header, submitted.body)
