"""Many members of one coordinator: it is a real process, they are real links, identities, signatures and ledgers, all
held by the test; only what a node computes is pretended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from coordinator.migrations import COORDINATOR_STORE
from coordinator.store import CoordinatorStore
from federation.errors import KeyongError
from federation.home import Home, Identity, NewKeys, now
from federation.statements import Member, Root, Roster, root_fingerprint
from federation.stores import open_engine
from federation.wire.dial import REDIAL_SECONDS, keep_attached, refuse_all
from federation.wire.member import connect, greet
from federation.wire.peer import Peer
from sandbox import Runtime
from tests.coordinator import parties
from tests.integration.parties import Party, Service
from tests.ports import own_port


def found(folder: Path, count: int) -> tuple[Home, list[Home]]:
    """The institute and ``count`` members, all in the roster's first version."""
    address = f"127.0.0.1:{own_port()}"
    names = ["institute", *(f"mill-{number:03}" for number in range(count))]
    keys = {name: NewKeys(name, root=name == "institute") for name in names}
    root_key = keys["institute"].root
    assert root_key is not None
    consortium, root = f"urn:uuid:{uuid.uuid4()}", Root(threshold=1, keys=(root_key.public.text,))
    roles: dict[str, tuple[Any, ...]] = {"institute": ("member", "coordinator", "analyst")}
    members = tuple(
        Member(
            id=name,
            entity=f"{name} Ltd",
            roles=roles.get(name, ("member",)),
            statement_key=keys[name].statement.public.text,
            ledger_key=keys[name].ledger.public.text,
            witness_key=keys[name].witness.public.text,
            tls_certificate=keys[name].tls.certificate_pem.decode(),
            address=address if name == "institute" else "",
        )
        for name in names
    )
    at = now()
    roster = Roster(
        issued=at,
        expires=at + timedelta(days=90),
        consortium=consortium,
        name="Crowd",
        version=1,
        root=root,
        members=members,
    ).seal(root_key)
    homes = []
    for member in members:
        identity = Identity(
            consortium=consortium,
            name="Crowd",
            fingerprint=root_fingerprint(consortium, root),
            member=member.id,
            entity=member.entity,
            roles=member.roles,
            founded=member.id == "institute",
            coordinator="institute",
            address=address,
        )
        homes.append(Home.create(folder / member.id, identity, keys[member.id], [roster]))
    return homes[0], homes[1:]


class Crowd(parties.Consortium):
    """A coordinator's process, and the nodes that hold links to it."""

    def __init__(self, folder: Path, runtime: Runtime, count: int) -> None:
        institute, members = found(folder, count)
        store = CoordinatorStore(open_engine(institute.path / "coordinator.db", COORDINATOR_STORE))
        super().__init__(institute, store, members, runtime)
        for number, node in enumerate(self.nodes):
            node.rows = 100 + number
        self.party = Party(folder, "institute")
        self.attached: set[str] = set()
        self.refusals: dict[str, int] = {}
        self._changed = asyncio.Event()

    @property
    def process(self) -> Service:
        """The coordinator."""
        assert self.party.service is not None
        return self.party.service

    async def start(self) -> None:
        """Start the coordinator and wait until it listens."""
        await asyncio.to_thread(lambda: self.party.serve("coordinator", "serve", until="ready"))

    async def kill(self) -> None:
        """End the coordinator without a word."""
        await asyncio.to_thread(self.process.kill)
        async with asyncio.timeout(30):
            while self.attached:
                await self._moved()

    async def all_attached(self, seconds: float) -> None:
        """Wait until every node is."""
        async with asyncio.timeout(seconds):
            while len(self.attached) < len(self.nodes):
                await self._moved()

    @contextlib.asynccontextmanager
    async def links(self) -> AsyncIterator[Crowd]:
        """Every node's link, held for the duration of the block as a real node holds its own."""
        await self.start()
        holding = [asyncio.create_task(self._hold(node)) for node in self.nodes]
        try:
            yield self
        finally:
            for task in holding:
                task.cancel()
            await asyncio.gather(*holding, return_exceptions=True)
            await asyncio.to_thread(self.process.stop)
            for node in self.nodes:
                node.ledger.close()

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Peer]:
        """The requester's link."""
        async with connect(self.institute, refuse_all) as peer:
            await greet(peer, self.institute, None, serves="client")
            self.client = peer
            yield peer

    async def _hold(self, node: parties.FakeNode) -> None:
        async def serve(peer: Peer) -> None:
            await greet(peer, node.home, None, serves="node")
            self._move(node.name, True)
            try:
                await peer.ended()
            finally:
                self._move(node.name, False)

        def down(error: KeyongError) -> None:
            self.refusals[error.code] = self.refusals.get(error.code, 0) + 1

        await keep_attached(
            lambda: connect(node.home, node._handle, timeout=REDIAL_SECONDS),
            serve,
            on_down=down,
            jitter=random.Random(node.number),
        )

    def _move(self, name: str, here: bool) -> None:
        (self.attached.add if here else self.attached.discard)(name)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _moved(self) -> None:
        await self._changed.wait()


class Gauge:
    """What a process uses: memory in bytes (its share), descriptors, threads, CPU seconds."""

    def __init__(self, pid: int) -> None:
        self.folder = Path("/proc") / str(pid)

    @property
    def memory(self) -> int:
        """PSS in bytes."""
        return self._rollup("Pss")

    @property
    def own(self) -> int:
        """Anonymous memory in bytes: what the process itself holds, whoever else maps the same libraries."""
        return self._rollup("Anonymous")

    def _rollup(self, name: str) -> int:
        text = (self.folder / "smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:")) * 1024

    @property
    def descriptors(self) -> int:
        """Open files."""
        return len(list((self.folder / "fd").iterdir()))

    @property
    def files(self) -> Counter[str]:
        """Open files by what they are; numbers of sockets and the like left out."""
        found: Counter[str] = Counter()
        for link in (self.folder / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed since it was listed
                found[str(link.readlink()).partition(":[")[0]] += 1
        return found

    @property
    def threads(self) -> int:
        """Threads."""
        return len(list((self.folder / "task").iterdir()))

    @property
    def cpu(self) -> float:
        """User and system seconds so far."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Peak:
    """The most memory that a process used in a block, sampled."""

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self.before = self.most = gauge.memory

    async def __aenter__(self) -> Peak:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.most = max(self.most, self.gauge.memory)

    async def _sample(self) -> None:
        while True:
            self.most = max(self.most, await asyncio.to_thread(lambda: self.gauge.memory))
            await asyncio.sleep(0.05)

    @property
    def growth(self) -> int:
        """Bytes above the beginning."""
        return self.most - self.before


def clock() -> float:
    """Seconds."""
    return time.monotonic()
