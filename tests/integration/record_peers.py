"""Makes ``recorded/links-0.1.0.tar.gz``: every frame between a node, a requester and a coordinator of release 0.1.0.

Ran once, with the packages and tests of that release before this tree's in ``PYTHONPATH``; kept to show what the recording
holds: two homes as they were before, with keys that belong to nobody; the node's data; and for each link the bytes of its
frames in the order in which the coordinator saw them. The clock stands still, so that a replay can stand at the same time.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tarfile
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import federation.home
from tests.ports import own_port

FROZEN = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
federation.home.now = lambda: FROZEN

import coordinator.job as job_module  # noqa: E402
import coordinator.service  # noqa: E402
import enterprise_node.service  # noqa: E402
from enterprise_node.datasets import inspect_source  # noqa: E402
from enterprise_node.service import NodeService  # noqa: E402
from federation import correspondence  # noqa: E402
from federation.holdings import Holdings, open_engine  # noqa: E402
from federation.home import Home  # noqa: E402
from federation.policy import agreement_policy  # noqa: E402
from federation.statements import (  # noqa: E402
    Agreement,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    StageOutput,
)
from federation.wire import peer as peer_module  # noqa: E402
from keyong import registering  # noqa: E402
from keyong import runtime as runtimes  # noqa: E402
from keyong.client import Client  # noqa: E402
from tests.coordinator import parties  # noqa: E402

NODE_NUMBER = 1234567
SERVER = (
    parties.SERVER
    + """
@app.main()
def main(grid, context):
    strategy = FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
    strategy.start(grid, initial, num_rounds=context.run_config["rounds"])
"""
)
CLIENT = """
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
import pyarrow.parquet as pq
app = ClientApp()

def rows(context):
    return pq.read_table(context.node_config["dataset-path"] + "/data.parquet")["x"].to_numpy()

@app.train()
def train(msg, context):
    w = Array((msg.content["arrays"]["w"].numpy() + rows(context).mean()).astype("float32"))
    metrics = MetricRecord({"loss": 0.5, "num-examples": len(rows(context))})
    return Message(RecordDict({"arrays": ArrayRecord({"w": w}), "metrics": metrics}), reply_to=msg)

@app.evaluate()
def evaluate(msg, context):
    metrics = MetricRecord({"loss": 0.25, "num-examples": len(rows(context))})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
"""

RECORDED: list[tuple[Any, str, bytes]] = []


def tap() -> None:
    """Keep every frame of the listening ends, with its direction."""
    made = peer_module.Peer.__init__

    def init(self: Any, send: Any, frames: Any, *, dialled: bool, **options: Any) -> None:
        async def sending(frame: Any) -> None:
            RECORDED.append((self, "<", frame.SerializeToString()))
            await send(frame)

        async def arriving() -> Any:
            async for frame in frames:
                RECORDED.append((self, ">", frame.SerializeToString()))
                yield frame

        if dialled:
            made(self, send, frames, dialled=True, **options)
        else:
            made(self, sending, arriving(), dialled=False, **options)

    peer_module.Peer.__init__ = init


def prepare(base: Path) -> tuple[Home, Home, str, str]:
    """Institute and mill, the mill's dataset, and an agreement in force."""
    from coordinator.store import CoordinatorStore

    institute = parties.found(base / "institute", own_port())
    store = CoordinatorStore(open_engine(institute.path / "coordinator.db"))
    mill = parties.enrol(institute, store, base / "mill", "mill-a")
    (base / "data").mkdir()
    (base / "data" / "passes.csv").write_text("x\n" + "".join(f"{value}.5\n" for value in range(20)))
    source = inspect_source(base / "data" / "passes.csv", work=mill.folder("spool"))
    registering.register(mill, source, registering.describe_dataset(mill, source, dataset="passes", title="Passes"))
    number = f"urn:uuid:{uuid.uuid4()}"
    expires = FROZEN + timedelta(days=30)
    policy = agreement_policy(
        provider="mill-a",
        consumer="institute",
        dataset="passes",
        actions=["fed:train", "fed:evaluate"],
        purposes=["fed:ProcessOptimization"],
        count=3,
        expires=expires,
        agreement_id=number,
        now=FROZEN,
        protection="fed:none",
    )
    agreement = Agreement(
        issued=FROZEN,
        expires=expires,
        id=number,
        provider="mill-a",
        consumer="institute",
        dataset="passes",
        title="Passes",
        roster=institute.history.digest,
        policy=policy,
    )
    envelope = agreement.seal(mill.key("statement"), institute.key("statement"))
    with mill.open_ledger() as ledger:
        holdings = Holdings(open_engine(mill.path / "store.db"))
        correspondence.enter_into_force(holdings, ledger, envelope, agreement, FROZEN)
    return institute, mill, envelope.digest, source.data_version


