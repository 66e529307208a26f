"""What must hold of a consortium's homes after a crash. Each check raises :class:`BrokenPromiseError`.

They read the files as an auditor would, with the library that verifies, and never the services' memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.home import Home
from federation.keyring import ledger_origin
from federation.ledger import VerifierKey, verify_bundle, verify_ledger
from federation.statements import Envelope, Receipt

SESSION_END_SECONDS = 15.0
OPEN = ("submitted", "running")


class BrokenPromiseError(AssertionError):
    """Something that a crash must not do was done."""


def require(holds: object, what: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise BrokenPromiseError(what)


def ledger_key(home: Path) -> VerifierKey:
    """What verifies a home's ledger."""
    opened = Home(home)
    origin = ledger_origin(opened.identity.consortium, opened.identity.member)
    return VerifierKey(origin, opened.key("ledger").public)


@dataclass
class Account:
    """What one party's ledger has acknowledged so far, to whomever."""

    home: Path
    leaves: list[bytes] = field(default_factory=list)
    """Of every entry that anybody was shown."""
    given: dict[int, bytes] = field(default_factory=dict)
    """Bundles that left the party, by entry: a receipt with its proof."""
    _key: VerifierKey | None = None

    @property
    def key(self) -> VerifierKey:
        """What verifies this ledger."""
        if self._key is None:
            self._key = ledger_key(self.home)
        return self._key

    def hold(self, bundle: bytes) -> None:
        """Note an answer that the party gave."""
        self.given[verify_bundle(bundle, self.key).entry.index] = bundle

    def check(self, *, whole: bool = True) -> None:
        """Every acknowledged entry is there, unchanged; ``whole``: the history verifies, with every bundle given."""
        leaves = [
            bytes(row[0]) for row in rows(self.home / "ledger" / "ledger.db", "SELECT leaf FROM entry ORDER BY idx")
        ]
        require(leaves[: len(self.leaves)] == self.leaves, f"{self.home.name}: entries that were shown are gone")
        missing = [index for index in self.given if index >= len(leaves)]
        require(not missing, f"{self.home.name}: acknowledged entries {missing} are gone")
        self.leaves = leaves
        if whole:
            verdict = verify_ledger(self.home / "ledger", self.key, receipts=list(self.given.values()))
            require(verdict.entries >= len(leaves), f"{self.home.name}: the history is shorter than it was")


