"""Jobs that outlive the death of a node and of the coordinator, with real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.apps import SERVER, client_that, write_app
from tests.integration.consortium import PURPOSE, Consortium
from tests.integration.parties import Service, until

STEADY = client_that(
    """
    time.sleep(0.4)
    w = w - 0.1 * (x.T @ (x @ w - y)) / len(y)
    return reply(message, w, good)
    """,
    before="import time",
)
RANDOM = SERVER.replace("np.array([0.5, -0.25, 0.125, 1.0])", "np.random.default_rng().normal(size=4)")


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app whose rounds take long enough to be interrupted."""
    return write_app(tmp_path_factory.mktemp("steady") / "app", client=STEADY)


def _rounds(running: Service) -> list[dict[str, Any]]:
    return [one["data"] for one in running.events if one["event"] == "round"]


def _begin(consortium: Consortium, app: Path, rounds: int, *more: str) -> Service:
    arguments = ("job", "run", app, "--purpose", PURPOSE, "--yes", "--rounds", str(rounds), *more)
    return consortium.institute.start(*arguments)


@pytest.mark.long
def test_a_killed_node_takes_part_again_once_it_is_back(consortium: Consortium, steady: Path) -> None:
    mill = consortium.mill("c")
    running = _begin(consortium, steady, 300, "--min-participants", "2")
    until(lambda: _rounds(running), "no round was made")
    assert mill.service is not None
    mill.service.kill()
    assert running.wait_for("fell-out")["data"]["node"] == "mill-c"
    consortium.serve_node(mill)
    back = running.wait_for("returned")["data"]
    assert back["node"] == "mill-c"
    until(lambda: any(one["exchange"] == back["round"] for one in _rounds(running)), "the job does not go on")
    assert next(one for one in _rounds(running) if one["exchange"] == back["round"])["participants"] == 3
    consortium.institute.ok("job", "cancel", consortium.job_id())
    assert running.ended() == 5
    uses = {entry["fields"]["plan"] for entry in consortium.entries(mill, "intent")[-2:]}
    assert len(uses) == 1, "it came back to the same plan, the same use"


def _killed(consortium: Consortium, app: Path) -> str:
    """Begin a job, kill the coordinator in the middle of it, and start it again; returns the job."""
    running = _begin(consortium, app, 6)
    until(lambda: len(_rounds(running)) >= 2, "no two rounds were made")
    marks = {mill.name: len(mill.service.events) for mill in consortium.mills if mill.service}
    assert consortium.institute.service is not None
    consortium.institute.service.kill()
    assert running.ended() == 5, running.text
    consortium.serve_coordinator()
    for mill in consortium.mills:
        consortium.attached_again(mill, marks[mill.name])
    return consortium.job_id()


@pytest.mark.long
def test_a_resumed_job_gives_the_very_model_of_one_that_ran_through(
    consortium: Consortium, steady: Path, tmp_path: Path
) -> None:
    whole = consortium.job(steady, "--rounds", "6")
    assert whole.code == 0, whole.err
    consortium.institute.ok("job", "result", consortium.job_id(), "-o", tmp_path / "whole")
    job = _killed(consortium, steady)
    listed = consortium.institute.ok("job", "show", job, form="text")
    assert "interrupted (resumable at exchange" in listed.out and "stays reserved" in listed.err
    before = {mill.name: len(consortium.entries(mill, "intent")) for mill in consortium.mills}
    done = consortium.institute.run("job", "resume", job, "--follow", form="json")
    assert done.code == 0, done.err
    resumed = next(one["data"]["exchange"] for one in done.lines if one["event"] == "resumed")
    consortium.institute.ok("job", "result", job, "-o", tmp_path / "resumed")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert models[0] == models[1]
    for mill in consortium.mills:
        assert len(consortium.entries(mill, "intent")) - before[mill.name] <= 6 - resumed + 1, "computed twice"
    again = consortium.institute.run("job", "resume", job)
    again.refused(2, "only an interrupted job can be resumed", "done")


@pytest.mark.long
def test_an_app_with_an_unseeded_start_is_refused_and_can_be_given_up(consortium: Consortium, tmp_path: Path) -> None:
    job = _killed(consortium, write_app(tmp_path / "app", client=STEADY, server=RANDOM))
    refused = consortium.institute.run("job", "resume", job, "--follow")
    refused.refused(1, "exchange 1", "asks for something else")
    assert "seed" in refused.err
    assert consortium.institute.ok("job", "show", job).json["status"] == "interrupted"
    consortium.institute.ok("job", "cancel", job)
    assert consortium.institute.ok("job", "show", job).json["status"] == "cancelled"
