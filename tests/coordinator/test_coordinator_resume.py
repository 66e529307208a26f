"""A job that outlives its nodes' absences and its coordinator: who comes back, and what is asked only once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
import pytest

from coordinator.recording import Room
from federation.errors import DeniedError, KeyongError, UsageError
from federation.wire import messages as m
from tests.coordinator.parties import FEDAVG, SERVER, Consortium

ROUNDS = 4
SEEDED = FEDAVG.replace('context.run_config["rounds"]', str(ROUNDS))
UNSEEDED = SEEDED.replace(
    "def main(grid, context):",
    "def main(grid, context):\n    initial = ArrayRecord({'w': Array(np.random.default_rng().normal(size=3))})",
)
EACH = (
    SERVER
    + f"""
@app.main()
def main(grid, context):
    result = FedMedian().start(grid, initial, num_rounds={ROUNDS})
    open("final.txt", "w").write(str(result.arrays["w"].numpy().tolist()))
"""
)


def each(consortium: Consortium, bundle: Any) -> dict[str, Any]:
    """What a plan has to say for single replies that hold their weight."""
    outputs = consortium.plan(bundle).outputs
    loss = outputs.train.metrics[0]
    named = (loss, loss.model_copy(update={"name": "num-examples", "maximum": "1000000000"}))
    stages = {
        name: stage.model_copy(update={"metrics": named})
        for name, stage in (("train", outputs.train), ("evaluate", outputs.evaluate))
    }
    return {"aggregation": "each", "outputs": outputs.model_copy(update=stages)}


class Lost:
    """Cuts a node's link in an exchange and brings it back when it is told to."""

    def __init__(self, consortium: Consortium, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._consortium = consortium
        self._links: dict[str, contextlib.AsyncExitStack] = {}

    async def attach(self, node: Any) -> None:
        link = self._links[node.name] = contextlib.AsyncExitStack()
        await link.enter_async_context(node.attached())
        self._stack.push_async_exit(link)

    async def detach(self, node: Any) -> None:
        await self._links.pop(node.name).aclose()


@contextlib.asynccontextmanager
async def serving(consortium: Consortium) -> Any:
    async with consortium.serving(nodes=False), contextlib.AsyncExitStack() as stack:
        links = Lost(consortium, stack)
        for node in consortium.nodes:
            await links.attach(node)
        yield links


def told(events: list[m.Event], kind: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.kind == kind]


# -- nodes ------------------------------------------------------------------------------------------------------------


async def test_a_node_that_went_is_asked_again_once_it_is_back(live: Consortium, app: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("coordinator.links.RETURN_SECONDS", 0.2)
    away, there = live.nodes[2], live.nodes[0]
    gone = asyncio.Event()
    tasks = []

    async def serve() -> list[m.Event]:
        async with serving(live) as links:

            async def leave(invocation: Any) -> None:
                if invocation.round == 2 and not gone.is_set():
                    gone.set()
                    tasks.append(asyncio.create_task(links.detach(away)))
                    await asyncio.sleep(60)

            async def wait_for_it(invocation: Any) -> None:
                if invocation.round == 4:  # it is back before this round ends, and takes part in the next
                    await asyncio.gather(*tasks)
                    await links.attach(away)

            away.before, there.before = leave, wait_for_it
            _, last, events = await live.run(app(SEEDED), rounds=ROUNDS, minimal_participants=2)
            assert last.kind == "done", last.data
            return events

    events = await serve()
    assert [one["participants"] for one in told(events, "round")] == [3, 2, 2, 2, 3, 3, 3, 3]
    assert [(one["node"], one["round"]) for one in told(events, "fell-out")] == [("mill-c", 2)]
    assert told(events, "returned") == [{"node": "mill-c", "round": 5}]


async def test_a_node_that_refused_is_not_asked_again(live: Consortium, app: Any) -> None:
    refusing = live.nodes[1]
    refusing.receipt = lambda receipt: receipt.model_copy(
        update={"outcome": "denied", "code": "output-shape", "output": "", "output_bytes": 0, "weight": 0}
    )
    async with live.serving():
        _, last, events = await live.run(app(SEEDED), rounds=ROUNDS, minimal_participants=2)
    assert last.kind == "done" and not told(events, "returned")
    assert len(refusing.asked) == 1 and len(refusing.plans) == 1


async def test_a_step_that_was_killed_is_tried_again_in_its_round(live: Consortium, app: Any) -> None:
    node, killed = live.nodes[1], []

    def kill(receipt: Any) -> Any:
        receipt = receipt.model_copy(update={"attempt": 1 + len(killed) if receipt.round == 2 else 1})
        if receipt.round == 2 and len(killed) < 2:
            killed.append(receipt.attempt)
            changes = {"outcome": "killed", "code": "node-stopped", "output": "", "output_bytes": 0, "weight": 0}
            return receipt.model_copy(update=changes)
        return receipt

    node.receipt = kill
    async with live.serving():
        job, last, events = await live.run(app(SEEDED), rounds=ROUNDS)
        files = await live.result(job)
    assert last.kind == "done", (last.data, events)
    assert killed == [1, 2] and not told(events, "fell-out")
    assert {"receipts/000002-evaluate-mill-b.receipt.json", "receipts/000002.3-evaluate-mill-b.receipt.json"} <= set(
        files
    )


# -- the coordinator --------------------------------------------------------------------------------------------------


async def interrupted(live: Consortium, bundle: Any, at: int, **changes: Any) -> str:
    """Run until exchange ``at`` is with the nodes, then stop the coordinator; returns the job."""
    reached = asyncio.Event()

    async def hold(invocation: Any) -> None:
        if invocation.round == at:
            reached.set()
            await asyncio.sleep(60)

    live.nodes[2].before = hold
    answered = [len(node.answered) + at for node in live.nodes]
    async with live.serving():
        job = await live.submit(live.plan(bundle, rounds=ROUNDS, **changes), bundle)
        async with asyncio.timeout(60):
            await reached.wait()
            while [len(node.answered) for node in live.nodes] != answered:  # the others have it on record as well
                await asyncio.sleep(0.01)
    live.nodes[2].before = None
    return job


async def _resumed(live: Consortium, job: str) -> tuple[list[m.Event], dict[str, bytes]]:
    async with live.serving():
        await live.call("job.resume", m.JobRef(job=job))
        events = await live.follow(job)
        return events, await live.result(job)


async def test_a_resumed_job_ends_with_the_model_of_one_that_was_not_interrupted(live: Consortium, app: Any) -> None:
    bundle = app(SEEDED)
    async with live.serving():
        job, last, _ = await live.run(bundle, rounds=ROUNDS)
        whole = await live.result(job)
    assert last.kind == "done"
    for node in live.nodes:
        node.asked.clear()
    job = await interrupted(live, bundle, 5)
    assert live.store.job(job).status == "interrupted"
    assert all(not node.closed[1:] for node in live.nodes), "nodes of an interrupted job keep it open"
    events, files = await _resumed(live, job)
    assert events[-1].kind == "done", events[-1].data
    assert told(events, "interrupted")[0] | {"reason": ""} == {
        "code": "interrupted",
        "reason": "",
        "exchange": 5,
        "exchanges": 2 * ROUNDS,
    }
    assert told(events, "resumed") == [{"exchange": 5}]
    assert [one["exchange"] for one in told(events, "round")] == [1, 2, 3, 4, 5, 6, 7, 8]
    for name in ("model.safetensors", "output/final.txt"):
        assert files[name] == whole[name]
    assert [one["exchange"] for one in json.loads(files["metrics.json"])] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert json.loads(files["summary.json"])["rounds_done"] == ROUNDS
    # four exchanges before and four after, none computed twice; two of the third party's answers came late
    assert [len(node.asked) for node in live.nodes] == [8, 8, 8]
    folder = live.institute.path / "jobs" / job.removeprefix("urn:uuid:")
    assert not (folder / "exchanges").exists(), "a job that is done has its result alone"
    with live.institute.open_ledger() as ledger:
        mine = [ledger.fields(entry.index) for entry in ledger.find(kind="job")]
    assert [one["event"] for one in mine][-5:] == ["submitted", "interrupted", "resumed", "done", "delivered"]


async def test_an_app_whose_start_is_left_to_chance_is_refused_and_what_was_recorded_stays(
    live: Consortium, app: Any
) -> None:
    job = await interrupted(live, app(UNSEEDED), 4)
    folder = live.institute.path / "jobs" / job.removeprefix("urn:uuid:")
    before = {name: (folder / name).read_bytes() for name in ("model.safetensors", "metrics.json")}
    asked = [len(node.asked) for node in live.nodes]
    events, files = await _resumed(live, job)
    assert events[-1].kind == "interrupted" and events[-1].data["code"] == "resume-differs"
    assert "exchange 1 " in events[-1].data["reason"] and "seed" in events[-1].data["hint"]
    assert events[-1].data["exchange"] == 4
    assert {name: files[name] for name in before} == before
    assert [len(node.asked) for node in live.nodes] == asked
    assert live.store.job(job).rounds_done == 2


async def test_without_that_check_it_would_go_on_with_answers_to_other_questions(
    live: Consortium, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await interrupted(live, app(UNSEEDED), 4)
    monkeypatch.setattr("coordinator.rounds.Rounds._check_course", lambda *_: None)
    events, _ = await _resumed(live, job)
    assert events[-1].kind == "done"


async def test_inv5_under_sum_no_single_reply_is_on_disk(live: Consortium, app: Any) -> None:
    single = {node.name: np.full(3, np.float32(0.0) + np.float32(node.number)) for node in live.nodes}

    def found(job: str) -> set[str]:
        folder = live.institute.path / "jobs" / job.removeprefix("urn:uuid:")
        data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        return {name for name, array in single.items() if _holds(data, array)}

    assert found(await interrupted(live, app(SEEDED), 3)) == set()
    for node in live.nodes:  # and the search finds what is there: under each the replies are kept
        node.answered.clear()
    bundle = app(EACH)
    assert found(await interrupted(live, bundle, 3, **each(live, bundle))) == set(single)


def _holds(data: bytes, array: Any) -> bool:
    import base64

    # a journal's bodies are base64, three bytes to four characters, wherever the array begins in them
    raw = array.tobytes()
    pieces = [base64.b64encode(raw[shift : shift + (len(raw) - shift) // 3 * 3]) for shift in range(3)]
    return raw in data or any(piece in data for piece in pieces)


async def test_under_each_single_replies_are_given_again_and_never_fetched(live: Consortium, app: Any) -> None:
    bundle = app(EACH)
    job = await interrupted(live, bundle, 5, **each(live, bundle))
    async with live.serving():
        assert not [name for name in await live.result(job) if name.startswith("exchanges")]
    events, files = await _resumed(live, job)
    assert events[-1].kind == "done", events[-1].data
    assert json.loads(files["output/final.txt"]) == [2.0 * ROUNDS] * 3
    assert [len(node.asked) for node in live.nodes] == [8, 8, 8]


async def test_a_job_that_cannot_reach_its_nodes_is_interrupted_and_goes_on_later(
    live: Consortium, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.links.RETURN_SECONDS", 0.2)
    monkeypatch.setattr("coordinator.cohort.WAIT_SECONDS", 0.2)
    away = live.nodes[0]
    async with serving(live) as links:

        async def leave(invocation: Any) -> None:
            if invocation.round == 3:
                away.before = None
                asyncio.get_running_loop().create_task(links.detach(away))
                await asyncio.sleep(60)

        away.before = leave
        job, last, _ = await live.run(app(SEEDED), rounds=ROUNDS)
        assert last.kind == "interrupted" and last.data["exchange"] == 3 and last.data["exit"] == 5
        assert "mill-a" in last.data["reason"]
        await links.attach(away)
        await live.call("job.resume", m.JobRef(job=job))
        events = await live.follow(job)
    assert events[-1].kind == "done", events[-1].data
    assert [len(node.asked) for node in live.nodes] == [8, 8, 8]


async def test_what_is_not_interrupted_cannot_be_resumed_and_only_its_requester_may(live: Consortium, app: Any) -> None:
    bundle = app(SEEDED)
    async with live.serving():
        done, _, _ = await live.run(bundle, rounds=ROUNDS)
        with pytest.raises(UsageError, match="only an interrupted job can be resumed, and this one is done"):
            await live.call("job.resume", m.JobRef(job=done))
    job = await interrupted(live, bundle, 2)
    async with live.serving():
        peer = live.nodes[0].peer
        assert peer is not None
        with pytest.raises(DeniedError, match="another member's"):
            await peer.call("job.resume", m.JobRef(job=job).to_bytes(), timeout=10)
        await live.call("job.cancel", m.JobRef(job=job))
        with pytest.raises(UsageError, match="this one is cancelled"):
            await live.call("job.resume", m.JobRef(job=job))
        assert (await live.follow(job))[-1].kind == "cancelled"
    plan = live.nodes[0].closed[-1]
    assert all(node.closed[-1] == plan for node in live.nodes), "the nodes are told that it is over"
    folder = live.institute.path / "jobs" / job.removeprefix("urn:uuid:")
    assert not (folder / "exchanges").exists()
    assert json.loads((folder / "summary.json").read_text())["status"] == "cancelled"


async def test_a_plan_that_expired_is_not_gone_on_with(
    live: Consortium, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from federation.home import now

    job = await interrupted(live, app(SEEDED), 2)
    async with live.serving():
        monkeypatch.setattr("coordinator.desk.now", lambda: now() + timedelta(hours=2))
        with pytest.raises(DeniedError, match="the plan expired at") as caught:
            await live.call("job.resume", m.JobRef(job=job))
    assert caught.value.code == "plan-expired"


async def test_listing_reads_a_recording_once_and_never_while_its_job_is_being_resumed(
    live: Consortium, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.recording import Recording

    job = await interrupted(live, app(SEEDED), 2)
    read: list[Any] = []
    take = Recording._load
    async with live.serving():
        monkeypatch.setattr(Recording, "_load", lambda self: (read.append(self), take(self)))

        async def listed() -> m.JobSummary:
            (found,) = m.Jobs.from_bytes((await live.call("job.list", m.Empty())).header).jobs
            return found

        assert (await listed()).exchange == 2 and len(read) == 1
        assert (await listed()).exchange == 2 and len(read) == 1
        assert live.service is not None
        live.service.desk._resuming.add(job)
        live.service.desk._goes_on.clear()
        assert (await listed()).status == "interrupted" and len(read) == 1


async def test_a_job_whose_recording_was_dropped_says_so(live: Consortium, app: Any) -> None:
    from coordinator.recording import Recording

    job = await interrupted(live, app(SEEDED), 2)
    Recording(live.institute.path / "jobs" / job.removeprefix("urn:uuid:")).drop()
    async with live.serving():
        with pytest.raises(KeyongError, match="no longer on record"):
            await live.call("job.resume", m.JobRef(job=job))


async def test_a_job_that_outgrows_the_room_for_its_recording_goes_on_without(live: Consortium, app: Any) -> None:
    async with live.serving(room=Room(job=4096)):
        _, last, events = await live.run(app(SEEDED), rounds=ROUNDS)
    assert last.kind == "done"
    (told,) = [event.data for event in events if event.kind == "not-resumable"]
    assert told["exchange"] > 1, "what there was room for was kept"


async def test_a_drained_coordinator_ends_its_exchange_and_leaves_the_rest(live: Consortium, app: Any) -> None:
    bundle = app(SEEDED)
    reached, go = asyncio.Event(), asyncio.Event()

    async def hold(invocation: Any) -> None:
        if invocation.round == 3:
            reached.set()
            await go.wait()

    live.nodes[2].before = hold
    async with live.serving():
        assert live.service is not None
        job = await live.submit(live.plan(bundle, rounds=ROUNDS), bundle)
        async with asyncio.timeout(60):
            await reached.wait()
        draining = asyncio.create_task(live.service.desk.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(KeyongError, match="stopping"):
            await live.submit(live.plan(bundle, rounds=ROUNDS), bundle)
        go.set()
        await draining
    status, rows = live.store.events(job, 0)
    assert status == "interrupted" and json.loads(rows[-1].data)["exchange"] == 4
    events, _ = await _resumed(live, job)
    assert events[-1].kind == "done"
    assert [len(node.asked) for node in live.nodes] == [8, 8, 8]


async def test_a_node_whose_agreement_is_suspended_comes_back_when_it_is_resumed(live: Consortium, app: Any) -> None:
    pausing, there, asked = live.nodes[2], live.nodes[0], []
    suspended = asyncio.Event()

    def kill(receipt: Any) -> Any:
        if receipt.round != 2:
            return receipt
        suspended.set()
        changes = {"outcome": "killed", "code": "agreement-suspended", "output": "", "output_bytes": 0, "weight": 0}
        return receipt.model_copy(update=changes)

    def refuse(answer: m.JobOpened) -> m.JobOpened:
        asked.append(suspended.is_set())
        return m.JobOpened(permitted=False, code="agreement-suspended") if suspended.is_set() else answer

    async def resume(invocation: Any) -> None:
        if invocation.round == 4:
            suspended.clear()

    pausing.receipt, pausing.opened, there.before = kill, refuse, resume
    async with live.serving():
        _, last, events = await live.run(app(SEEDED), rounds=ROUNDS, minimal_participants=2)
    assert last.kind == "done", last.data
    assert [one["participants"] for one in told(events, "round")] == [3, 2, 2, 2, 3, 3, 3, 3]
    assert told(events, "returned") == [{"node": "mill-c", "round": 5}]
    assert not told(events, "denied") and asked[0] is False and asked[-1] is False