def rows(database: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Read a store beside whoever serves it."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(query, values).fetchall()


def open_intents(home: Path) -> list[int]:
    """INTENT entries that no OUTCOME refers to, by the entries alone."""
    query = (
        "SELECT idx FROM entry WHERE kind = 'intent' AND idx NOT IN"
        " (SELECT ref FROM entry WHERE kind = 'outcome' AND ref IS NOT NULL) ORDER BY idx"
    )
    return [int(row[0]) for row in rows(home / "ledger" / "ledger.db", query)]


def check_settled(home: Path) -> None:
    """A node at rest has no step open, and no step has two outcomes."""
    still = open_intents(home)
    require(not still, f"{home.name}: entries {still} are INTENTs without an OUTCOME")
    query = "SELECT ref FROM entry WHERE kind = 'outcome' GROUP BY ref HAVING count(*) > 1"
    twice = rows(home / "ledger" / "ledger.db", query)
    require(not twice, f"{home.name}: entries {twice} have two outcomes")


def check_aborted(home: Path, left_open: Iterable[int]) -> None:
    """A node that serves again has aborted each step that the crash left open, once."""
    database = home / "ledger" / "ledger.db"
    for intent in left_open:
        found = rows(database, "SELECT idx FROM entry WHERE kind = 'outcome' AND ref = ?", intent)
        require(len(found) == 1, f"{home.name}: entry {intent} has {len(found)} outcomes")
        (payload,) = rows(database, "SELECT payload FROM field WHERE idx = ? AND name = 'receipt'", found[0][0])[0]
        receipt = Receipt.read(Envelope.from_bytes(payload))
        require(
            (receipt.outcome, receipt.code) == ("killed", "aborted"),
            f"{home.name}: the step that the crash left open (entry {intent}) ended as {receipt.outcome}/{receipt.code}",
        )


def check_uses(home: Path) -> None:
    """One use is one plan, reserved with its first INTENT; state and entries say the same."""
    database = home / "ledger" / "ledger.db"
    payloads = rows(
        database, "SELECT f.payload FROM field f JOIN entry e USING (idx) WHERE e.kind = 'intent' AND f.name = 'plan'"
    )
    begun = {json.loads(payload) for (payload,) in payloads}
    reserved = [plan for (plan,) in rows(database, "SELECT plan FROM plan_use")]
    require(
        sorted(begun) == sorted(reserved), f"{home.name}: {len(begun)} plans began, {len(reserved)} uses are reserved"
    )
    steps = rows(database, "SELECT intent, outcome IS NULL FROM step ORDER BY intent")
    entries = rows(database, "SELECT idx FROM entry WHERE kind = 'intent' ORDER BY idx")
    require([step[0] for step in steps] == [one[0] for one in entries], f"{home.name}: steps and INTENTs differ")
    unsettled = [step[0] for step in steps if step[1]]
    require(unsettled == open_intents(home), f"{home.name}: state and entries disagree on what is open")


def sessions(home: Path, resumable: Iterable[str] = ()) -> list[Path]:
    """Folders of a node's sessions, but those of plans that are ``resumable``: a node keeps these for a while."""
    kept = {plan.removeprefix("sha256:") for plan in resumable}
    folder = home / "sessions"
    return [path for path in folder.iterdir() if path.name not in kept] if folder.is_dir() else []


def leftovers(home: Path, resumable: Iterable[str] = ()) -> list[str]:
    """What lies in a home of jobs that have ended, and of writes that are not at their end: a crash's stay, a service's go."""
    left = [*sessions(home, resumable), *((home / "spool").iterdir() if (home / "spool").is_dir() else ())]
    left += [
        path for path in home.rglob("*") if path.name.endswith((".tmp", ".partial")) or ".keyong-work" in path.name
    ]
    return sorted(str(path.relative_to(home.parent)) for path in left)


def check_no_leftovers(home: Path, resumable: Iterable[str] = ()) -> None:
    """Nothing of a job that has ended, or of a write that a crash broke off, lies in a home at rest."""
    left = leftovers(home, resumable)
    require(not left, f"left behind: {left}")


def holders(folder: Path, resumable: Iterable[str] = ()) -> list[int]:
    """Processes that have a folder of a job's session mounted, but sessions of ``resumable`` plans."""
    kept = [plan.removeprefix("sha256:") for plan in resumable]
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                mounts = (process / "mountinfo").read_text()
            except OSError:
                continue
            held = [line for line in mounts.splitlines() if f"{folder}/" in line]
            if held and not any(plan in line for plan in kept for line in held):
                found.append(int(process.name))
    return found


def check_no_processes(folder: Path, resumable: Iterable[str] = ()) -> None:
    """No session of a job outlives the process that opened it, or the job."""
    end = time.monotonic() + SESSION_END_SECONDS
    while held := holders(folder, resumable):
        told = "; ".join(f"{pid} {_told(pid)}" for pid in held)
        require(time.monotonic() < end, f"processes of ended sessions live on: {told}")
        time.sleep(0.02)


def _told(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        status = [
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line[:5] in ("State", "PPid:")
        ]
        return f"{words[:200]} {status} {Path(f'/proc/{pid}/wchan').read_text()}"
    except OSError:
        return "gone"


def check_jobs(home: Path, *, at_rest: bool = True) -> dict[str, str]:
    """Every file of every result is whole, and says of its job what the store says; returns each job's status."""
    found = rows(home / "coordinator.db", "SELECT id, status FROM job")
    statuses = {str(job): str(status) for job, status in found}
    still = [job for job, status in statuses.items() if status in OPEN]
    require(not (at_rest and still), f"jobs that nobody runs are open: {still}")
    for job, status in statuses.items():
        folder = home / "jobs" / job.removeprefix("urn:uuid:")
        if status not in OPEN and folder.is_dir():
            check_result(folder, status)
    return statuses


def check_result(folder: Path, status: str) -> None:
    """The files of one result that are there are whole."""
    for path in _result_files(folder):
        data = path.read_bytes()
        try:
            if path.suffix == ".json":
                json.loads(data)
            if path.name.endswith(".receipt.json"):
                Envelope.from_bytes(data)
            if path.suffix == ".safetensors":
                (size,) = struct.unpack("<Q", data[:8])
                tensors = json.loads(data[8 : 8 + size])
                tensors.pop("__metadata__", None)
                require(max(one["data_offsets"][1] for one in tensors.values()) == len(data) - 8 - size, "cut short")
        except (ValueError, struct.error, AssertionError) as error:
            raise BrokenPromiseError(f"{path.name} of a job that is {status} is half a file") from error
    summary = folder / "summary.json"
    if status == "done":
        require(summary.is_file() and (folder / "model.safetensors").is_file(), "a job is done without its result")
    if summary.is_file():
        said = json.loads(summary.read_bytes())["status"]
        require(said == status, f"the summary says {said}, the store {status}")


def _result_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "app" not in path.relative_to(folder).parts[:1] and os.access(path, os.R_OK):
            yield path
