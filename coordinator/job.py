"""One job's life on the coordinator: nodes asked, server part run, exchanges carried, result kept."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path
from typing import Any

from coordinator.adders import Adders
from coordinator.answers import Answer
from coordinator.bilateral_course import ANSWER_FILE as BILATERAL_FILE
from coordinator.bilateral_course import BilateralCourse
from coordinator.cohort import Cohort, Tell
from coordinator.grid import TrustedGrid
from coordinator.links import Links
from coordinator.query_course import ANSWER_FILE, QueryCourse
from coordinator.recording import RECORDING_BYTES, NotRecordedError, Recording
from coordinator.results import RESULT_BYTES, ResultFolder
from coordinator.rounds import Exchange, JobDeniedError, RoundFailedError, Rounds
from coordinator.server_session import ServerPartError, ServerSession
from coordinator.sums import Sums
from federation.home import Home, now
from federation.jobs.project import Project, ProjectError, fuse, load_project
from federation.statements import Envelope, JobPlan, instant_text
from federation.statements.code import CodeBundle
from sandbox import Runtime, Tier

__all__ = ["Job", "JobDeniedError"]

START_SECONDS = 30.0
"""On top of the plan's time for a step, for the server part to be imported in."""
BUNDLE = "code.bundle"
_NUMBER_BITS = 52


