"""Processes that die in the middle of a job: what others do without them, and what is on record afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.apps import client_that, write_app
from tests.integration.consortium import PURPOSE, Consortium
from tests.integration.parties import Service, until

STUCK_AT_C = client_that(
    """
    if len(y) == 500:
        time.sleep(3600)
    return reply(message, w, good)
    """,
    before="import time",
)


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app that never ends at mill-c."""
    return write_app(tmp_path_factory.mktemp("stuck") / "app", client=STUCK_AT_C)


def _begin(consortium: Consortium, app: Path, *more: str) -> Service:
    """Start a job and wait until mill-c is at work."""
    mill = consortium.mill("c")
    before = len(consortium.entries(mill, "intent"))
    arguments = ("job", "run", app, "--purpose", PURPOSE, "--yes", *more)
    running = consortium.institute.start(*arguments)
    until(lambda: len(consortium.entries(mill, "intent")) > before, "no step began", 90)
    return running


@pytest.mark.long  # shorter: test_live_sources.py kills a node in its step, tests/faults fifty processes
def test_inv2_a_node_is_killed_in_a_round(consortium: Consortium, stuck: Path) -> None:
    mill = consortium.mill("c")
    running = _begin(consortium, stuck, "--min-participants", "2")
    assert mill.service is not None
    mill.service.kill()
    assert running.ended() == 0, f"two others were enough\n{running.events}\n{running.text}"
    fell = running.wait_for("fell-out")
    assert fell["data"]["node"] == "mill-c"
    verdict = mill.ok("verify", mill.home, "--root", consortium.fingerprint).json
    assert len(verdict["completeness"]["open_intents"]) == 1, "verify says that a step has no outcome"
    consortium.serve_node(mill)
    verdict = mill.ok("verify", mill.home, "--root", consortium.fingerprint).json
    assert verdict["completeness"]["open_intents"] == []
    assert "aborted" in str(consortium.entries(mill, "outcome")[-1])
    assert not any((mill.home / "sessions").iterdir()), "the crash's snapshot was left behind"


@pytest.mark.long
def test_a_job_ends_where_too_few_are_left(consortium: Consortium, stuck: Path) -> None:
    mill = consortium.mill("c")
    running = _begin(consortium, stuck)
    assert mill.service is not None
    mill.service.kill()
    assert running.ended() == 5, running.text
    assert "mill-c" in running.text and "Traceback" not in running.text
    consortium.serve_node(mill)


def test_inv2_the_coordinator_is_killed(consortium: Consortium, stuck: Path) -> None:
    running = _begin(consortium, stuck)
    marks = {mill.name: len(mill.service.events) for mill in consortium.mills if mill.service}
    assert consortium.institute.service is not None
    consortium.institute.service.kill()
    assert running.ended() == 5, running.text
    assert "Traceback" not in running.text
    consortium.serve_coordinator()
    for mill in consortium.mills:
        consortium.attached_again(mill, marks[mill.name])
    newest = consortium.institute.ok("job", "list").json[0]
    assert newest["status"] == "interrupted"
    listed = consortium.institute.ok("job", "list", form="text").out
    assert "interrupted (resumable at exchange 1 of ~2)" in listed, listed
    assert consortium.institute.ok("job", "cancel", newest["job"]).json == {"cancelled": newest["job"]}
    mill = consortium.mill("c")
    until(
        lambda: len(consortium.entries(mill, "intent")) == len(consortium.entries(mill, "outcome")),
        "the node goes on with a job that was given up",
        60,
    )
    done = consortium.job()
    assert done.code == 0, done.err
