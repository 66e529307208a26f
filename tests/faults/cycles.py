"""Cycles of killing: jobs run, one process after the other is killed at a moment of its work, started again, checked.

Everything that chance decides comes from one seed; how the processes interleave does not, so a seed repeats the kind
and place of every kill, and most of its course.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import checks
from tests.faults.checks import Account, require
from tests.faults.consortium import ForkedConsortium
from tests.faults.forked import ForkedParty, ForkedService
from tests.faults.injection import ANY, DIE_AFTER, DIE_BEFORE, DIE_TORN, MKDIR, RENAME, SYNC, UNLINK, WRITE, Fault
from tests.integration.parties import until

MOMENTS = ("plan", "permitted", "permitted", "started", "started", "round", "round")
"""Events of the job after which a kill comes, some moment later."""
MOMENT_SECONDS = 0.3
WORDS = {
    "node": ("ledger/ledger.db", "ledger/ledger.checkpoint", "store.db", "/sessions/", "/logs/", ""),
    "coordinator": ("coordinator.db", "ledger/ledger.db", "ledger/ledger.checkpoint", "/jobs/", "/receipts/", ""),
    "requester": ("",),
}
KINDS = (SYNC, WRITE, RENAME, UNLINK, SYNC | WRITE, RENAME | UNLINK | MKDIR, ANY)
INTERRUPTED = "SELECT plan_digest FROM job WHERE status = 'interrupted'"


@dataclass(frozen=True)
class Kill:
    """How a process is to die."""

    role: str
    party: str
    after: str
    """The event of the job that is awaited before anything happens."""
    delay: float
    """Seconds from there; where a fault is armed, the longest it may take to be met."""
    fault: Fault | None
    group: bool
    at_start: bool
    """Once more while it starts again."""


@dataclass
class Told:
    """What the cycles did, for the summary."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    aborted: int = 0
    receipts: int = 0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        jobs = ", ".join(f"{count} {name}" for name, count in sorted(self.jobs.items()))
        return (
            f"seed {self.seed}: killed {kills}; jobs {jobs}; {self.aborted} open steps closed as aborted;"
            f" {self.receipts} receipts found again"
        )


