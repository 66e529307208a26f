"""A member's conversation with the coordinator, for commands and the SDK: blocking calls over one link."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from federation.errors import KeyongError, UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.ledger import Ledger
from federation.statements import DatasetDescription, Envelope
from federation.wire import messages as m
from federation.wire.body import Buffer
from federation.wire.loop import new_event_loop
from federation.wire.member import connect, greet, read_mail, send_mail
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import Incoming, Peer
from federation.wire.request_id import carry, fresh
from federation.witnessing import Witnessing

T = TypeVar("T")


class PublishedDataset:
    """A verified catalog entry."""

    def __init__(self, description: DatasetDescription, *, online: bool, runtime: str) -> None:
        self.description = description
        self.online = online
        self.runtime = runtime


class Client:
    """A live link of one home to its coordinator; use it as a context.

    The event loop runs in a thread of its own, so that calls can be made from ordinary code and notebooks.

    Args:
        request: the id under which the coordinator and the nodes log what is asked here; a fresh one by default.
    """

    def __init__(self, home: Home, *, timeout: float = 10.0, request: str = "") -> None:
        self.home = home
        self.request = request or fresh()
        self.greeted = False
        self.holdings = Holdings(open_engine(home.path / "store.db"))
        self._timeout = timeout
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="keyong-client", daemon=True)
        self._stack = AsyncExitStack()
        self._peer: Peer | None = None
        self.ledger: Ledger = home.open_ledger()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._open())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the link."""
        if self._thread.is_alive():
            self._wait(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        self.ledger.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        async def named() -> T:
            carry(self.request)
            return await work

        future = asyncio.run_coroutine_threadsafe(named(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _open(self) -> None:
        self._peer = await self._stack.enter_async_context(connect(self.home, timeout=self._timeout))
        await greet(self._peer, self.home, self.ledger, serves="client")
        self.greeted = True

    def call(
        self, method: str, header: m.Message, body: Sequence[Buffer] = (), *, timeout: float = ANSWER_SECONDS
    ) -> Incoming:
        """Call a method of the coordinator."""
        assert self._peer is not None
        return self._wait(self._peer.call(method, header.to_bytes(), body, timeout=timeout))

    # -- catalog ------------------------------------------------------------------------------------------------------

    def catalog(self) -> list[PublishedDataset]:
        """All published datasets, each verified against its owner's key; forged entries raise."""
        answer = m.Catalog.from_bytes(self.call("catalog.list", m.Empty()).header)
        published = []
        for entry in answer.entries:
            envelope = m.unpack(entry.envelope)
            claimed = DatasetDescription.read(envelope)
            description = DatasetDescription.open(envelope, [self.home.public_key(claimed.provider)], now())
            published.append(PublishedDataset(description, online=entry.online, runtime=entry.runtime))
        return published

    def dataset(self, provider: str, dataset: str) -> PublishedDataset:
        """One published dataset."""
        for entry in self.catalog():
            if (entry.description.provider, entry.description.dataset) == (provider, dataset):
                return entry
        raise UsageError(
            "{provider} publishes no dataset {dataset}",
            hint="see `keyong catalog list`; its node must have been connected once",
            provider=provider,
            dataset=dataset,
            code="no-such-dataset",
        )

    # -- mail ---------------------------------------------------------------------------------------------------------

    def read_mail(self) -> int:
        """Take what arrived; returns how many statements changed something."""
        assert self._peer is not None
        return self._wait(read_mail(self._peer, self.home, self.holdings, self.ledger))

    def send(self, to: str, envelope: Envelope) -> None:
        """Send a signed statement to a member."""
        assert self._peer is not None
        self._wait(send_mail(self._peer, to, envelope))

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, plan: Envelope, bundle: bytes) -> str:
        """Submit a signed plan with its code; returns the job's id."""
        answer = self.call("job.submit", m.Submit(plan=m.pack(plan)), [bundle])
        return m.JobRef.from_bytes(answer.header).job

    def events(self, job: str, after: int = 0) -> Iterator[m.Event]:
        """The job's events after a number, as they come, until it has ended."""
        while True:
            answer = m.Events.from_bytes(self.call("job.events", m.EventsSince(job=job, after=after)).header)
            for event in answer.events:
                after = event.number
                yield event
            if not answer.events and answer.status not in ("submitted", "running"):
                return

    def last_event(self, job: str) -> int:
        """The number of a job's newest event."""
        last = 0
        while True:
            answer = m.Events.from_bytes(self.call("job.events", m.EventsSince(job=job, after=last, wait=0)).header)
            if not answer.events:
                return last
            last = answer.events[-1].number

    def jobs(self) -> tuple[m.JobSummary, ...]:
        """Jobs this member asked for or took part in, newest first."""
        return m.Jobs.from_bytes(self.call("job.list", m.Empty()).header).jobs

    def cancel(self, job: str) -> None:
        """Stop a job that waits or runs, or give up one that was interrupted."""
        self.call("job.cancel", m.JobRef(job=job))

    def resume(self, job: str) -> None:
        """Go on with an interrupted job, under its own plan and from where it stopped."""
        self.call("job.resume", m.JobRef(job=job))

    def result(self, job: str, folder: Path) -> dict[str, Any]:
        """Write a job's result files below ``folder`` (made, must be empty) and return its summary."""
        if folder.exists() and any(folder.iterdir()):
            raise UsageError("{folder} is not empty", hint="choose another folder with -o", folder=str(folder))
        summary, files = self._result(job)
        for path, data in files.items():
            target = safe_join(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return summary

    def result_files(self, job: str) -> dict[str, bytes]:
        """A job's result in memory: each file's bytes by its path."""
        return {path: bytes(data) for path, data in self._result(job)[1].items()}

    def _result(self, job: str) -> tuple[dict[str, Any], dict[str, memoryview]]:
        answer = self.call("job.result", m.JobRef(job=job))
        result = m.Result.from_bytes(answer.header)
        if sum(file.size for file in result.files) != len(answer.body):
            raise UsageError("the result is damaged: its files do not add up", code="result")
        at, files = 0, {}
        for file in result.files:
            files[file.path] = memoryview(answer.body)[at : at + file.size]
            at += file.size
        return result.summary, files

    def attest(self) -> int:
        """Have our ledger cosigned, where no process serves this home and does so; returns how many did. Never raises for it.

        A node and a coordinator show their ledgers to the witnesses themselves, within a second.
        """
        roles = self.home.identity.roles
        if "member" in roles or "coordinator" in roles:
            return 0
        try:
            return self._wait(self._attest())
        except KeyongError:
            return 0

    async def _attest(self) -> int:
        assert self._peer is not None
        peer = self._peer

        async def ask(member: str, request: bytes) -> tuple[int, bytes]:
            header = m.WitnessAsk(witness=member, request=base64.b64encode(request).decode()).to_bytes()
            answer = m.WitnessAnswer.from_bytes((await peer.call("witness.ask", header, timeout=ANSWER_SECONDS)).header)
            return answer.status, answer.body.encode()

        clock = asyncio.get_running_loop().time
        return await Witnessing(self.home, self.ledger, ask, None, clock).advance()

    def status(self) -> m.Status:
        """What the coordinator says of itself."""
        return m.Status.from_bytes(self.call("status", m.Empty()).header)


def safe_join(folder: Path, path: str) -> Path:
    """A path of a result below its folder; one that would leave it is refused."""
    parts = path.split("/")
    if (
        not path
        or path.startswith("/")
        or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts)
    ):
        raise UsageError("the result names a file outside its folder", code="result")
    return folder.joinpath(*parts)
