"""Fifty real jobs on one coordinator: signed plans of two requesters, real nodes, sandboxes, ledgers, results."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.desk import AT_ONCE
from federation.home import Home
from federation.statements import Envelope
from federation.statements.code import CodeBundle, bundle_folder
from federation.wire.messages import Event
from keyong import runtime
from keyong.choosing import choose
from keyong.client import Client
from keyong.outputs import declared_outputs, load_pyproject
from keyong.planning import make_plan
from tests.figures import Figures
from tests.integration.apps import server_with, write_app
from tests.integration.consortium import PURPOSE, Consortium, write_records
from tests.integration.parties import Party, until
from tests.load.crowd import Gauge, clock
from tests.load.test_crowd import SUITE

MANY, FEW = 40, 10
"""Jobs of one requester, who comes first with all of them, and of another."""
ALONE = server_with("strategies.FedAvg(min_available_nodes=1, min_train_nodes=1, fraction_evaluate=0.0)")
CLAUSES = ("--purpose", PURPOSE, "--expires", "1d", "--protection", "none", "--min-participants", "1")

pytestmark = pytest.mark.skipif(not os.environ.get(SUITE), reason=f"takes minutes: `make load` sets {SUITE}")


@pytest.fixture
def consortium(isolating: None, tmp_path: Path) -> Iterator[Consortium]:
    """An institute, a mill that serves, and a university that only asks; both may use the mill's rows."""
    consortium = Consortium(tmp_path)
    consortium.mills = [Party(tmp_path, "mill-a")]
    consortium.app = write_app(tmp_path / "alone", server=ALONE)
    try:
        consortium.found()
        (mill,) = consortium.mills
        consortium.join(mill)
        write_records(consortium.records(mill), 200, seed=1)
        mill.ok("node", "dataset", "add", "passes", consortium.records(mill), "--title", "Passes", "--simulated")
        consortium.serve_node(mill)
        university = Party(tmp_path, "university")
        ticket = consortium.invite("university", "A University", "--role", "analyst")
        university.ok("join", ticket, "--fingerprint", consortium.fingerprint)
        mill.ok("catalog", "list")  # learns of the newcomer
        mill.ok("peers", "accept", "--all")
        consortium.agree([mill], *CLAUSES)
        offer = ("agreement", "offer", "--to", "university", "--dataset", "passes", "--title", "Test", *CLAUSES)
        mill.ok(*offer)
        (offered,) = until(lambda: university.ok("inbox").json["offers"], "no offer came")
        university.ok("agreement", "sign", offered["id"])
        yield consortium
    finally:
        consortium.stop()


def plan(client: Client, bundle: CodeBundle) -> Envelope:
    """A signed plan of one round."""
    actions = ("fed:train", "fed:evaluate")
    found = {"purpose": PURPOSE, "actions": actions}
    catalog = client.catalog()
    chosen = choose(client.home, client.holdings, catalog, code=bundle.digest, datasets=(), **found)
    outputs = declared_outputs(load_pyproject(bundle))
    assert outputs is not None
    config = {"num-server-rounds": 1, "lr": 0.1}
    made = make_plan(
        client.home, chosen, bundle=bundle, runtime=runtime.load().digest, run_config=config, rounds=1, outputs=outputs,
        round_seconds=120, **found,
    )  # fmt: skip
    return made.seal(client.home.key("statement"))


def started(courses: Sequence[Sequence[Event]]) -> list[str]:
    """When each job was begun with."""
    return [next(event.time for event in course if event.kind == "permitted") for course in courses]


@pytest.mark.timeout(1800)
def test_fifty_real_jobs_wait_in_turns(consortium: Consortium, tmp_path: Path, figures: Figures) -> None:
    bundle = bundle_folder(consortium.app)
    assert consortium.institute.service is not None
    gauge = Gauge(consortium.institute.service.process.pid)
    with ExitStack() as stack:
        institute, university = (
            stack.enter_context(Client(Home(tmp_path / name))) for name in ("institute", "university")
        )
        university.read_mail()
        plans = [plan(institute, bundle) for _ in range(MANY)]
        others = [plan(university, bundle) for _ in range(FEW)]
        began = clock()
        jobs = [institute.submit(one, bundle.to_bytes()) for one in plans]
        theirs = [university.submit(one, bundle.to_bytes()) for one in others]
        files = gauge.descriptors
        courses = [list(institute.events(job)) for job in jobs]
        courses += [list(university.events(job)) for job in theirs]
        figures.note("fifty real jobs of one round, end to end", clock() - began, "s")
        figures.note("coordinator's own memory after them", gauge.own / 2**20, "MB")
        assert Counter(course[-1].kind for course in courses) == {"done": MANY + FEW}
        waited = [course for course in courses if any(event.kind == "queued" for event in course)]
        assert len(waited) >= MANY + FEW - AT_ONCE - 2, "hardly any job had to wait"
        assert all(event.data["place"] > 0 for course in waited for event in course if event.kind == "queued")

        # Whoever comes last with few jobs does not wait for all of those who came before.
        first = min(course[0].time for course in courses[MANY:])
        before = sum(time < first for time in started(courses[:MANY]))
        order = sorted(
            [
                *((time, "few") for time in started(courses[MANY:])),
                *((time, "many") for time in started(courses[:MANY])),
            ]
        )
        turns = [who for time, who in order if time >= first]
        last = len(turns) - 1 - turns[::-1].index("few")
        assert last < 3 * FEW + 2 * AT_ONCE, (before, turns)
        assert before < MANY - FEW, "the others were nearly done before the few came"

        for job in (jobs[-1], theirs[-1]):
            place = tmp_path / "results" / job.rpartition(":")[2]
            party = consortium.institute if job in jobs else Party(tmp_path, "university")
            party.ok("job", "result", job, "-o", place)
            assert json.loads((place / "summary.json").read_text())["status"] == "done"
    (mill,) = consortium.mills
    ledger = Counter(one["kind"] for one in consortium.entries(mill))
    assert ledger["intent"] == ledger["outcome"] == MANY + FEW
    for party in consortium.parties:
        party.ok("verify", party.home, "--root", consortium.fingerprint)
    assert gauge.descriptors <= files + 2