class Job:
    """A submitted plan on its way to a result, from its beginning or from where its recording ends.

    Args:
        folder: holds the plan's code as it was submitted, and from now on the recording and the result.
        tell: appends an event that the requester sees.
        adders: sessions that add a query's ciphertexts.
        room: bytes that the recording may take.
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
        adders: Adders,
        *,
        tier: Tier = Tier.T2,
        room: int = RECORDING_BYTES,
    ) -> None:
        self._home = home
        self._links = links
        self._runtime = runtime
        self._tier = tier
        self._envelope = envelope
        self.plan = plan
        self._folder = folder
        self._tell = tell
        self._adders = adders
        self.recording = Recording(folder, room)
        self._numbers = {planned.node: secrets.randbits(_NUMBER_BITS) + 1 for planned in plan.cohort}
        self._numbers |= self.recording.numbers
        self._result = ResultFolder(folder)
        self._cohort = Cohort(home, links, envelope, plan, self._numbers, self._code, self._note, tell)
        self._rounds: Rounds | None = None
        self._grid: TrustedGrid | None = None
        self._query_nodes: list[str] = []
        self._answered = False
        """Whether a query, or a bilateral action, has its answer: the one round that its plan has."""
        self._closing: asyncio.Task[None] | None = None
        self.bilateral = BilateralCourse(plan)
        """What a bilateral action waits for, and what its asker is to answer."""

    @property
    def rounds_done(self) -> int:
        """Rounds of training that gave an aggregate; 1 for a query or a bilateral action that has its answer."""
        if self._answered:
            return 1
        if self._grid is not None:
            return self._grid.rounds_done
        history = self.recording.history()
        return int(history[-1]["round"]) if history else 0

    def check_resumable(self) -> None:
        """Raise NotRecordedError where the job began, and what it was answered is gone."""
        if self.recording.dropped:
            raise NotRecordedError(
                "what the job was answered so far is no longer on record, so it cannot go on from there",
                hint="plan it anew (`keyong job run`)",
            )

    async def run(self) -> dict[str, Any]:
        """Run to the end; returns the summary. Its session is closed when this returns; its nodes are not.

        Raises:
            JobDeniedError: nodes refused the plan.
            NodesAwayError: it can go on when nodes come back.
            RoundFailedError, ServerPartError: it could not be carried on.
        """
        if self.plan.query is not None:
            return await self._answer_query()
        if self.plan.bilateral is not None:
            return await self._answer_bilateral()
        # Before a node is asked: a plan that cannot run costs nobody a use.
        project = await asyncio.to_thread(self._lay_out)
        if self.recording.numbers:
            each = self.plan.aggregation == "each"
            # The app has to be told of every node that takes part in single replies; a sum may gain one.
            self._cohort.resume(self.recording.numbers if each else self._numbers)
        else:
            await self._open_nodes()
        rounds = self._rounds = self._exchanges()
        try:
            await self._serve(rounds, project)
        finally:
            rounds.release()
        return await asyncio.to_thread(self.summary, "done")

    def _exchanges(self, sums: Sums | None = None) -> Rounds:
        """What carries this job's exchanges; ``sums`` where they are not those of a training."""
        return Rounds(
            self._home,
            self._home.key("statement"),
            self._links,
            self._envelope,
            self.plan,
            self._cohort,
            self.recording,
            self._note,
            self._tell_fallen,
            sums,
        )

    async def _answer_query(self) -> dict[str, Any]:
        """Carry a query's two exchanges; its answer is a file of the result that the asker alone can read."""
        course = QueryCourse(self.plan, self._code(), self._adders, self._tier)
        # an interrupted query is asked anew: what its nodes computed is in their memory alone
        await asyncio.to_thread(self.recording.drop)
        opening = asyncio.create_task(course.open())
        try:
            await self._open_nodes()
            await opening
            rounds = self._rounds = self._exchanges(course.sums)
            telling = asyncio.ensure_future(self._tell("started", {"participants": len(self._cohort.live)}))
            try:
                nodes, answer = await course.run(rounds)
            finally:
                await telling
            self._closing = asyncio.create_task(
                self._cohort.close()
            )  # beside the writing; nothing is left for them to do
            return await asyncio.to_thread(self._conclude_query, nodes, answer)
        finally:
            await course.close(opening)

    def _conclude_query(self, nodes: list[str], answer: bytes) -> dict[str, Any]:
        self._result.put_text(ANSWER_FILE, answer)
        self._query_nodes, self._answered = nodes, True
        return self.summary("done")

    async def _answer_bilateral(self) -> dict[str, Any]:
        """Carry a bilateral action's exchanges; its answer is a file of the result that the asker alone can open."""
        await asyncio.to_thread(self.recording.drop)
        await self._open_nodes()
        rounds = self._rounds = self._exchanges()
        await self._tell("started", {"participants": len(self._cohort.live)})
        answer = await self.bilateral.run(rounds, self._tell)
        rounds.release()
        await asyncio.to_thread(self._result.put_text, BILATERAL_FILE, answer)
        self._answered = True
        return await asyncio.to_thread(self.summary, "done")

    async def halt(self) -> None:
        """Begin no further exchange; returns once the one that is being made is on record."""
        if self._grid is not None:
            self._grid.halted = True
            await self._grid.between.wait()

    def leave(self) -> None:
        """Say that it goes on later: what ends it from here on does not call off the steps at the nodes."""
        if self._rounds is not None:
            self._rounds.leaving = True

    def receipts(self) -> dict[str, dict[str, object]]:
        """Of each node, how many receipts it gave, and the digest of them all."""
        return self._result.receipts()

    async def close_nodes(self) -> None:
        """Tell the nodes that the job is over; once, however often it is asked for."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._cohort.close())
        await asyncio.shield(self._closing)

    def summary(self, status: str, reason: str = "") -> dict[str, Any]:
        """Write the job's summary, part of the JSON interface, and its metrics; returns the summary."""
        plan = self.plan
        history = self._grid.history if self._grid is not None else self.recording.history()
        summary = {
            "job": plan.id,
            "plan": self._envelope.digest,
            "status": status,
            "reason": reason,
            "purpose": plan.purpose,
            "protection": plan.protection,
            "unprotected": plan.protection == "fed:none",
            "development": plan.tier == "T0",
            "aggregation": plan.aggregation,
            "model": "aggregate" if plan.aggregation == "sum" else "last-sent",
            "rounds": plan.rounds,
            "rounds_done": self.rounds_done,
            "participants": sorted(planned.node for planned in plan.cohort),
            "contributed": self._query_nodes or sorted(self._cohort.live),
            "total_weight": history[-1]["total_weight"] if history else 0,
            "ended": instant_text(now()),
        }
        self._result.put_json("summary.json", summary)
        self._result.put_json("metrics.json", history)
        self._result.flush()
        return summary

    def _lay_out(self) -> Project:
        bundle = CodeBundle.from_bytes(self._code())
        app = self._folder / "app"
        for left in (app, self._folder / "output"):  # of a run that was interrupted
            shutil.rmtree(left, ignore_errors=True)
            left.mkdir()
        bundle.write(app)
        try:
            project = load_project(app)
            fuse(project.config, self._run_config())
        except ProjectError as error:
            raise ServerPartError("the app cannot be run: {why}", code=error.code, why=str(error)[:1000]) from None
        except RecursionError:
            raise ServerPartError("the app's pyproject.toml is nested too deeply", code="app-import") from None
        except ValueError:
            raise ServerPartError("the plan's run config is not JSON", code="app-config") from None
        return project

    def _code(self) -> bytes:
        return (self._folder / BUNDLE).read_bytes()

    def _run_config(self) -> dict[str, Any]:
        return {name: json.loads(value) for name, value in self.plan.run_config.items()}

    # -- nodes --------------------------------------------------------------------------------------------------------

    async def _open_nodes(self) -> None:
        cohort = self._cohort
        await cohort.open()
        if len(cohort.live) < self.plan.minimal_participants:
            refused = {**cohort.away, **cohort.out}
            reasons = ", ".join(f"{node}: {code}" for node, code in sorted(refused.items()))
            if not cohort.out:
                raise RoundFailedError(
                    "nodes cannot be reached ({reasons})",
                    hint="is `keyong node serve` running there? see `keyong coordinator status`",
                    code="nodes-unavailable",
                    reasons=reasons,
                )
            raise JobDeniedError("nodes refused this plan ({reasons})", reasons=reasons)
        if self.plan.aggregation == "each":
            cohort.away.clear()  # the app is not told of them
        if not self.recording.dropped:
            await asyncio.to_thread(self.recording.begin, {node: self._numbers[node] for node in cohort.live})

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
        numbers = dict(self.recording.numbers)
        history = await asyncio.to_thread(self.recording.history)
        self._grid = TrustedGrid(plan, numbers, rounds, self._result, history, self._tell)
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
            # Its own time, as long again for the nodes', and what their answers may wait.
            wall_seconds=(2.0 * step + plan.pause_seconds) * (2 * plan.rounds + 2),
            spool=self._home.folder("spool"),
            silence_seconds=step,
            tier=self._tier,
        )
        try:
            marks = {"development": True} if plan.tier == "T0" else {}
            if self.recording.began:
                await self._tell("resumed", {"exchange": self.recording.answered + 1, **marks})
            else:
                await self._tell("started", {"participants": len(numbers), **marks})
            await self._grid.serve(session)
        except asyncio.CancelledError:
            if not rounds.leaving:  # what is beside members' rows ends first; the server part has none, and can wait
                await self.close_nodes()
            raise
        finally:
            await asyncio.shield(self._end(session))

    async def _end(self, session: ServerSession) -> None:
        try:
            for name, data in zip(("server-stdout.txt", "server-stderr.txt"), session.output(), strict=True):
                await asyncio.to_thread(self._result.put_text, name, data)
        finally:
            await session.close()
