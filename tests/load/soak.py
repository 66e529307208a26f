"""A day's work of a consortium in twenty minutes, and at the end whether anything grew.

    python -m tests.load.soak --seconds 1200 --out soak

Real processes: a coordinator and three nodes behind a proxy that now and then cuts every link. Jobs one after another
and several at once, apps whose output is refused, agreements made and revoked, a node restarted or killed, status,
exports, verification. Between rounds of work everything rests, and is measured. mill-b is the one that is restarted; the
others must hold from the first minute to the last. Exit 1 where a figure grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keyong.demo.leash import leash
from tests.integration.apps import client_that, server_with, write_app
from tests.integration.consortium import PURPOSE, Consortium
from tests.integration.parties import Party, Service, until
from tests.load.trend import Sample, as_json, judge, opened, plot, sample
from tests.network.proxy import Proxy
from tests.ports import own_port

ALONE = server_with("strategies.FedAvg(min_available_nodes=1, min_train_nodes=1, fraction_evaluate=0.0)")
WAITING = client_that("time.sleep(600)\nreturn reply(message, w, good)", before="import time")
LEAKING = client_that('return reply(message, w, {**good, "first-row": float(y[0])})')
RESTARTED = "mill-b"


class Soaked(Consortium):
    """A consortium whose nodes reach the coordinator through a proxy."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._behind = own_port()
        self.proxy = Proxy(self._behind)
        self.proxy.port = int(self.address.rpartition(":")[2])
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._forward(),), daemon=True)
        self._thread.start()
        self._ready.wait(10)

    async def _forward(self) -> None:
        async with self.proxy.serving():
            self._ready.set()
            await self._ending.wait()

    def serve_coordinator(self) -> Service:
        listen = f"127.0.0.1:{self._behind}"
        return self.institute.serve("coordinator", "serve", "--listen", listen, until="ready")

    def cut(self) -> None:
        """Cut every link."""
        self._loop.call_soon_threadsafe(self.proxy.cut)

    def stop(self) -> None:
        super().stop()
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)


