"""Whole jobs: a real coordinator, real links, a real server part in its sandbox; nodes without data."""

from __future__ import annotations

import asyncio
import contextlib
import json

import numpy as np
import pytest
from safetensors.numpy import load

from coordinator.server_session import ServerSession
from federation.errors import DeniedError, KeyongError
from federation.jobs import Content
from federation.wire import messages as m
from tests.coordinator.parties import FEDAVG, SERVER, Consortium


async def test_a_job_from_submission_to_result(live: Consortium, app):
    async with live.serving():
        job, last, events = await live.run(app())
        files = await live.result(job)
        listed = m.Jobs.from_bytes((await live.call("job.list", m.Empty())).header).jobs
    assert last.kind == "done" and last.data == {"total_weight": 600}
    kinds = [event.kind for event in events]
    assert kinds.count("permitted") == 3 and kinds.count("round") == 4
    assert [event.data["participants"] for event in events if event.kind == "round"] == [3] * 4
    # each node adds its number, weighted by 100 times its number: (1 + 4 + 9) / 6 a round
    np.testing.assert_allclose(load(files["model.safetensors"])["w"], np.full(3, 2 * 14 / 6), rtol=1e-6)
    assert json.loads(files["output/final.txt"]) == pytest.approx([2 * 14 / 6] * 3, rel=1e-6)
    assert sorted(name for name in files if name.startswith("output/")) == ["output/final.txt"]
    assert len([name for name in files if name.endswith(".receipt.json")]) == 12
    assert json.loads(files["summary.json"])["contributed"] == ["mill-a", "mill-b", "mill-c"]
    assert [(entry.job, entry.status, entry.rounds_done) for entry in listed] == [(job, "done", 2)]
    assert all(len(node.closed) == 1 for node in live.nodes)


BATCHNORM = (
    SERVER
    + """
import torch
@app.main()
def main(grid, context):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    model[1](torch.zeros(2, 3))
    result = FedAvg().start(grid, ArrayRecord(model.state_dict()), num_rounds=3)
"""
)


async def test_batchnorms_counter_goes_out_as_it_went_out_first(live: Consortium, app):
    async with live.serving():
        _, last, _ = await live.run(app(BATCHNORM), rounds=3)
    assert last.kind == "done", last.data
    sent = [content.arrays["arrays"]["1.num_batches_tracked"] for _, content in live.nodes[0].asked]
    assert [array.dtype for array in sent] == [np.dtype(np.int64)] * 6
    assert [int(array) for array in sent] == [1, 3, 3, 5, 5, 7]  # each mean adds 14/6, rounded


SLOW = FEDAVG.replace("def main(grid, context):", "def main(grid, context):\n    import time; time.sleep(60)")


async def test_a_cancel_asks_the_store_for_nothing_before_the_job_ends(live: Consortium, app, monkeypatch):
    """A job that runs is ended at the word of who asked for it, however busy the disk is."""
    async with live.serving():
        job = await live.submit(live.plan(app(SLOW)), app(SLOW))
        await live.follow(job, "started")
        assert live.service is not None and live.nodes[0].peer is not None
        desk = live.service.desk
        with pytest.raises(DeniedError, match="another member's"):
            await live.nodes[0].peer.call("job.cancel", m.JobRef(job=job).to_bytes(), timeout=10)

        def looked_up(name: str) -> None:
            raise AssertionError(name)

        monkeypatch.setattr(desk._store, "job", looked_up)
        await live.call("job.cancel", m.JobRef(job=job.removeprefix("urn:uuid:")))
        monkeypatch.undo()
        assert (await live.follow(job))[-1].kind == "cancelled"


async def test_nodes_hear_of_a_cancel_before_the_server_part_is_ended(live: Consortium, app, monkeypatch):
    """Between two steps there is no step to call off: the job's end must not wait for the server part's."""
    heard: list[bool] = []
    close = ServerSession.close

    async def close_after_the_nodes(session: ServerSession) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while not all(node.closed for node in live.nodes):
                    await asyncio.sleep(0.01)
        heard.append(all(node.closed for node in live.nodes))
        await close(session)

    async with live.serving():
        job = await live.submit(live.plan(app(SLOW)), app(SLOW))
        await live.follow(job, "started")
        monkeypatch.setattr(ServerSession, "close", close_after_the_nodes)
        await live.call("job.cancel", m.JobRef(job=job))
        assert (await live.follow(job))[-1].kind == "cancelled"
    assert heard == [True]
    assert all(len(node.closed) == 1 for node in live.nodes)


async def test_a_cancelled_job_closes_nodes_and_session_and_is_on_record(live: Consortium, app):
    async with live.serving():
        job = await live.submit(live.plan(app(SLOW)), app(SLOW))
        await live.follow(job, "started")
        before = asyncio.get_running_loop().time()
        await asyncio.gather(*(live.call("job.cancel", m.JobRef(job=job)) for _ in range(3)))
        assert asyncio.get_running_loop().time() - before < 10
        events = await live.follow(job)
        files = await live.result(job)
        assert live.service is not None and live.service.desk.running == 0
        with pytest.raises(KeyongError, match="it is cancelled"):
            await live.call("job.cancel", m.JobRef(job=job))
    assert events[-1].kind == "cancelled"
    assert json.loads(files["summary.json"])["status"] == "cancelled"
    assert all(len(node.closed) == 1 for node in live.nodes)
    with live.institute.open_ledger() as ledger:
        assert [ledger.fields(entry.index)["event"] for entry in ledger.find(kind="job")] == [
            "submitted",
            "cancelled",
            "delivered",
        ]


