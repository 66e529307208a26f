"""What witnesses cost a ledger that is written to, and how soon an entry is witnessed.

The rate is that of `keyong bench ledger`, while the newest state is shown to three witnesses as often as a node shows it, by
the node's own code: consistency proof, signature, the witness's verification and its flush to disk, cosignatures merged. Only the
wire between them is left out. It counts once every entry is witnessed by all three.

The delay is between real processes over real links: entries are written to one node's ledger, one after another, and the clock
runs from COMMIT until a quorum of the other companies has cosigned.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from federation.home import Home, NewKeys, now
from federation.keyring import ledger_origin, witness_key, witness_name
from federation.ledger import Checkpoint, Ledger, Witness, WitnessRefusedError, open_checkpoint, parse_note
from federation.statements import Member, Root, Roster
from federation.witnessing import ATTEST_SECONDS, Quorum, Witnessing, log_key
from keyong.bench.figure import Figure
from keyong.bench.line import stand
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.text import mark

WITNESSES = 3
NODES = 7
TRIALS = 10
POLL_SECONDS = 0.01
LIMIT_SECONDS = 30.0


@contextmanager
def shown(folder: Path) -> Iterator[tuple[Ledger, Callable[[], None]]]:
    """A ledger whose state is shown to three witnesses all the while; the second value waits until they have it all."""
    names = ("institute", "mill", *(f"witness-{number}" for number in range(1, WITNESSES + 1)))
    keys = {name: NewKeys(name, root=name == "institute") for name in names}
    consortium = f"urn:uuid:{uuid.uuid4()}"
    roster = _roster(consortium, keys)
    witnesses = {}
    for name in names[2:]:
        (place := folder / name).mkdir()
        witnesses[name] = Witness(witness_name(consortium, name), keys[name].witness, place, now)

    def answer(member: str, request: bytes) -> tuple[int, bytes]:
        try:
            return 200, witnesses[member].add_checkpoint(request, lambda origin: log_key(roster, origin))
        except WitnessRefusedError as error:
            return error.status, b"" if error.size is None else f"{error.size}\n".encode()

    async def ask(member: str, request: bytes) -> tuple[int, bytes]:
        return await asyncio.to_thread(answer, member, request)

    (place := folder / "mill").mkdir()
    home = cast(
        "Home", SimpleNamespace(history=SimpleNamespace(latest=roster), identity=SimpleNamespace(member="mill"))
    )
    with Ledger.create(place, ledger_origin(consortium, "mill"), keys["mill"].ledger) as ledger:
        showing = Witnessing(home, ledger, ask, None, time.monotonic)
        over = threading.Event()

        async def show() -> None:
            while not over.is_set():
                await showing.advance()
                await asyncio.sleep(ATTEST_SECONDS)

        thread = threading.Thread(target=asyncio.run, args=(show(),), name="witnesses", daemon=True)
        thread.start()
        cosigners = [witness_key(roster, roster.member(name)) for name in witnesses]

        def settled() -> None:
            while True:
                signed = open_checkpoint(ledger.checkpoint(), ledger.vkey, cosigners)
                if signed.checkpoint.size == ledger.size and len(signed.witnesses) == WITNESSES:
                    return
                time.sleep(POLL_SECONDS)

        try:
            yield ledger, settled
        finally:
            over.set()
            thread.join()


def _roster(consortium: str, keys: dict[str, NewKeys]) -> Roster:
    root = keys["institute"].root
    assert root is not None
    members = tuple(
        Member(
            id=name,
            entity=f"Company {name}",
            roles=("coordinator",) if name == "institute" else ("member",),
            statement_key=one.statement.public.text,
            ledger_key=one.ledger.public.text,
            witness_key=one.witness.public.text,
            tls_certificate=one.tls.certificate_pem.decode(),
        )
        for name, one in keys.items()
    )
    at = now()
    pinned = Root(threshold=1, keys=(root.public.text,))
    day = at + timedelta(days=1)
    return Roster(
        issued=at, expires=day, consortium=consortium, name="Benchmark", version=1, root=pinned, members=members
    )


def delay(nodes: int = NODES, trials: int = TRIALS) -> list[Figure]:
    """Seconds from a COMMIT at one node until a quorum of the others cosigned it; the worst of some entries."""
    found = []
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), nodes)
        for node in line.nodes:
            node.run("peers", "accept", "--all")
        home = Home(line.nodes[0].home)
        quorum = Quorum.of([home.history.latest], home.identity.member)
        with home.open_ledger() as ledger, bar(mark("entries witnessed")) as advance:
            _until_final(ledger, quorum, ledger.size)  # what was written while they came
            for number in range(trials):
                # At another moment of the witnesses' turn each time, as entries come.
                time.sleep(ATTEST_SECONDS * (1 + number / trials))
                appended = ledger.append("note", {"number": number})
                began = time.monotonic()
                _until_final(ledger, quorum, appended.size)
                found.append(time.monotonic() - began)
                advance(number + 1, trials)
    note = f"worst of {trials} entries; {nodes} nodes, final by {quorum.needed} other companies"
    return [
        published("committed-to-witnessed-seconds", max(found), spread=(min(found), max(found)), note=note),
        Figure("committed-to-witnessed-median-seconds", statistics.median(found), "s"),
    ]


def _until_final(ledger: Ledger, quorum: Quorum, size: int) -> None:
    """Return once a state of at least so many entries is cosigned by a quorum.

    Raises:
        TimeoutError: it was not, for half a minute.
    """
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        with ledger.reader() as connection:
            rows: list[Any] = connection.execute("SELECT note FROM checkpoint WHERE size >= ?", (size,)).fetchall()
        for (note,) in rows:
            if quorum.reached(open_checkpoint(note, ledger.vkey, quorum.keys).witnesses):
                return
        time.sleep(POLL_SECONDS)
    size = Checkpoint.parse(parse_note(ledger.checkpoint()).text).size
    raise TimeoutError(f"no quorum cosigned {size} entries")
