"""A consortium of a coordinating institute and three mills: founded, joined, serving, agreed, by commands alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from federation.home import Home
from federation.jobs.project import load_project
from federation.statements.code import bundle_folder
from keyong import runtime
from keyong.choosing import choose
from keyong.client import Client
from keyong.outputs import declared_outputs, load_pyproject
from keyong.planning import make_plan
from tests.integration.apps import write_app
from tests.integration.parties import Ended, Party, Service, until
from tests.ports import own_port

MILLS = ("mill-a", "mill-b", "mill-c")
ROWS = {"mill-a": 200, "mill-b": 300, "mill-c": 500}
FURTHER_ROWS = 400
"""Of each mill beyond the usual three."""
PURPOSE = "fed:ProcessOptimization"


@dataclass(frozen=True)
class Course:
    """How a job that was submitted through the SDK went."""

    job: str
    events: list[dict[str, Any]]

    @property
    def status(self) -> str:
        """What it ended as."""
        ends = ("done", "failed", "denied", "cancelled", "interrupted")
        return next(one["event"] for one in reversed(self.events) if one["event"] in ends)

    @property
    def fallen(self) -> dict[str, str]:
        """Who fell out, and for which code."""
        return {one["data"]["node"]: one["data"]["code"] for one in self.events if one["event"] == "fell-out"}


class Consortium:
    """A running consortium. Agreements under ``PURPOSE`` permit any code, any number of times.

    Args:
        folder: its parties' homes.
        mills: the members with data.
        protection: what the agreements say of it.
        party: how a party's commands are started.
    """

    def __init__(
        self,
        folder: Path,
        mills: Sequence[str] = MILLS,
        protection: str = "none",
        party: Callable[[Path, str], Party] = Party,
    ) -> None:
        self.folder = folder
        self.institute = party(folder, "institute")
        self.mills = [party(folder, name) for name in mills]
        self.protection = protection
        self.fingerprint = ""
        self.address = f"127.0.0.1:{own_port()}"
        self.app = write_app(folder / "app")
        (folder / "invitations").mkdir(mode=0o700)
        (folder / "records").mkdir(mode=0o700)

    @property
    def parties(self) -> list[Party]:
        """All parties."""
        return [self.institute, *self.mills]

    def mill(self, letter: str) -> Party:
        """A mill by its letter."""
        return next(mill for mill in self.mills if mill.name == f"mill-{letter}")

    def begin(self) -> None:
        """Found, join, register, serve, accept and agree."""
        self.found()
        for mill in self.mills:
            self.join(mill)

        def serve(mill: Party) -> None:
            rows = ROWS.get(mill.name, FURTHER_ROWS)
            write_records(self.records(mill), rows, seed=self.mills.index(mill))
            mill.ok("node", "dataset", "add", "passes", self.records(mill), "--title", "Passes", "--simulated")
            self.serve_node(mill)

        at_once(serve, self.mills)
        # After the last has joined: an entity counts once the owner has accepted it.
        at_once(lambda mill: mill.ok("peers", "accept", "--all"), self.mills)
        self.agree(self.mills, "--purpose", PURPOSE, "--expires", "30d", "--protection", self.protection)

    def found(self) -> None:
        """Found the consortium and serve its coordinator."""
        self.institute.ok(
            "consortium",
            "init",
            "--name",
            "Mills",
            "--member",
            "institute",
            "--entity",
            "Rolling Institute",
            "--address",
            self.address,
        )
        self.fingerprint = self.institute.ok("whoami").json["consortium"]["fingerprint"]
        self.serve_coordinator()

    def serve_coordinator(self) -> Service:
        """Start the coordinator."""
        return self.institute.serve("coordinator", "serve", until="ready")

    def serve_node(self, mill: Party) -> Service:
        """Start a mill's node."""
        return mill.serve("node", "serve", until="attached")

    def invite(self, member: str, entity: str = "", *more: str) -> Path:
        """An invitation in a file."""
        path = self.folder / "invitations" / member
        self.institute.ok("consortium", "invite", member, "--entity", entity or f"{member} Ltd", *more, "-o", path)
        return path

    def join(self, party: Party) -> None:
        """Invite a party and let it join."""
        party.ok("join", self.invite(party.name), "--fingerprint", self.fingerprint)

    def records(self, mill: Party) -> Path:
        """A mill's file of rows."""
        return self.folder / "records" / f"{mill.name}.csv"

    def agree(self, mills: Sequence[Party], *clauses: str | Path, dataset: str = "passes") -> list[dict[str, Any]]:
        """Each mill offers under these clauses, the institute signs; returns once every mill holds it signed."""
        common = ("agreement", "offer", "--to", "institute", "--dataset", dataset, "--title", "Test")
        at_once(lambda mill: mill.ok(*common, *clauses), mills)
        names = {mill.name: mill for mill in mills}
        offers = [one for one in self.institute.ok("inbox").json["offers"] if one["provider"] in names]
        for offer in offers:
            self.institute.ok("agreement", "sign", offer["id"])
        for offer in offers:
            mill = names[offer["provider"]]
            until(partial(self._holds, mill, offer["digest"]), f"no signed agreement reached {mill.name}")
        return offers

    def _holds(self, mill: Party, digest: str) -> bool:
        listed = mill.ok("agreement", "list", "--all").json
        return any(one["digest"] == digest and one["state"] in ("in-force", "expired") for one in listed)

    def job(self, app: Path | None = None, *more: str | Path, purpose: str = PURPOSE, form: str = "text") -> Ended:
        """Run a job to its end."""
        return self.institute.run("job", "run", app or self.app, "--purpose", purpose, "--yes", *more, form=form)

    def submit(self, app: Path, *, round_seconds: int = 600, least: int | None = None) -> Course:
        """Run a job through the SDK, for what the command line leaves at its default."""
        home = Home(self.institute.home)
        bundle = bundle_folder(app)
        project = load_project(app)
        outputs = declared_outputs(load_pyproject(bundle))
        assert outputs is not None
        actions = ("fed:train", "fed:evaluate")
        with Client(home) as client:
            chosen = choose(
                home,
                client.holdings,
                client.catalog(),
                purpose=PURPOSE,
                actions=actions,
                code=bundle.digest,
                datasets=(),
            )
            plan = make_plan(
                home,
                chosen,
                bundle=bundle,
                runtime=runtime.load().digest,
                purpose=PURPOSE,
                actions=actions,
                run_config=project.config,
                rounds=1,
                outputs=outputs,
                minimal_participants=least,
                round_seconds=round_seconds,
            )
            job = client.submit(plan.seal(home.key("statement")), bundle.to_bytes())
            events = [{"event": event.kind, "data": event.data} for event in client.events(job)]
        return Course(job, events)

    def attached_again(self, mill: Party, after: int) -> None:
        """Wait until a node's link is back, and the coordinator knows it."""
        assert mill.service is not None

        def last() -> bool:
            told = [one["event"] for one in mill.service.events[after:]] if mill.service else []
            states = [event for event in told if event in ("attached", "detached")]
            return bool(states) and states[-1] == "attached"

        until(last, f"{mill.name} did not come back: {mill.service.events[after:]}")
        until(
            lambda: mill.name in self.institute.ok("coordinator", "status").json["online"],
            f"the coordinator does not know {mill.name}",
        )

    def job_id(self) -> str:
        """The newest job."""
        return str(self.institute.ok("job", "list").json[0]["job"])

    def logs(self, mill: Party, job: str) -> dict[str, Any]:
        """What a job printed at a mill, as its owner sees it: soon after its end, which the asker may hear first."""
        until(lambda: mill.run("job", "logs", job, form="json").code == 0, f"no logs of {job}")
        return dict(mill.ok("job", "logs", job).json)

    def entries(self, party: Party, kind: str = "") -> list[dict[str, Any]]:
        """A party's ledger, entries of one kind."""
        listed = party.ok("ledger", "show", "--last", "1000").json
        return [one for one in listed if not kind or one["kind"] == kind]

    def stop(self) -> None:
        """End every process."""
        for party in reversed(self.parties):
            if party.service is not None:
                party.service.stop()