async def test_inv2_what_a_coordinator_refuses_itself_is_on_its_record(live: Consortium, app):
    """Without the plan's own key: no job began, and none ended."""
    async with live.serving():
        plan = live.plan(app(FEDAVG))
        with pytest.raises(KeyongError) as caught:
            await live.submit(plan, app(SLOW))
        assert caught.value.code == "code-mismatch"
        with pytest.raises(KeyongError):
            await live.call("job.submit", m.Submit(plan="not a plan"), (b"x",))
    with live.institute.open_ledger() as ledger:
        found = [ledger.fields(entry.index) for entry in ledger.find(kind="job")]
    digest = plan.seal(live.institute.key("statement")).digest
    assert found[0] == {"event": "refused", "requester": "institute", "code": "code-mismatch", "statement": digest}
    assert [one["event"] for one in found] == ["refused", "refused"]
    assert found[1]["statement"] == ""


async def test_jobs_run_some_at_a_time_and_the_others_know_their_place(live: Consortium, app):
    async with live.serving(at_once=1):
        jobs = [await live.submit(live.plan(app(SLOW)), app(SLOW)) for _ in range(3)]
        second, third = [await live.follow(job, "queued") for job in jobs[1:]]
        assert [event.data["place"] for event in (*second, *third) if event.kind == "queued"] == [1, 2]
        status = m.Status.from_bytes((await live.call("status", m.Empty())).header)
        assert status.jobs_running == 1
        await live.call("job.cancel", m.JobRef(job=jobs[1]))
        while [event.data for event in await live.follow(jobs[2], "queued") if event.kind == "queued"][-1][
            "place"
        ] != 1:
            await asyncio.sleep(0.05)
        await live.call("job.cancel", m.JobRef(job=jobs[0]))
        await live.follow(jobs[2], "started")
        assert (await live.follow(jobs[1]))[-1].kind == "cancelled"
    # stopped with a job running: on record as interrupted
    status, events = live.store.events(jobs[2], 0)
    assert status == "interrupted" and events[-1].kind == "interrupted"


async def test_a_node_that_comes_back_answers_from_its_record(live: Consortium, app):
    node = live.nodes[1]
    lost = []
    over = asyncio.Event()

    async def come_back() -> None:
        async with node.attached():  # the coordinator cuts the older link, and the answer with it
            await over.wait()

    async def lose(invocation) -> None:
        if invocation.round == 2 and not lost:
            lost.append(asyncio.create_task(come_back()))
            await asyncio.sleep(60)

    node.before = lose
    async with live.serving():
        _, last, events = await live.run(app())
        over.set()
        await asyncio.gather(*lost)
    assert len(lost) == 1
    assert last.kind == "done", last.data
    assert len(node.asked) == 4  # four steps, none computed twice
    assert not [event for event in events if event.kind == "fell-out"]


KRUM = (
    SERVER
    + """
@app.main()
def main(grid, context):
    result = Krum(num_malicious_nodes=1).start(grid, initial, num_rounds=1)
    open("final.txt", "w").write(str(result.arrays["w"].numpy().tolist()))
"""
)


async def test_krum_sees_single_replies_under_each_and_weighs_them_by_receipt(live: Consortium, app):
    def train(stage: str, sent: Content, number: int) -> Content:
        metrics = {"metrics": {"loss": 1.0, "num-examples": 10**9 if number == 3 else 1}}
        value = np.float32(50 if number == 3 else 1)
        return Content({"arrays": {"w": np.full(3, value)}} if stage == "train" else {}, metrics)

    stage = live.plan(app(KRUM)).outputs
    loss = stage.train.metrics[0]
    named = (loss, loss.model_copy(update={"name": "num-examples", "maximum": "1000000000"}))
    outputs = stage.model_copy(
        update={
            "train": stage.train.model_copy(update={"metrics": named}),
            "evaluate": stage.evaluate.model_copy(update={"metrics": named}),
        }
    )
    for node in live.nodes:
        node.train = train
    mean = KRUM.replace("Krum(num_malicious_nodes=1)", "FedAvg()")
    async with live.serving():
        job, last, _ = await live.run(app(KRUM), aggregation="each", rounds=1, outputs=outputs)
        assert last.kind == "done", last.data
        assert json.loads((await live.result(job))["output/final.txt"]) == [1.0, 1.0, 1.0]
        job, last, _ = await live.run(app(mean), aggregation="each", rounds=1, outputs=outputs)
        # claimed weights would give 50; rows give (100 + 200 + 300 * 50) / 600
        assert json.loads((await live.result(job))["output/final.txt"]) == pytest.approx([15300 / 600] * 3)
        assert json.loads((await live.result(job))["summary.json"])["unprotected"] is True