class Course:
    """The work, and the samples between."""

    def __init__(self, consortium: Soaked, folder: Path, seconds: float) -> None:
        self.consortium = consortium
        self.seconds = seconds
        self.random = random.Random(3)
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.jobs = 0
        self.unexpected: list[str] = []
        self.began = time.monotonic()
        self.leaking = write_app(folder / "leaking", client=LEAKING)
        self.waiting = write_app(folder / "waiting", client=WAITING, server=ALONE)

    def run(self) -> None:
        """Work until the time is up."""
        acts: list[Callable[[], None]] = [
            self.several,
            self.refused,
            self.cut,
            self.revoke,
            self.restart,
            self.look,
            self.cut_in_a_job,
            self.audit,
        ]
        turn = 0
        while time.monotonic() - self.began < self.seconds:
            for _ in range(2):
                self.job()
            acts[turn % len(acts)]()
            turn += 1
            self.measure()

    def job(self) -> None:
        """One job of two exchanges."""
        self._expect("done", self.consortium.submit(self.consortium.app, round_seconds=120).status)

    def several(self) -> None:
        """Five at once: four run, one waits."""
        with ThreadPoolExecutor(5) as pool:
            courses = pool.map(lambda _: self.consortium.submit(self.consortium.app, round_seconds=120), range(5))
            for course in courses:
                self._expect("done", course.status)

    def refused(self) -> None:
        """An app that hands out a row's value."""
        course = self.consortium.submit(self.leaking, round_seconds=120)
        assert course.status != "done" and set(course.fallen.values()) <= {"output-refused"}, course.events
        self._count("refused")

    def cut(self) -> None:
        """Every link is cut; all come back."""
        marks = {mill.name: self._mark(mill) for mill in self.consortium.mills}
        self.consortium.cut()
        for mill in self.consortium.mills:
            self.consortium.attached_again(mill, marks[mill.name])
        self.done["links cut"] += 1

    def cut_in_a_job(self) -> None:
        """Every link is cut while a job runs; what it comes to is the plan's affair, not that it ends."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.consortium.job, None, "--rounds", "6")
            time.sleep(self.random.uniform(1, 4))
            self.cut()
            code = running.result(120).code
        assert code in (0, 5), code
        self._count("cut, done" if code == 0 else "cut, unavailable")

    def revoke(self) -> None:
        """An agreement is made, a job runs under it, it is revoked, the job dies."""
        mill, purpose = self.consortium.mill("c"), "fed:FaultDiagnosis"
        clauses = ("--expires", "1d", "--protection", "none", "--min-participants", "1")
        agreement = self.consortium.agree([mill], "--purpose", purpose, *clauses)[0]
        intents = len(self.consortium.entries(mill, "intent"))
        job = ("job", "run", self.waiting, "--purpose", purpose, "--dataset", "mill-c/passes", "--yes")
        running = self.consortium.institute.start(*job)
        until(lambda: len(self.consortium.entries(mill, "intent")) > intents, "no step began", 60)
        mill.ok("agreement", "revoke", agreement["id"])
        assert running.ended() != 0
        self._count("revoked")

    def restart(self) -> None:
        """One node stops or is killed, and serves again."""
        mill = next(one for one in self.consortium.mills if one.name == RESTARTED)
        assert mill.service is not None
        if self.random.random() < 0.5:
            mill.service.stop()
        else:
            mill.service.kill()
        self.consortium.serve_node(mill)
        self.done["node restarted"] += 1

    def look(self) -> None:
        """What people ask for."""
        consortium = self.consortium
        for command in (("coordinator", "status"), ("job", "list"), ("catalog", "list"), ("inbox",)):
            consortium.institute.ok(*command)
        consortium.mill("a").ok("ledger", "show", "--last", "50")
        self.done["looked"] += 1

    def audit(self) -> None:
        """An export, and its verification."""
        mill = self.consortium.mill("a")
        path = self.consortium.folder / f"export-{self.done['audited']}"
        mill.ok("ledger", "export", path)
        mill.ok("verify", path, "--root", self.consortium.fingerprint)
        path.unlink()
        self.done["audited"] += 1

    def measure(self) -> None:
        """Wait until everything rests, then look at every process."""
        until(self._rests, "jobs are over and sessions are not", 60)
        at = time.monotonic() - self.began
        for party in self.consortium.parties:
            if party.name != RESTARTED and party.service is not None:
                pid = party.service.process.pid
                self.samples.append(sample(party.name, pid, party.home, at, self.jobs))
        line = " ".join(f"{one.party} {one.memory:.1f}" for one in self.samples[-3:])
        print(f"{at:6.0f} s  {self.jobs:4} jobs  MB: {line}", file=sys.stderr)

    def _rests(self) -> bool:
        nodes = self.consortium.mills
        if any(any((mill.home / "sessions").iterdir()) for mill in nodes):
            return False
        return int(self.consortium.institute.ok("coordinator", "status").json["jobs_running"]) == 0

    def _mark(self, party: Party) -> int:
        assert party.service is not None
        return len(party.service.events)

    def _expect(self, wanted: str, status: str) -> None:
        if status != wanted:
            self.unexpected.append(f"a job ended {status} after {self.jobs} jobs")
        self._count(status)

    def _count(self, what: str) -> None:
        self.done[what] += 1
        self.jobs += 1


def main() -> int:
    """Run, write ``soak.json`` and ``soak.svg``, print the verdict."""
    parser = argparse.ArgumentParser(description="a day's work in twenty minutes")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--out", type=Path, default=Path("soak"))
    options = parser.parse_args()
    with leash(), tempfile.TemporaryDirectory(prefix="keyong-soak-") as name:
        folder = Path(name)
        consortium = Soaked(folder)
        try:
            consortium.begin()
            course = Course(consortium, folder, options.seconds)
            try:
                course.run()
            except Exception as error:  # what was measured until then is worth keeping, and the run has failed
                traceback.print_exc()
                course.unexpected.append(f"{type(error).__name__} after {course.jobs} jobs")
        finally:
            consortium.stop()
    verdicts = judge(course.samples)
    options.out.mkdir(exist_ok=True)
    found = {
        "purpose": PURPOSE,
        "seconds": options.seconds,
        "jobs": course.jobs,
        "done": dict(course.done),
        "unexpected": course.unexpected,
        "verdicts": verdicts,
        "samples": as_json(course.samples),
    }
    (options.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "soak.svg").write_text(plot(course.samples))
    print(json.dumps(found["done"]), *course.unexpected, sep="\n")
    for one in verdicts:
        print(
            f"{'ok  ' if one['holds'] else 'GROWS'} {one['party']:10} {one['figure']:12} {one['first']:8} -> "
            f"{one['last']:8} {one['unit']:7} {one['rise_per_hundred_jobs']:+.3f} a hundred jobs "
            f"(at most {one['bound_per_hundred_jobs']})"
        )
        if one["figure"] == "descriptors" and not one["holds"]:
            print(f"      opened since: {opened(course.samples, one['party'])}")
    return 0 if all(one["holds"] for one in verdicts) and not course.unexpected else 1


if __name__ == "__main__":
    sys.exit(main())