class Cycles:
    """Kills the processes of a running consortium."""

    def __init__(self, consortium: ForkedConsortium, seed: int, *, inject: bool) -> None:
        self._consortium = consortium
        self._inject = inject
        self._chance = random.Random(seed)
        self.told = Told(seed)
        self._accounts = {party.name: Account(party.home) for party in consortium.parties}
        self._seen: set[Path] = set()
        self._jobs: set[str] = set()
        self._done = 0

    def run(self, cycles: int) -> Told:
        """Kill so often."""
        while self._done < cycles:
            self._job(min(self._chance.randint(1, 3), cycles - self._done))
            self._check(whole=self._done >= cycles or len(self.told.jobs) < 40 or self._chance.random() < 0.1)
        self._last_job()
        return self.told

    # -- one job, and who dies in it -----------------------------------------------------------------------------------

    def _job(self, kills: int) -> None:
        running = self._consortium.institute.start(*self._consortium.request())
        for _ in range(kills):
            kill = self._choose()
            self._done += 1
            self.told.kills[kill.role] += 1
            if kill.role == "requester":
                self._die(running, running, kill)
                continue
            party = next(one for one in self._consortium.parties if one.name == kill.party)
            assert party.service is not None
            self._die(running, party.service, kill)
            self._start_again(party, kill)
        running.ended()
        if "Traceback" in running.text:
            raise AssertionError(running.text)

    def _choose(self) -> Kill:
        chance = self._chance
        role = chance.choices(("node", "coordinator", "requester"), (60, 28, 12))[0]
        party = chance.choice(self._consortium.mills).name if role == "node" else "institute"
        return Kill(
            role,
            party,
            chance.choice(MOMENTS),
            chance.uniform(0, MOMENT_SECONDS),
            self._fault(role, chance) if chance.random() < 0.6 else None,
            chance.random() < 0.3,
            chance.random() < 0.25,
        )

    def _fault(self, role: str, chance: random.Random, most: int = 12) -> Fault:
        action = chance.choice((DIE_BEFORE, DIE_AFTER, DIE_TORN))
        kinds = WRITE if action == DIE_TORN else chance.choice(KINDS)
        word = chance.choice(WORDS[role])
        nth = chance.randint(1, most if word else 3 * most)
        return Fault(kinds, action, word or f"{self._consortium.folder}/", nth)

    def _die(self, running: ForkedService, service: ForkedService, kill: Kill) -> None:
        running.first_of(kill.after, "process-ended")
        if kill.fault is not None and self._inject:
            service.faults.arm(kill.fault)
        met = service.died(kill.delay)
        if met and service.process.returncode == -9:
            self.told.kills["by a fault point"] += 1
        if kill.group:
            service.process.kill_group()
        service.kill()

    def _start_again(self, party: ForkedParty, kill: Kill) -> None:
        left_open = checks.open_intents(party.home) if kill.role == "node" else []
        self._accounts[party.name].check(whole=False)
        what = ("node", "serve") if kill.role == "node" else ("coordinator", "serve")
        if kill.at_start and self._inject:
            fault = self._fault(kill.role, self._chance, 8)
            dying = party.start(*what, fault=Fault(fault.kinds, fault.action, f"{self._consortium.folder}/", fault.nth))
            dying.died(0.25)
            dying.kill()
            self.told.kills["while starting"] += 1
        party.service = party.start(*what)
        party.service.wait_for("ready")
        if kill.role == "node":
            checks.check_aborted(party.home, left_open)
            self.told.aborted += len(left_open)

    # -- at rest -------------------------------------------------------------------------------------------------------

    def _check(self, *, whole: bool) -> None:
        """What must hold once everybody serves again and no job runs."""
        consortium = self._consortium
        home = consortium.institute.home
        self._rest(home)
        resumable = [plan for (plan,) in checks.rows(home / "coordinator.db", INTERRUPTED)]
        for mill in consortium.mills:
            until(partial(self._idle, mill, resumable), f"{mill.name} goes on: {checks.open_intents(mill.home)}")
        statuses = checks.check_jobs(home)
        for job in statuses.keys() - self._jobs:
            self.told.jobs[statuses[job]] += 1
        self._jobs = set(statuses)
        self._take_receipts(home)
        for mill in consortium.mills:
            checks.check_settled(mill.home)
            checks.check_uses(mill.home)
            self._clean(mill.home, resumable)
        self._clean(home)
        checks.check_no_processes(consortium.folder, resumable)
        for account in self._accounts.values():
            account.check(whole=whole)

    def _rest(self, home: Path) -> None:
        """Wait until no job is open: one whose requester was killed goes on."""
        query = "SELECT count(*) FROM job WHERE status IN ('submitted', 'running')"
        until(lambda: checks.rows(home / "coordinator.db", query)[0][0] == 0, "a job does not end")

    @staticmethod
    def _clean(home: Path, resumable: Iterable[str] = ()) -> None:
        """Wait until nothing is left behind: nodes cosign one another's ledgers at rest too, and write that down."""
        first = checks.leftovers(home, resumable)
        until(lambda: not first or not checks.leftovers(home, resumable), f"left behind: {first}")

    @staticmethod
    def _idle(mill: ForkedParty, resumable: list[str]) -> bool:
        return not checks.open_intents(mill.home) and not checks.sessions(mill.home, resumable)

    def _take_receipts(self, home: Path) -> None:
        for path in home.glob("jobs/*/receipts/*.proof.json"):
            if path not in self._seen:
                self._seen.add(path)
                name = path.name.removesuffix(".proof.json").split("-", 2)[2]
                self._accounts[name].hold(path.read_bytes())
                self.told.receipts += 1

    def _last_job(self) -> None:
        """After all of that, a job runs to its end at everybody, and its result can be had."""
        institute = self._consortium.institute
        for mill in self._consortium.mills:
            self._consortium.attached_again(mill, 0)
        ended = institute.run(*self._consortium.request(), form="json")
        require(ended.code == 0, f"the next job ends with {ended.code}\n{ended.out}\n{ended.err}")
        last: dict[str, Any] = next(line for line in ended.lines if line["event"] == "end")
        require(last["rounds_done"] == 3, f"the next job has {last}")
        self._check(whole=True)
        folder = self._consortium.folder / f"result-{time.monotonic_ns()}"
        institute.ok("job", "result", self._consortium.job_id(), "-o", folder)
        require(len(list(folder.rglob("*.receipt.json"))) == 6, "the next job's receipts are not all there")
