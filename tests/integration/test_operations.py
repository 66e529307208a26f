"""What operators rely on: logs without values, one id through all of them, status while jobs run, an end in good order."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from federation.observability import ask
from keyong.cli.settings import Settings
from tests.integration.apps import client_that, write_app
from tests.integration.consortium import PURPOSE, Consortium, read_records
from tests.integration.parties import Party, Service, until

SPEAKS = """
import sys
values = " ".join(repr(float(v)) for v in x[0, :3])
print("MARKED", values)
print("MARKED", values, file=sys.stderr)
if len(y) == 200:
    raise ValueError(f"MARKED {values}")
if len(y) == 300:
    return reply(message, w, {**good, f"MARKED {values}": 1.0})
raise KeyError(float(x[0, 0]))
"""
SLOW_AT_C = client_that(
    """
    if len(y) == 500:
        time.sleep(float(context.run_config["lr"]))
    return reply(message, w, good)
    """,
    before="import time",
)
DRAIN = float(Settings.model_fields["drain"].default)


def events(service: Service | None) -> list[dict[str, Any]]:
    """What a service has logged, one event a line."""
    assert service is not None
    return [json.loads(row) for row in service.text.splitlines()]


def standing(party: Party, role: str = "node") -> dict[str, Any]:
    """How a service stands, asked through the socket in its home: quick enough to meet a step at work."""
    return dict(json.loads(ask(party.home, role, "/status")[1]))


def at_work(consortium: Consortium, app: Path, *more: str) -> Service:
    """Start a job and wait until mill-c is at work."""
    running = consortium.institute.start("job", "run", app, "--purpose", PURPOSE, "--yes", *more)
    mill = consortium.mill("c")
    until(lambda: any(job["running"] and job["session"] for job in standing(mill)["jobs"]), "no step began", 90)
    return running


def test_inv3_no_row_value_in_any_log_and_one_request_through_all(consortium: Consortium, tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", client=client_that(SPEAKS))
    ran = consortium.job(app, form="json")
    assert ran.code == 1 or ran.code == 5, ran.err
    request = ran.error["request"]

    said = consortium.logs(consortium.mill("a"), consortium.job_id())
    for mill in consortium.mills:
        inputs, _ = read_records(consortium.records(mill))
        values = [repr(float(value)) for value in inputs[0, :3]]
        if mill.name == "mill-a":
            assert all(value in said["stdout"] and value in said["stderr"] for value in values), "the owner has them"
        for party in consortium.parties:
            assert party.service is not None
            assert "MARKED" not in party.service.text
            assert not [value for value in values if value in party.service.text], party.name

    for party in consortium.parties:
        mine = [event for event in events(party.service) if event.get("request") == request]
        assert mine, f"{party.name} knows nothing of {request}"
        assert {event["member"] for event in mine} == {party.name}
    steps = [one for one in events(consortium.mill("a").service) if one["event"] == "step"]
    assert (steps[-1]["outcome"], steps[-1]["code"], steps[-1]["request"]) == ("failed", "app-exception", request)


def test_a_step_that_runs_is_finished_and_handed_over_before_the_node_ends(
    consortium: Consortium, tmp_path: Path
) -> None:
    mill = consortium.mill("c")
    service = mill.service
    assert service is not None
    running = at_work(consortium, write_app(tmp_path / "app", client=SLOW_AT_C), "--config", "lr=3.0")
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0
    told = [event["event"] for event in events(service)]
    assert told.index("draining") < len(told) - 1 - told[::-1].index("step"), "the step ended after the signal"
    assert consortium.entries(mill, "outcome")[-1]["fields"]["outcome"] == "ok"
    assert running.ended() == 0, running.text
    assert running.wait_for("round")["data"]["participants"] == 3, "its answer arrived"
    assert not mill.ok("node", "status").json["serving"]
    assert mill.run("node", "health").code == 5
    consortium.serve_node(mill)


@pytest.mark.long
def test_inv2_a_second_signal_settles_at_once(consortium: Consortium, tmp_path: Path) -> None:
    mill = consortium.mill("c")
    service = mill.service
    assert service is not None
    app = write_app(tmp_path / "app", client=SLOW_AT_C)
    running = at_work(consortium, app, "--config", "lr=3600.0", "--min-participants", "2")

    (job,) = standing(mill)["jobs"]
    assert (job["requester"], job["purpose"], job["running"]) == ("institute", PURPOSE, True)
    whole = consortium.institute.ok("coordinator", "status").json
    assert [one["requester"] for one in whole["jobs"] if one["status"] == "running"] == ["institute"]
    assert {one["member"] for one in whole["nodes"]} == {"mill-a", "mill-b", "mill-c"}
    assert "jobs" not in consortium.mill("a").ok("coordinator", "status").json, "others are not told whose jobs run"

    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    until(lambda: standing(mill)["draining"], "it does not say that it is ending")
    assert service.process.poll() is None, "it waits for the step"
    service.process.send_signal(signal.SIGTERM)
    assert service.ended() == 0
    assert time.monotonic() - began < DRAIN, "it waited all the same"
    outcome = consortium.entries(mill, "outcome")[-1]["fields"]
    assert (outcome["outcome"], outcome["code"]) == ("killed", "node-stopped")
    assert not any((mill.home / "sessions").iterdir())
    assert running.ended() == 0, running.text
    consortium.serve_node(mill)