def at_once(act: Callable[[Party], object], parties: Iterable[Party]) -> None:
    """Let parties do the same thing, all at a time."""
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(act, parties):
            pass


@contextmanager
def running(
    folder: Path,
    mills: Sequence[str] = MILLS,
    protection: str = "none",
    party: Callable[[Path, str], Party] = Party,
) -> Iterator[Consortium]:
    """A consortium that serves until the block ends."""
    consortium = Consortium(folder, mills, protection, party)
    try:
        consortium.begin()
        yield consortium
    finally:
        consortium.stop()


def write_records(path: Path, rows: int, seed: int) -> None:
    """Rows of a linear law with noise, written to the last digit."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3))
    y = x @ np.array([1.0, 2.0, -1.0]) + 0.5 + 0.1 * random.normal(size=rows)
    lines = ["x1,x2,x3,y", *(",".join(repr(float(v)) for v in (*a, b)) for a, b in zip(x, y, strict=True))]
    path.write_text("\n".join(lines) + "\n")


def read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows as the test reads them: inputs with a column of ones, and the target."""
    data = np.loadtxt(path, delimiter=",", skiprows=1)
    return np.column_stack([data[:, :3], np.ones(len(data))]), data[:, 3]


def as_text(value: object) -> str:
    """A value as one searchable text."""
    return json.dumps(value, ensure_ascii=False)
