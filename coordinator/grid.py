"""The trusted end of an app's Grid: its exchanges checked, carried to the nodes and answered.

What the session says is never believed: what it asks must be what the plan holds, and what it is given is what the plan
lets its author see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.cohort import Tell
from coordinator.results import ResultFolder
from coordinator.rounds import Exchange, Rounds
from coordinator.server_session import ServerPartError, ServerSession
from federation.errors import UnavailableError
from federation.jobs.codec import Content, ContentError, describe
from federation.jobs.failures import SERVER_CODES
from federation.statements import JobPlan
from federation.wire.body import Buffer

METRICS_RECORD = "metrics"
FELL_OUT = "fell-out"
_TEXT = 2000


class HaltedError(UnavailableError):
    """The coordinator is about to stop; the app is asked again when the job is resumed."""

    code = "stopping"


class TrustedGrid:
    """Serves one server part until it is done.

    Args:
        numbers: the random ids under which the app knows the nodes it started with.
        history: the entries of exchanges that are on record.
        tell: appends an event that the requester sees.
    """

    def __init__(
        self,
        plan: JobPlan,
        numbers: Mapping[str, int],
        rounds: Rounds,
        result: ResultFolder,
        history: Sequence[dict[str, Any]],
        tell: Tell,
    ) -> None:
        self._plan = plan
        self._numbers = dict(numbers)
        self._rounds = rounds
        self._result = result
        self._tell = tell
        self.history = list(history)
        last: dict[str, Any] = self.history[-1] if self.history else {"round": 0, "elapsed": 0.0, "total_weight": 0}
        self._began = time.monotonic() - last["elapsed"]
        self.rounds_done: int = last["round"]
        self.total_weight: int = last["total_weight"]
        self.halted = False
        self.between = asyncio.Event()
        """Set while no exchange is being made or put on record."""
        self.between.set()
        self._keeping: asyncio.Task[None] | None = None

    async def serve(self, session: ServerSession) -> None:
        """Carry exchanges, keep files, until the app is done.

        Raises:
            ServerPartError: the app failed, or broke the protocol.
            KeyongError: an exchange could not be made. The app is not asked what it makes of it.
        """
        try:
            await self._carry(session)
        finally:
            await asyncio.shield(self._kept())

    async def _carry(self, session: ServerSession) -> None:
        leaving = False
        while True:
            header, body = await session.receive()
            match header.get("op"):
                case "exchange" if not leaving:
                    await self._exchange(session, header, body)
                case "file":
                    leaving = True
                    await asyncio.to_thread(self._result.put_output, header.get("path"), body)
                case "done" if not len(body):
                    return
                case "error":
                    raise failure(header)
                case _:
                    raise ServerPartError("the server part sent a frame that has no place here", code="server-frame")

    async def _exchange(self, session: ServerSession, header: Mapping[str, Any], body: memoryview) -> None:
        stage = self._check(header)
        try:
            exchange = await self._rounds.exchange(stage, header["contents"][0], body, self._begin)
            entry = (
                self.history[exchange.round - 1] if exchange.replayed else self._entry(exchange, header["weight_key"])
            )
        except BaseException:
            self.between.set()
            raise
        # The app goes on while its aggregate is put on record; nobody is asked for more before it is.
        self._keeping = asyncio.create_task(self._keep(exchange, entry))
        try:
            frame, buffers = self._reply(exchange, header["weight_key"])
        except ContentError as error:
            raise ServerPartError("the replies cannot be given to the app ({what})", what=error.code) from None
        await session.send(frame, buffers)
        if exchange.body is not None:
            self._rounds.foresee(exchange.body)

    async def _begin(self) -> None:
        await self._kept()
        if self.halted:
            raise HaltedError("the coordinator is stopping")
        self.between.clear()

    async def _keep(self, exchange: Exchange, entry: dict[str, Any]) -> None:
        try:
            if not exchange.replayed and await self._rounds.keep(exchange, entry):
                await self._tell("not-resumable", {"exchange": exchange.round})
        finally:
            self.between.set()
        await self._report(exchange, entry)

    async def _kept(self) -> None:
        """Wait until the exchange before is on record and told; raises what kept it from being so, once."""
        keeping = self._keeping
        if keeping is None:
            return
        try:
            await asyncio.shield(keeping)
        finally:
            if keeping.done():
                self._keeping = None

    def _check(self, header: Mapping[str, Any]) -> str:
        stage, messages, contents = header.get("type"), header.get("messages"), header.get("contents")
        if stage not in ("train", "evaluate") or f"fed:{stage}" not in self._plan.actions:
            raise ServerPartError(
                "the app asked for {stage}, which the plan does not hold",
                hint="plan it (`keyong job run --action`), or take it out of the app; there are train and evaluate",
                code="action-not-planned",
                stage=str(stage)[:40],
            )
        if not isinstance(contents, list) or len(contents) != 1 or not isinstance(contents[0], dict):
            raise ServerPartError(
                "the app sent different contents to different nodes; a plan's content is one for all",
                hint="send every node the same arrays and the same config",
                code="not-one-broadcast",
            )
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ServerPartError("the server part sent a malformed exchange", code="server-frame")
        addressed = [message.get("node_id") for message in messages]
        if any(type(node) is not int for node in addressed) or sorted(addressed) != sorted(self._numbers.values()):
            raise ServerPartError(
                "the app addressed {count} of {whole} nodes, or others; the whole cohort takes part in every round",
                hint="leave fraction_train and fraction_evaluate at 1.0, or 0.0 to skip a stage",
                code="not-whole-cohort",
                count=len(addressed),
                whole=len(self._numbers),
            )
        key = header.get("weight_key")
        if not isinstance(key, str) or not 0 < len(key) <= 128:
            raise ServerPartError("the server part sent a malformed exchange", code="server-frame")
        return str(stage)

    def _entry(self, exchange: Exchange, weight_key: str) -> dict[str, Any]:
        """What the history says of an exchange."""
        total_weight = sum(exchange.weights.values())
        entry: dict[str, Any] = {
            "exchange": exchange.round,
            "stage": exchange.stage,
            "round": self.rounds_done + (exchange.stage == "train"),
            "participants": len(exchange.contributed),
            "elapsed": round(time.monotonic() - self._began, 6),
        }
        if exchange.aggregate is not None:
            total_weight = exchange.aggregate.total_weight
            # What the app claims as its weight is no figure: the trusted rows below are what was weighed by.
            entry["metrics"] = {name: v for name, v in exchange.aggregate.metrics.items() if name != weight_key}
            entry["saturated"] = exchange.aggregate.saturated
        entry["total_weight"] = total_weight
        return entry

    async def _report(self, exchange: Exchange, entry: dict[str, Any]) -> None:
        if exchange.replayed and exchange.round < len(self.history):
            return  # its model was replaced by a later one, and its event was told
        # Of the last that is on record the model may not have been written, nor the event told.
        arrays = exchange.sent.arrays
        if exchange.aggregate is not None:
            arrays = exchange.aggregate.arrays if exchange.stage == "train" else {}
        # Under `each` the app alone makes the aggregate; what it sends next is the newest that is seen of it.
        if arrays:
            recorded = self._rounds.model(exchange) if exchange.aggregate is not None else None
            await asyncio.to_thread(self._result.put_model, arrays, recorded)
        if exchange.replayed:
            return
        self.rounds_done, self.total_weight = entry["round"], entry["total_weight"]
        self.history.append(entry)
        await self._tell("round", entry)

    def _reply(self, exchange: Exchange, weight_key: str) -> tuple[dict[str, Any], list[Buffer]]:
        if exchange.aggregate is not None:
            aggregate = exchange.aggregate
            metrics = {**aggregate.metrics, weight_key: aggregate.total_weight}
            content = Content(arrays=aggregate.arrays, metrics={_free(METRICS_RECORD, aggregate.arrays): metrics})
            described, buffers = describe(content)
            body: list[Buffer] = list(buffers) if exchange.body is None else [exchange.body]
            return {"op": "replies", "replies": [{"node_id": 0, "content": described}]}, body
        replies: list[dict[str, Any]] = []
        body = []
        for node, number in self._numbers.items():
            if node in exchange.replies:
                reply = with_weight(exchange.replies[node], weight_key, exchange.weights[node])
                described, buffers = describe(reply)
                replies.append({"node_id": number, "content": described})
                body += buffers
            else:
                replies.append({"node_id": number, "error": exchange.fallen.get(node, FELL_OUT)})
        return {"op": "replies", "replies": replies}, body


def with_weight(reply: Content, weight_key: str, weight: int) -> Content:
    """A single reply whose weight is the rows that its node's receipt states, whatever the app's code claimed."""
    metrics = {record: dict(entries) for record, entries in reply.metrics.items()}
    places = [record for record, entries in metrics.items() if weight_key in entries] or list(metrics)[:1]
    for record in places or [_free(METRICS_RECORD, reply.arrays)]:
        metrics.setdefault(record, {})[weight_key] = weight
    return Content(reply.arrays, metrics, reply.configs)


def _free(name: str, taken: Mapping[str, object]) -> str:
    # the records of a content share one name space, and the app chose the arrays' names
    while name in taken:
        name += "-"
    return name


def failure(header: Mapping[str, Any]) -> ServerPartError:
    """The error for a frame that says why the session cannot go on; a code that is none becomes ``server-part``."""
    code = str(header.get("code", ""))
    code = code if code in SERVER_CODES else ServerPartError.code
    reason = str(header.get("reason", ""))[:_TEXT]
    strategy = str(header.get("strategy", ""))[:100]
    traceback = str(header.get("traceback", "")).strip()[-_TEXT:]
    if strategy:
        return ServerPartError(
            "the strategy {strategy} cannot run here: {reason}", code=code, strategy=strategy, reason=reason
        )
    if code == "app-missing-dependency":
        return ServerPartError(
            "the runtime has no module named {module}",
            hint="an app may import what the runtime holds (`keyong node runtime show`), and its own modules",
            code=code,
            module=reason,
        )
    return ServerPartError(
        "the server part failed ({what}): {reason}", code=code, what=code, reason=traceback or reason
    )
