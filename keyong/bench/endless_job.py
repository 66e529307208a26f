"""Jobs whose client part never answers: permitted, at work, and ended, with the clock on the end alone.

Owner and asker act as their commands do, over links of this process: a command for each would take most of the time of a
benchmark that ends dozens of jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

from federation.home import now
from federation.observability import ask
from federation.statements.plan import Action
from keyong import agreeing, runtime
from keyong.bench.ending import at_work, until_gone
from keyong.bench.line import PURPOSE, Line
from keyong.bench.processes import below
from keyong.choosing import choose
from keyong.cli._app import load_app
from keyong.client import Client
from keyong.demo.consortium import until
from keyong.planning import make_plan

WAIT_SECONDS = 120.0
Act = Callable[[], object]


class EndlessJobs:
    """Runs such jobs on a line of one node, one after the other.

    Args:
        owner: a link of the node's home.
        asker: a link of the coordinator's home, which asks for the jobs.
    """

    def __init__(self, line: Line, owner: Client, asker: Client) -> None:
        self._line = line
        self._owner = owner
        self._asker = asker
        self._service = line.services[0].pid
        self._runtime = runtime.load()

    def ended(self, by: Literal["revocation", "cancel"], app: Path, children: int) -> float:
        """Run a job, and end it; the seconds from the begin of the act to the end of its last process at the node.

        Args:
            by: the owner's revocation of the agreement, or the asker's word to the coordinator.
            app: folder of an app that never answers.
            children: how many processes it forks.
        """
        name = self._line.nodes[0].name
        agreement = self._permit(app)
        job = self._submit(app, children)
        until(lambda: self._at_work(children), "no job runs at {name}", name, WAIT_SECONDS)
        processes = [process for process in below([self._service]) if process != self._service]
        acts: dict[str, Act] = {
            "revocation": lambda: agreeing.revoke(self._owner, agreement),
            "cancel": lambda: self._asker.cancel(job),
        }
        taken = until_gone(processes, acts[by])
        until(lambda: set(below([self._service])) == {self._service}, "a job is still at {name}", name, WAIT_SECONDS)
        return taken

    def _permit(self, app: Path) -> str:
        """One use of the node's rows for this app; the agreement's id."""
        bundle = load_app(app, (), None).bundle
        agreement, _ = agreeing.offer(
            self._owner, to=self._asker.home.identity.member, dataset="rows", title=f"Ends {app.name}",
            actions=["fed:train", "fed:evaluate"], purposes=[PURPOSE], count=1, expires=now() + timedelta(days=1),
            code=[bundle.digest], protection="fed:none", min_tier=None, min_participants=None, columns=None,
        )  # fmt: skip
        self._asker.read_mail()
        agreeing.sign(self._asker, agreement.id)

        def in_force() -> bool:
            return self._owner.holdings.find(agreement.id).state == "in-force"

        until(in_force, "no signed agreement reached {name}", self._line.nodes[0].name, WAIT_SECONDS)
        return agreement.id

    def _submit(self, path: Path, children: int) -> str:
        """Plan and submit a job under the newest agreement for its code; its id."""
        app = load_app(path, (f"children={children}",), None)
        asker = self._asker
        actions: list[Action] = ["fed:train", "fed:evaluate"]
        chosen = choose(
            asker.home,
            asker.holdings,
            asker.catalog(),
            purpose=PURPOSE,
            actions=actions,
            code=app.bundle.digest,
            datasets=(),
        )
        assert app.outputs is not None  # they declare what they never send
        plan = make_plan(
            asker.home,
            chosen,
            bundle=app.bundle,
            runtime=self._runtime.digest,
            purpose=PURPOSE,
            actions=actions,
            run_config=app.config,
            rounds=1,
            outputs=app.outputs,
            minimal_participants=1,
        )
        return asker.submit(plan.seal(asker.home.key("statement")), app.bundle.to_bytes())

    def _at_work(self, children: int) -> bool:
        """Whether the job's session has its app loaded, its children, and has computed for a while since."""
        found = [process for process in below([self._service]) if process != self._service]
        _, told = ask(self._line.nodes[0].home, "node", "/status")
        opened = any(job["session"] for job in json.loads(told)["jobs"])
        return opened and at_work(found, children + 2)
