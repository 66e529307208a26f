"""One job's life on the coordinator: nodes asked, server part run, exchanges carried, result kept."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from coordinator.links import Links
from coordinator.results import RESULT_BYTES, ResultFolder
from coordinator.rounds import Answer, Exchange, RoundFailedError, Rounds
from coordinator.server_session import ServerPartError, ServerSession
from federation.errors import DeniedError, KeyongError
from federation.home import Home, now
from federation.jobs.codec import Content, describe
from federation.jobs.project import load_project
from federation.statements import Envelope, JobPlan, Receipt, instant_text
from federation.statements.code import CodeBundle
from federation.wire.body import Buffer
from federation.wire.messages import JobClose, JobOpen, JobOpened, pack, unpack
from sandbox import Runtime

log = structlog.get_logger("keyong.coordinator")

OPEN_SECONDS = 60.0
METRICS_RECORD = "metrics"


class JobDeniedError(DeniedError):
    """Nodes refused, so that fewer than the plan's minimum remain."""

    code = "job-denied"


class Job:
    """A submitted plan on its way to a result.

    Args:
        emit: appends an event that the requester sees.
    """

    def __init__(
        self,
        home: Home,
        links: Links,
        runtime: Runtime,
        envelope: Envelope,
        plan: JobPlan,
        bundle: CodeBundle,
        folder: Path,
        emit: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._home = home
        self._links = links
        self._runtime = runtime
        self._envelope = envelope
        self.plan = plan
        self._bundle = bundle
        self._folder = folder
        self._emit = emit
        self._numbers = {planned.node: secrets.randbits(52) + 1 for planned in plan.cohort}
        self._result = ResultFolder(folder)
        self._history: list[dict[str, Any]] = []
        self._weights = 0
        self._rounds: Rounds | None = None
        self.rounds_done = 0

    async def run(self) -> dict[str, Any]:
        """Run to the end; returns the summary.

        Raises:
            JobDeniedError: nodes refused the plan.
            RoundFailedError, ServerPartError: it could not be carried on.
        """
        try:
            live = await self._open_nodes()
            key = self._home.key("statement")
            self._rounds = Rounds(self._home, key, self._links, self._envelope, self.plan, live, self._note)
            await self._serve()
        finally:
            await asyncio.shield(self._close_nodes())
        return self.summary("done")

    def summary(self, status: str, reason: str = "") -> dict[str, Any]:
        """The job's summary as JSON: part of the interface."""
        summary = {
            "job": self.plan.id,
            "plan": self._envelope.digest,
            "status": status,
            "reason": reason,
            "purpose": self.plan.purpose,
            "protection": self.plan.protection,
            "unprotected": self.plan.protection == "fed:none",
            "aggregation": self.plan.aggregation,
            "rounds": self.plan.rounds,
            "rounds_done": self.rounds_done,
            "participants": sorted(planned.node for planned in self.plan.cohort),
            "contributed": sorted(self._rounds.live) if self._rounds else [],
            "total_weight": self._weights,
            "ended": instant_text(now()),
        }
        self._result.put_json("summary.json", summary)
        self._result.put_json("metrics.json", self._history)
        return summary

    # -- nodes --------------------------------------------------------------------------------------------------------

    async def _open_nodes(self) -> list[str]:
        body = self._bundle.to_bytes()
        refused: dict[str, str] = {}

        async def ask(node: str) -> None:
            header = JobOpen(plan=pack(self._envelope), node_number=self._numbers[node]).to_bytes()
            try:
                incoming = await self._links.call(node, "job.open", header, [body], timeout=OPEN_SECONDS)
                opened = JobOpened.from_bytes(incoming.header)
            except KeyongError as error:
                refused[node] = error.code
                self._emit("node-unavailable", {"node": node, "code": error.code})
                return
            if opened.permitted:
                self._emit("permitted", {"node": node})
                return
            refused[node] = opened.code
            self._emit("denied", {"node": node, "code": opened.code, "clause": self._clause(node, opened)})

        nodes = [planned.node for planned in self.plan.cohort]
        await asyncio.gather(*(ask(node) for node in nodes))
        live = [node for node in nodes if node not in refused]
        if len(live) < self.plan.minimal_participants:
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(refused.items()))
            unavailable = {"node-offline", "link-lost", "no-answer"}
            if set(refused.values()) <= unavailable:
                raise RoundFailedError("nodes cannot be reached ({reasons})", reasons=reasons)
            raise JobDeniedError("nodes refused this plan ({reasons})", reasons=reasons)
        return live

    def _clause(self, node: str, opened: JobOpened) -> dict[str, Any]:
        """The decision of a verified denial, for the requester, who is party to the agreement."""
        if not opened.receipt:
            return {}
        envelope = unpack(opened.receipt)
        receipt = Receipt.open(envelope, [self._home.public_key(node)], now())
        self._result.put_receipt(Answer(node, receipt, envelope, b""))
        return receipt.decision.model_dump(mode="json")

    async def _close_nodes(self) -> None:
        header = JobClose(plan=self._envelope.digest).to_bytes()

        async def close(node: str) -> None:
            try:
                await self._links.call(node, "job.close", header, timeout=15)
            except KeyongError as error:
                log.info("close-not-delivered", node=node, code=error.code)

        await asyncio.gather(*(close(planned.node) for planned in self.plan.cohort))

    def _note(self, answer: Answer) -> None:
        self._result.put_receipt(answer)

    # -- server part --------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        assert self._rounds is not None
        plan = self.plan
        app = self._folder / "app"
        app.mkdir()
        self._bundle.write(app)
        start = {
            "op": "start",
            "app": "/app",
            "run_id": int(plan.id.removeprefix("urn:uuid:").replace("-", "")[:16], 16) >> 1,
            "run_config": {name: json.loads(value) for name, value in plan.run_config.items()},
            "node_ids": [self._numbers[node] for node in self._rounds.live],
            "aggregation": plan.aggregation,
            "fit_for_sums": load_project(app).fit_for_sums,
            "result_bytes": RESULT_BYTES,
        }
        session = await ServerSession.open(
            app,
            self._runtime,
            start,
            memory_bytes=plan.memory_bytes,
            wall_seconds=float(plan.round_seconds) * (2 * plan.rounds + 2),
            spool=self._home.folder("spool"),
        )
        self._emit("started", {"participants": len(self._rounds.live)})
        try:
            while await self._step(session):
                pass
        finally:
            for name, data in zip(("server-stdout.txt", "server-stderr.txt"), session.output(), strict=True):
                (self._folder / name).write_bytes(data)
            await asyncio.shield(session.close())

    async def _step(self, session: ServerSession) -> bool:
        header, body = await session.receive()
        match header.get("op"):
            case "exchange":
                await self._exchange(session, header, body)
                return True
            case "file":
                self._result.put_output(header.get("path"), body)
                return True
            case "done":
                return False
            case "error":
                raise _failure(header)
            case _:
                raise ServerPartError("the server part sent an unknown frame")

    async def _exchange(self, session: ServerSession, header: Mapping[str, Any], body: memoryview) -> None:
        assert self._rounds is not None
        stage = header.get("type")
        if stage not in ("train", "evaluate") or f"fed:{stage}" not in self.plan.actions:
            await session.send({"op": "abort", "code": "action-not-planned"})
            raise ServerPartError(
                "the app asked for {stage}, which the plan does not hold",
                hint="plan it (`keyong job run --action`), or take it out of the app",
                stage=str(stage)[:40],
            )
        contents = header.get("contents")
        if not isinstance(contents, list) or len(contents) != 1 or not isinstance(contents[0], dict):
            await session.send({"op": "abort", "code": "not-one-broadcast"})
            raise ServerPartError("the app sent different contents to different nodes; a plan's content is one for all")
        try:
            exchange = await self._rounds.exchange(str(stage), contents[0], body)
        except KeyongError as error:
            await session.send({"op": "abort", "code": error.code})
            raise
        self._report(exchange)
        frame, buffers = self._reply(exchange, str(header.get("weight_key", "num-examples")))
        await session.send(frame, buffers)

    def _report(self, exchange: Exchange) -> None:
        for node, code in exchange.fallen.items():
            self._emit("fell-out", {"node": node, "code": code, "round": exchange.round})
        entry: dict[str, Any] = {"exchange": exchange.round, "stage": exchange.stage, "participants": len(exchange.answers) - len(exchange.fallen)}
        if exchange.stage == "train":
            self.rounds_done += 1
        entry["round"] = max(1, self.rounds_done) if exchange.stage == "train" else self.rounds_done
        if exchange.aggregate is not None:
            entry["metrics"] = exchange.aggregate.metrics
            entry["saturated"] = exchange.aggregate.saturated
            self._weights = exchange.aggregate.total_weight
            if exchange.stage == "train":
                self._result.put_model(exchange.aggregate.arrays)
        self._history.append(entry)
        self._emit("round", entry)

    def _reply(self, exchange: Exchange, weight_key: str) -> tuple[dict[str, Any], list[Buffer]]:
        assert self._rounds is not None
        if exchange.aggregate is not None:
            aggregate = exchange.aggregate
            metrics: dict[str, Any] = {**aggregate.metrics, weight_key: aggregate.total_weight}
            content = Content(arrays=aggregate.arrays, metrics={METRICS_RECORD: metrics})
            described, buffers = describe(content)
            return {"op": "replies", "replies": [{"node_id": 0, "content": described}]}, list(buffers)
        replies: list[dict[str, Any]] = []
        body: list[Buffer] = []
        for node in self._numbers:
            if node in exchange.replies:
                described, buffers = describe(exchange.replies[node])
                replies.append({"node_id": self._numbers[node], "content": described})
                body += buffers
            elif node in exchange.fallen:
                replies.append({"node_id": self._numbers[node], "error": exchange.fallen[node]})
        return {"op": "replies", "replies": replies}, body


def _failure(header: Mapping[str, Any]) -> ServerPartError:
    code = str(header.get("code", "server-part"))[:64]
    reason = str(header.get("reason", ""))[:1000]
    strategy = str(header.get("strategy", ""))[:100]
    traceback = str(header.get("traceback", ""))[:16384]
    if strategy:
        return ServerPartError(
            "the strategy {strategy} cannot run here: {reason}", code=code, strategy=strategy, reason=reason
        )
    if code == "app-missing-dependency":
        return ServerPartError("the runtime has no module named {module}", code=code, module=reason)
    return ServerPartError("the server part failed ({code}): {reason}", code=code, reason=reason or traceback.strip()[-2000:])
