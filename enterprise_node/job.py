"""A job at this node: the plan it admitted and what lives as long as that."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from enterprise_node.admission import AdmittedPlan
from enterprise_node.answers import KeptReply
from enterprise_node.laps import Laps
from enterprise_node.masked_round import JobMasks
from enterprise_node.query_stages import QueryWork
from enterprise_node.receipts import Held
from enterprise_node.session import JobSession
from enterprise_node.step_meter import StepMeter
from enterprise_node.store import RegisteredDataset
from federation.errors import DeniedError
from federation.statements.code import CodeBundle
from federation.wire.peer import Outgoing

STOPPED, CLOSED = "node-stopped", "closed"
"""Why a job ends with which nothing is wrong: the node stops, or its requester is done."""


class JobEndedError(DeniedError):
    """The job is over at this node: its session is gone, and with it the app's state."""

    code = "job-ended"


@dataclass
class Job:
    """One open job. It ends once, for one reason; no step runs after that."""

    admitted: AdmittedPlan
    bundle: CodeBundle
    dataset: RegisteredDataset
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: JobSession | None = None
    answers: dict[str, Outgoing] = field(default_factory=dict)
    """The answer to the last invocation by its digest: asked again, it is given again, never computed twice."""
    reply: tuple[str, KeptReply] | None = None
    """Invocation and reply of that answer, where it is too large to have been written down with its step."""
    body: tuple[str, memoryview] | None = None
    """The body of the newest content and its digest: the next step's may be the same, and is not sent again then."""
    work: dict[str, asyncio.Task[Outgoing]] = field(default_factory=dict)
    """Steps at work, or waiting for the one before, by their invocation."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    stopping: bool = False
    """Stopped because the node ends, not the job."""
    held: bool = False
    """The step at work waits for the owner's review."""
    touched: float = field(default_factory=time.monotonic)
    laps: Laps = field(default_factory=Laps)
    """Of the step at work, or of the last one."""
    round: int = 0
    stage: str = ""
    """Of the last step that had its INTENT."""
    number: int = field(default_factory=lambda: 1 + secrets.randbelow(2**53 - 1))
    """The node id that job code sees: drawn here, for one that another chose would tell code at which company it runs."""
    meter: StepMeter | None = None
    """Of the step at work, where its agreement counts time or volume."""
    masks: JobMasks | None = None
    """Under ``fed:masked``."""
    query: QueryWork | None = None
    """What a query has come to."""
    blinded: str = ""
    """Digest of the keys that an intersection's first step blinded, until they are answered."""
    early: dict[str, asyncio.Future[Outgoing]] = field(default_factory=dict)
    """The answers to steps at work that may leave before their OUTCOME: masked vectors."""

    def began(self, invocation: str, work: asyncio.Task[Outgoing]) -> None:
        """A step is taken on; it is at work until its task ends, whoever still waits for it."""
        self.work[invocation] = work
        self.early[invocation] = work.get_loop().create_future()

        def ended(task: asyncio.Task[Outgoing]) -> None:
            self.work.pop(invocation, None)
            self.early.pop(invocation, None)
            if not task.cancelled():
                task.exception()  # told to whoever waited; where nobody did, it is on record

        work.add_done_callback(ended)

    async def answer(self, invocation: str) -> Outgoing:
        """The answer of a step that is at work, as soon as there is one; cancelling the wait leaves the step alone."""
        work, early = self.work[invocation], self.early[invocation]
        await asyncio.wait((work, early), return_when=asyncio.FIRST_COMPLETED)
        return early.result() if early.done() else work.result()

    def stop(self, reason: str) -> None:
        """End the job; the first reason stays."""
        if not self.stopped.is_set():
            self.reason = reason
            self.stopped.set()

    def strike(self, reason: str) -> None:
        """End the job, and every process of it at once, before anything that could have to wait."""
        if self.session is not None:
            self.session.strike()
        self.stop(reason)

    def release(self) -> None:
        """Give back what is as large as a model, whoever still knows of the job."""
        self.body, self.reply, self.answers = None, None, {}

    def check_live(self) -> None:
        """Raise once the job has ended."""
        if self.stopped.is_set():
            raise JobEndedError("the job has ended at this node ({reason})", hint="plan it anew", reason=self.reason)

    def idle(self) -> bool:
        """Whether no step has come for longer than two whole rounds of the plan may take."""
        plan = self.admitted.plan
        longest = 2 * plan.round_seconds + plan.pause_seconds + 600
        return not self.lock.locked() and time.monotonic() - self.touched > longest

    def held_by(self) -> Held:
        """What holds the job now, for a receipt."""
        if self.session is None:
            return Held()
        snapshot = self.session.snapshot
        return Held(snapshot.digest, self.session.isolation, snapshot.rules, snapshot.values)
