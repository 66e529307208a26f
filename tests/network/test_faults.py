"""A consortium of real processes in network namespaces of their own, and what becomes of its jobs on bad lines.

`make network` runs it: some minutes, for lines are as slow here as they are outside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.wire.credentials import PING_SECONDS, PONG_SECONDS
from tests.figures import Figures
from tests.integration.apps import client_that, write_app
from tests.integration.consortium import PURPOSE
from tests.integration.parties import Ended, Party, Service, until
from tests.network.spread import SpreadConsortium

NOTICE = PING_SECONDS + PONG_SECONDS
COMMAND_SECONDS = 15
"""What a command of the test itself may take on a busy machine."""
BACK = 5.0

SLOW = client_that(
    """
    time.sleep(float(context.run_config["pause"]))
    return reply(message, w - 0.1 * (x.T @ (x @ w - y)) / len(y), good)
    """,
    before="import time",
)
SERVER = """
import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid: Grid, context: Context) -> None:
    initial = ArrayRecord({"w": Array(np.random.default_rng(1).normal(size=int(context.run_config["size"])))})
    FedAvg(fraction_evaluate=0.0).start(grid, initial, num_rounds=int(context.run_config["num-server-rounds"]))
"""
ECHO = client_that("return reply(message, w * 1.5, good)").replace("x, y = rows(context)", "y = [1.0] * 100")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app whose step takes as long as it is told."""
    return write_app(tmp_path_factory.mktemp("slow") / "app", client=SLOW, config={"pause": "1.0"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with a model as large as it is told."""
    folder = tmp_path_factory.mktemp("model") / "app"
    return write_app(folder, client=ECHO, server=SERVER, config={"size": "1000"})


@pytest.fixture(autouse=True)
def healed(spread: SpreadConsortium) -> Iterator[None]:
    yield
    spread.heal()
    for mill in spread.mills:
        until(lambda mill=mill: mill.name in online(spread), f"{mill.name} did not come back", 60)


def online(spread: SpreadConsortium) -> list[str]:
    return list(spread.institute.ok("coordinator", "status").json["online"])


def mark(party: Party) -> int:
    assert party.service is not None
    return len(party.service.events)


def states(party: Party, after: int) -> list[str]:
    assert party.service is not None
    return [one["event"] for one in party.service.events[after:] if one["event"] in ("attached", "detached")]


def start(spread: SpreadConsortium, app: Path, *more: str) -> Service:
    """Start a job and wait until every mill is at work."""
    before = {mill.name: len(spread.entries(mill, "intent")) for mill in spread.mills}
    job = spread.institute.start("job", "run", app, "--purpose", PURPOSE, "--yes", *more)
    for mill in spread.mills:
        until(lambda mill=mill: len(spread.entries(mill, "intent")) > before[mill.name], "no step began", 120)
    return job


def steps(spread: SpreadConsortium) -> dict[str, int]:
    """How many steps each mill has on record."""
    return {mill.name: len(spread.entries(mill, "intent")) for mill in spread.mills}


def fallen(job: Service) -> list[dict[str, Any]]:
    return [one["data"] for one in job.events if one["event"] == "fell-out"]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("loss 1 %", {"loss": 0.01}),
        ("loss 10 %", {"loss": 0.10}),
        ("delay 200 ms, jitter 50 ms", {"delay": 0.2, "jitter": 0.05}),
        ("delay 200 ms, loss 5 %", {"delay": 0.2, "loss": 0.05}),
    ],
)
def test_a_job_on_a_bad_line(spread: SpreadConsortium, figures: Figures, name: str, bad: dict[str, float]) -> None:
    before = steps(spread)
    for line in spread.lines:
        for key, value in bad.items():
            setattr(line, key, value)
    began = time.monotonic()
    done: Ended = spread.job(None, "--rounds", "3", form="json")
    figures.note(f"three rounds at {name}", time.monotonic() - began, "s")
    assert done.code == 0, done.err
    assert not [one for one in done.lines if one.get("event") == "fell-out"]
    spread.heal()
    assert steps(spread) == {mill: count + 3 for mill, count in before.items()}, "a step was taken twice, or not"


def test_a_model_that_takes_longer_than_any_fixed_time(spread: SpreadConsortium, figures: Figures, model: Path) -> None:
    """8 MB there and back at 1 Mbit/s: more than a minute each way for a step that may take one second."""
    for line in spread.lines:
        line.rate = 125_000
    began = time.monotonic()
    options = ("--rounds", "1", "--round-seconds", "1", "--config", "size=1000000")
    job = spread.institute.start("job", "run", model, "--purpose", PURPOSE, "--yes", *options)
    until(lambda: any(one["event"] == "started" for one in job.events), "it did not start", 120)
    asked = time.monotonic()
    assert len(online(spread)) == 3, "a busy line was taken for a dead one"
    figures.note("coordinator status while every line is full", time.monotonic() - asked, "s")
    assert job.process.wait(400) == 0, job.text
    assert not fallen(job), job.events
    figures.note("a round of 8 MB at 1 Mbit/s", time.monotonic() - began, "s")


def test_a_partition_shorter_than_the_keepalive_is_not_noticed(
    spread: SpreadConsortium, figures: Figures, slow: Path
) -> None:
    marks = {mill.name: mark(mill) for mill in spread.mills}
    before = steps(spread)
    job = start(spread, slow, "--config", "pause=6.0", "--rounds", "2")
    for line in spread.lines:
        line.cut = True
    time.sleep(12)  # the length of the outage is what is tested
    spread.heal()
    assert job.ended() == 0, job.text
    assert not fallen(job)
    assert all(not states(mill, marks[mill.name]) for mill in spread.mills), "a short outage cost a link"
    assert steps(spread) == {mill: count + 2 for mill, count in before.items()}


def test_a_long_partition_is_noticed_on_both_sides_and_the_job_goes_on(
    spread: SpreadConsortium, figures: Figures, slow: Path
) -> None:
    mill = spread.mill("c")
    at = mark(mill)
    job = start(spread, slow, "--config", "pause=3.0", "--rounds", "4", "--min-participants", "2")
    spread.line("c").cut = True
    cut = time.monotonic()
    until(lambda: "detached" in states(mill, at), "the node did not notice", NOTICE + COMMAND_SECONDS)
    figures.note("partition noticed by the node", time.monotonic() - cut, "s")
    until(lambda: mill.name not in online(spread), "the coordinator did not notice", NOTICE + COMMAND_SECONDS)
    figures.note("partition noticed by the coordinator", time.monotonic() - cut, "s")
    assert time.monotonic() - cut < NOTICE + COMMAND_SECONDS
    assert job.ended() == 0, f"two others were enough\n{job.events}\n{job.text}"
    assert {one["node"] for one in fallen(job)} == {"mill-c"}
    seen = mark(mill)
    spread.line("c").cut = False
    healed = time.monotonic()
    until(lambda: "attached" in states(mill, seen), "the node did not come back", 20)
    back = time.monotonic() - healed
    figures.note("node back after a partition", back, "s")
    assert back < BACK


def test_a_node_that_vanished_without_a_word(spread: SpreadConsortium, figures: Figures) -> None:
    """Half open: its line goes, then its machine; no FIN and no RST ever arrive."""
    mill = spread.mill("b")
    assert mill.service is not None
    spread.line("b").cut = True
    mill.service.kill()
    gone = time.monotonic()
    try:
        assert mill.name in online(spread), "how could the coordinator know already?"
        until(lambda: mill.name not in online(spread), "a dead node is taken for a live one", NOTICE + COMMAND_SECONDS)
        figures.note("half-open link noticed by the coordinator", time.monotonic() - gone, "s")
    finally:
        spread.heal()
        spread.serve_node(mill)


def test_reset_connections_cost_no_step(spread: SpreadConsortium, figures: Figures, slow: Path) -> None:
    """A firewall answers every connection with RST while the nodes compute: the answers are asked for again."""
    marks = {mill.name: mark(mill) for mill in spread.mills}
    before = steps(spread)
    job = start(spread, slow, "--config", "pause=8.0", "--rounds", "2")
    for line in spread.lines:
        line.reset()
    for mill in spread.mills:
        until(lambda mill=mill: "detached" in states(mill, marks[mill.name]), "no reset arrived", NOTICE)
    assert job.ended() == 0, f"{job.events}\n{job.text}"
    assert not fallen(job), job.events
    assert steps(spread) == {mill: count + 2 for mill, count in before.items()}, "a step was taken twice, or not"


def test_nodes_are_back_after_the_coordinators_restart(spread: SpreadConsortium, figures: Figures) -> None:
    for long in (False, True):
        marks = {mill.name: mark(mill) for mill in spread.mills}
        service = spread.institute.service
        assert service is not None
        service.kill() if not long else service.stop()
        if long:  # until they wait as long as they ever do
            for mill in spread.mills:
                until(lambda mill=mill: states(mill, marks[mill.name]).count("detached") >= 5, "no redial", 60)
            marks = {mill.name: mark(mill) for mill in spread.mills}
        spread.serve_coordinator()
        ready = time.monotonic()
        for mill in spread.mills:
            until(lambda mill=mill: "attached" in states(mill, marks[mill.name]), "not back", 30)
        back = time.monotonic() - ready
        figures.note(f"nodes back after {'a long' if long else 'a quick'} restart of the coordinator", back, "s")
        assert back < BACK
