"""Outputs that wait for the owner: sealed on disk, known to the ledger, released or refused by the owner's own command.

An agreement may demand that the owner looks at each output before it leaves (duty ``fed:review``). The output then passes the
gate and the encoding as ever, and is written to ``held/`` under the home's own key instead of being sent; a ``held`` entry
names its digest. The step stays open (its INTENT has no OUTCOME) until the owner decides, the plan's time is over, or the
agreement ends. A restart of the node changes nothing: the row, the file and the open step are found again.

The table lives in the ledger's database: the owner's decision is a ``review`` entry, and takes effect in its transaction. An
attacker who can modify it can release what is held; one who can modify the files can destroy them, and nothing leaves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from enterprise_node._sealed_file import SealedFileError, read_sealed, seal_key, write_sealed
from enterprise_node.output_summary import OutputSummary
from federation.errors import UsageError
from federation.home import Home
from federation.ledger import Appended, Ledger
from federation.statements import Isolation, instant_text, parse_instant
from federation.wire.body import Buffer

HELD_SCHEMA = (
    """CREATE TABLE held (
        invocation TEXT PRIMARY KEY, plan TEXT NOT NULL, agreement TEXT NOT NULL, intent INTEGER NOT NULL,
        entry INTEGER NOT NULL, deadline TEXT NOT NULL, decision TEXT, decided INTEGER) STRICT""",
)
Decision = Literal["released", "refused"]
POLL_SECONDS = 0.5
"""How soon the owner's decision, made in another process, takes effect."""
_FOLDER = "held"


class NothingHeldError(UsageError):
    """No output of that name waits here."""

    code = "nothing-held"


class HeldHead(BaseModel):
    """What is kept beside an output's bytes: what the owner is shown, and what its receipt will say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    plan: str
    requester: str
    purpose: str
    agreement: str
    dataset: str
    code: str
    round: int
    rounds: int
    stage: str
    started: str
    held: str
    deadline: str
    header: str
    padding: int
    digest: str
    weight: int
    saturated: int
    normalised: int
    leak_bits: int
    snapshot: str
    rules: str = ""
    isolation: Isolation
    summary: OutputSummary


@dataclass(frozen=True)
class HeldRow:
    """One output that waits, as the ledger's database knows it."""

    invocation: str
    plan: str
    agreement: str
    intent: int
    entry: int
    deadline: datetime
    decision: Decision | None

    @property
    def name(self) -> str:
        """What the owner calls it: the beginning of the invocation's digest."""
        return self.invocation.removeprefix("sha256:")[:12]