async def play(base: Path, institute: Home, mill: Home, agreement: str, version: str) -> None:
    """Serve both, run one job as a requester, and end."""
    runtime = runtimes.load()
    job_module.secrets.randbits = lambda bits: NODE_NUMBER - 1
    coordinator.service.run_canary = enterprise_node.service.run_canary = lambda: None
    bundle = parties.bundle_of(base / "app", server=SERVER, client_app=CLIENT)
    stage = StageOutput(sent=True, metrics=(MetricSpec(name="loss"), MetricSpec(name="num-examples", maximum="1000")))
    consortium = parties.Consortium(institute, None, [], runtime)  # type: ignore[arg-type]
    consortium.nodes = [type("Node", (), {"name": "mill-a", "rows": 20})()]
    plan = consortium.plan(
        bundle,
        cohort=(PlannedDataset(node="mill-a", dataset="passes", data_version=version, agreement=agreement),),
        outputs=OutputSchema(train=stage, evaluate=StageOutput(sent=False, metrics=stage.metrics)),
    ).seal(institute.key("statement"))
    consortium.nodes = []
    async with consortium.serving(nodes=False):
        node = NodeService(mill, runtime)
        attached = asyncio.Event()
        serving = asyncio.create_task(node.run(lambda state: attached.set() if state == "attached" else print(state)))
        await asyncio.wait_for(attached.wait(), 30)

        def ask() -> None:
            with Client(Home(institute.path)) as client:
                client.status()
                client.catalog()
                job = client.submit(plan, bundle.to_bytes())
                kinds = [(event.kind, event.data) for event in client.events(job)]
                print(kinds)
                client.jobs()
                print(client.result(job, base / "result"))

        await asyncio.to_thread(ask)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    (base / "recording.json").write_text(
        json.dumps({"frozen": FROZEN.isoformat(), "node_number": NODE_NUMBER, "runtime": runtime.digest})
    )


def main() -> None:
    """Record into the archive named on the command line."""
    tap()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        institute, mill, agreement, version = prepare(base)
        for home in (institute, mill):
            shutil.copytree(home.path, base / "before" / home.path.name)
        asyncio.run(play(base, institute, mill, agreement, version))
        peers: dict[Any, list[bytes]] = {}
        for peer, direction, frame in RECORDED:
            peers.setdefault(peer, []).append(direction.encode() + len(frame).to_bytes(4, "big") + frame)
        for number, (peer, frames) in enumerate(peers.items()):
            print(peer.member, len(frames))
            (base / f"link-{number}-{peer.member}").write_bytes(b"".join(frames))
        kept = [*base.glob("before/**/*"), *base.glob("link-*"), base / "recording.json", base / "data" / "passes.csv"]
        with tarfile.open(sys.argv[1], "w:gz", compresslevel=9) as archive:
            for path in sorted(kept):
                info = archive.gettarinfo(path, str(path.relative_to(base)))
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = ""
                with path.open("rb") if path.is_file() else open("/dev/null", "rb") as file:
                    archive.addfile(info, file if path.is_file() else None)


if __name__ == "__main__":
    main()
