"""One job's life on the coordinator: nodes asked, server part run, exchanges carried, result kept."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import structlog

from coordinator.answers import Answer, ReceiptError, code_from
from coordinator.grid import Tell, TrustedGrid
from coordinator.links import Links
from coordinator.results import RESULT_BYTES, ResultFolder
from coordinator.rounds import Exchange, JobDeniedError, RoundFailedError, Rounds
from coordinator.server_session import ServerPartError, ServerSession
from federation.errors import KeyongError
from federation.home import Home, now
from federation.jobs.project import Project, ProjectError, fuse, load_project
from federation.statements import Envelope, JobPlan, Receipt, instant_text
from federation.statements.code import CodeBundle
from federation.wire.messages import JobClose, JobOpen, JobOpened, pack, unpack
from federation.wire.patience import ANSWER_SECONDS
from sandbox import Runtime, Tier

__all__ = ["Job", "JobDeniedError"]

log = structlog.get_logger("keyong.coordinator")

CLOSE_SECONDS = 15.0
"""How long the end of a job waits for a node to say it has closed it: one that cannot be reached closes it unasked."""
START_SECONDS = 30.0
"""On top of the plan's time for a step, for the server part to be imported in."""
BUNDLE = "code.bundle"


class Job:
    """A submitted plan on its way to a result.

    Args:
        folder: holds the plan's code as it was submitted, and from now on the result.
        tell: appends an event that the requester sees.
    """

    def __init__(
        self,
        home: Home,
        links: Links,
        runtime: Runtime,
        envelope: Envelope,
        plan: JobPlan,
        folder: Path,
        tell: Tell,
        *,
        tier: Tier = Tier.T2,
    ) -> None:
        self._home = home
        self._links = links
        self._runtime = runtime
        self._tier = tier
        self._envelope = envelope
        self.plan = plan
        self._folder = folder
        self._tell = tell
        self._numbers = {planned.node: secrets.randbits(52) + 1 for planned in plan.cohort}
        self._result = ResultFolder(folder)
        self._rounds: Rounds | None = None
        self._grid: TrustedGrid | None = None

    @property
    def rounds_done(self) -> int:
        """Rounds of training that gave an aggregate."""
        return self._grid.rounds_done if self._grid else 0

    async def run(self) -> dict[str, Any]:
        """Run to the end; returns the summary. Whatever ends it, nodes and session are closed when this returns.

        Raises:
            JobDeniedError: nodes refused the plan.
            RoundFailedError, ServerPartError: it could not be carried on.
        """
        # Before a node is asked: a plan that cannot run costs nobody a use.
        bundle, project = await asyncio.to_thread(self._lay_out)
        try:
            live = await self._open_nodes(bundle.to_bytes())
            key = self._home.key("statement")
            self._rounds = Rounds(
                self._home, key, self._links, self._envelope, self.plan, live, self._note, self._tell_fallen
            )
            await self._serve(self._rounds, project)
        finally:
            await asyncio.shield(self._close_nodes())
        return await asyncio.to_thread(self.summary, "done")

    def summary(self, status: str, reason: str = "") -> dict[str, Any]:
        """Write the job's summary, part of the JSON interface, and its metrics; returns the summary."""
        plan, grid = self.plan, self._grid
        summary = {
            "job": plan.id,
            "plan": self._envelope.digest,
            "status": status,
            "reason": reason,
            "purpose": plan.purpose,
            "protection": plan.protection,
            "unprotected": plan.protection == "fed:none",
            "aggregation": plan.aggregation,
            "model": "aggregate" if plan.aggregation == "sum" else "last-sent",
            "rounds": plan.rounds,
            "rounds_done": self.rounds_done,
            "participants": sorted(planned.node for planned in plan.cohort),
            "contributed": sorted(self._rounds.live) if self._rounds else [],
            "total_weight": grid.total_weight if grid else 0,
            "ended": instant_text(now()),
        }
        self._result.put_json("summary.json", summary)
        self._result.put_json("metrics.json", grid.history if grid else [])
        self._result.flush()
        return summary

    def _lay_out(self) -> tuple[CodeBundle, Project]:
        bundle = CodeBundle.from_bytes((self._folder / BUNDLE).read_bytes())
        app = self._folder / "app"
        app.mkdir()
        bundle.write(app)
        try:
            project = load_project(app)
            fuse(project.config, self._run_config())
        except ProjectError as error:
            raise ServerPartError("the app cannot be run: {why}", code=error.code, why=str(error)[:1000]) from None
        except ValueError:
            raise ServerPartError("the plan's run config is not JSON", code="app-config") from None
        return bundle, project

    def _run_config(self) -> dict[str, Any]:
        return {name: json.loads(value) for name, value in self.plan.run_config.items()}

    # -- nodes --------------------------------------------------------------------------------------------------------

    async def _open_nodes(self, code: bytes) -> list[str]:
        refused: dict[str, str] = {}

        async def ask(node: str) -> None:
            header = JobOpen(plan=pack(self._envelope), node_number=self._numbers[node]).to_bytes()
            try:
                incoming = await self._links.call(node, "job.open", header, [code], timeout=ANSWER_SECONDS)
                opened = JobOpened.from_bytes(incoming.header)
                clause = {} if opened.permitted else await self._clause(node, opened)
            except KeyongError as error:
                refused[node] = code_from(error.code)
                await self._tell("node-unavailable", {"node": node, "code": refused[node]})
                return
            if opened.permitted:
                await self._tell("permitted", {"node": node})
                return
            refused[node] = code_from(opened.code)
            await self._tell("denied", {"node": node, "code": refused[node], "clause": clause})

        nodes = [planned.node for planned in self.plan.cohort]
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(ask(node))
        live = [node for node in nodes if node not in refused]
        if len(live) < self.plan.minimal_participants:
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(refused.items()))
            unavailable = {"node-offline", "link-lost", "no-answer"}
            if set(refused.values()) <= unavailable:
                raise RoundFailedError(
                    "nodes cannot be reached ({reasons})",
                    hint="is `keyong node serve` running there? see `keyong coordinator status`",
                    code="nodes-unavailable",
                    reasons=reasons,
                )
            raise JobDeniedError("nodes refused this plan ({reasons})", reasons=reasons)
        return live

    async def _clause(self, node: str, opened: JobOpened) -> dict[str, Any]:
        """The decision of a verified denial, for the requester, who is party to the agreement."""
        if not opened.receipt:
            return {}
        envelope = unpack(opened.receipt)
        receipt = Receipt.open(envelope, [self._home.public_key(node)], now())
        said = (receipt.node, receipt.plan, receipt.invocation, receipt.outcome, receipt.stage, receipt.round)
        plan = self._envelope.digest
        if said != (node, plan, plan, "denied", "open", 0) or receipt.intent != -1:
            raise ReceiptError("the receipt of {node} is for something else", node=node)
        await asyncio.to_thread(self._result.put_receipt, Answer(node, receipt, envelope, b""))
        return receipt.decision.model_dump(mode="json")

    async def _close_nodes(self) -> None:
        header = JobClose(plan=self._envelope.digest).to_bytes()

        async def close(node: str) -> None:
            try:
                await self._links.call(node, "job.close", header, timeout=CLOSE_SECONDS)
            except KeyongError as error:
                log.info("close-not-delivered", node=node, code=code_from(error.code))

        await asyncio.gather(*(close(planned.node) for planned in self.plan.cohort))

    async def _note(self, answer: Answer) -> None:
        await asyncio.to_thread(self._result.put_receipt, answer)

    async def _tell_fallen(self, exchange: Exchange) -> None:
        for node, code in sorted(exchange.fallen.items()):
            if node in exchange.clauses:
                await self._tell("denied", {"node": node, "code": code, "clause": exchange.clauses[node]})
            else:
                await self._tell("fell-out", {"node": node, "code": code, "round": exchange.round})

    # -- server part --------------------------------------------------------------------------------------------------

    async def _serve(self, rounds: Rounds, project: Project) -> None:
        plan = self.plan
        numbers = {node: self._numbers[node] for node in rounds.live}
        self._grid = TrustedGrid(plan, numbers, rounds, self._result, self._tell)
        start = {
            "op": "start",
            "run_id": int(plan.id.removeprefix("urn:uuid:").replace("-", "")[:16], 16) >> 1,
            "run_config": self._run_config(),
            "node_ids": list(numbers.values()),
            "aggregation": plan.aggregation,
            "fit_for_sums": project.fit_for_sums,
            "result_bytes": min(RESULT_BYTES, plan.memory_bytes),
        }
        step = plan.round_seconds + START_SECONDS
        session = await ServerSession.open(
            self._folder / "app",
            self._runtime,
            start,
            memory_bytes=plan.memory_bytes,
            wall_seconds=2.0 * step * (2 * plan.rounds + 2),  # its own time, and as long again for the nodes'
            spool=self._home.folder("spool"),
            silence_seconds=step,
            tier=self._tier,
        )
        try:
            await self._tell("started", {"participants": len(rounds.live)})
            await self._grid.serve(session)
        finally:
            await asyncio.shield(self._end(session))

    async def _end(self, session: ServerSession) -> None:
        try:
            for name, data in zip(("server-stdout.txt", "server-stderr.txt"), session.output(), strict=True):
                await asyncio.to_thread(self._result.put_text, name, data)
        finally:
            await session.close()