class HeldOutputs:
    """The outputs that wait in one home; the node writes them, the owner's command reads and decides."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._ledger = ledger
        self._home = home

    # -- the node's side ----------------------------------------------------------------------------------------------

    async def hold(self, invocation: str, intent: int, head: HeldHead, body: Sequence[Buffer]) -> HeldRow:
        """Write an output down and put that on record; the file first, so that no row is without one."""
        await asyncio.to_thread(self._write, invocation, head, body)
        fields = {
            "plan": head.plan,
            "invocation": invocation,
            "intent": intent,
            "output": head.digest,
            "bytes": head.summary.bytes,
            "leak_bits": head.summary.leak_bits,
            "deadline": head.deadline,
        }

        def note(connection: sqlite3.Connection) -> None:
            index = connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0]
            connection.execute(
                "INSERT INTO held (invocation, plan, agreement, intent, entry, deadline) VALUES (?, ?, ?, ?, ?, ?)",
                (invocation, head.plan, head.agreement, intent, index, head.deadline),
            )

        await asyncio.wrap_future(self._ledger.submit("held", fields, apply=note))
        row = await asyncio.to_thread(self.row, invocation)
        if row is None:
            raise NothingHeldError("the output that was held is gone")
        return row

    async def decided(self, row: HeldRow, now: Any, stopped: asyncio.Event) -> Decision | None:
        """Wait for the owner's decision; None where the time is over, or the job was stopped, without one.

        Args:
            now: the time of day; a deadline outlives the process, so no other clock can keep it.
        """
        while not stopped.is_set():
            current = await asyncio.to_thread(self.row, row.invocation)
            if current is None or current.decision is not None:
                return current.decision if current is not None else None
            if now() >= row.deadline:
                return None
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await stopped.wait()
            except TimeoutError:
                continue
        return None

    def row(self, invocation: str) -> HeldRow | None:
        """The row of one invocation."""
        return next(iter(self._rows("WHERE invocation = ?", invocation)), None)

    def rows(self) -> list[HeldRow]:
        """Everything that waits, oldest first."""
        return self._rows("ORDER BY entry")

    def drop(self, invocation: str) -> None:
        """Remove an output's file; its row went with the OUTCOME."""
        self._path(invocation).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove files that no row names: of a crash before the entry, or after the OUTCOME."""
        known = {self._path(row.invocation).name for row in self.rows()}
        folder = self._home.path / _FOLDER
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in known:
                path.unlink(missing_ok=True)

    # -- the owner's side ---------------------------------------------------------------------------------------------

    def find(self, name: str) -> HeldRow:
        """The one that is called so, or whose name begins so."""
        bare = name.removeprefix("sha256:")
        hits = [row for row in self.rows() if row.invocation.removeprefix("sha256:").startswith(bare)]
        if len(hits) != 1 or len(bare) < 4:
            raise NothingHeldError(
                "no output called {name} waits here",
                hint="see `keyong node review list`; give at least the first four characters",
                name=name[:64],
            )
        return hits[0]

    def head(self, row: HeldRow) -> HeldHead:
        """What the owner is shown; raises SealedFileError where the file is gone or was changed."""
        head, _ = read_sealed(self._path(row.invocation), self._key(), body=False)
        return self._check(HeldHead.model_validate(head), row)

    def read(self, row: HeldRow) -> tuple[HeldHead, bytes]:
        """Head and body, for the node that releases it."""
        head, body = read_sealed(self._path(row.invocation), self._key())
        return self._check(HeldHead.model_validate(head), row), body

    def decide(self, row: HeldRow, decision: Decision, note: str, now: datetime) -> Appended:
        """Release or refuse an output: an entry, and in its transaction the decision itself.

        Raises:
            NothingHeldError: it was decided before, its time is over, or its step ended otherwise.
        """
        if now >= row.deadline:
            raise NothingHeldError(
                "the time to decide on {name} ended at {deadline}", name=row.name, deadline=instant_text(row.deadline)
            )
        current = self.row(row.invocation)
        if current is None or current.decision is not None:
            raise NothingHeldError("{name} no longer waits for a decision", name=row.name)
        output = self.head(row).digest if decision == "released" else ""

        def take(connection: sqlite3.Connection) -> None:
            index = connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0]
            taken = connection.execute(
                "UPDATE held SET decision = ?, decided = ? WHERE invocation = ? AND decision IS NULL",
                (decision, index, row.invocation),
            )
            if taken.rowcount != 1:
                raise NothingHeldError("{name} no longer waits for a decision", name=row.name)

        fields = {
            "invocation": row.invocation,
            "plan": row.plan,
            "held": row.entry,
            "decision": decision,
            "output": output,
            "note": note,
        }
        return self._ledger.append("review", fields, apply=take)

    # -- files and rows -----------------------------------------------------------------------------------------------

    def _check(self, head: HeldHead, row: HeldRow) -> HeldHead:
        if (head.plan, head.agreement) != (row.plan, row.agreement):
            raise SealedFileError("the sealed file {name} is missing, or was changed", name=row.name)
        return head

    def _write(self, invocation: str, head: HeldHead, body: Sequence[Buffer]) -> None:
        self._home.folder(_FOLDER)
        write_sealed(self._path(invocation), self._key(), head.model_dump(mode="json"), body)

    def _path(self, invocation: str) -> Any:
        return self._home.path / _FOLDER / f"{invocation.removeprefix('sha256:')}.sealed"

    def _key(self) -> bytes:
        return seal_key(self._home.path / "keys" / "held.key")

    def _rows(self, where: str, *values: object) -> list[HeldRow]:
        with self._ledger.reader() as connection:
            found = connection.execute(
                f"SELECT invocation, plan, agreement, intent, entry, deadline, decision FROM held {where}",  # noqa: S608
                values,
            ).fetchall()
        return [
            HeldRow(one, plan, ground, intent, entry, parse_instant(end), choice)
            for one, plan, ground, intent, entry, end, choice in found
        ]
