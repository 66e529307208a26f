"""An agreement that leaves the last word to the owner: code is approved, outputs are released, by commands alone."""

from __future__ import annotations

from pathlib import Path

from tests.integration.apps import write_app
from tests.integration.consortium import Consortium
from tests.integration.parties import until

PURPOSE = "fed:QualityPrediction"


def test_code_is_approved_and_each_output_released_also_after_a_crash(consortium: Consortium, tmp_path: Path) -> None:
    mill, institute = consortium.mill("a"), consortium.institute
    clauses = ("--purpose", PURPOSE, "--expires", "30d", "--protection", "none")
    (offer,) = consortium.agree([mill], *clauses, "--approval", "--review", "--max-leak-bits", "5000")
    consortium.agree([consortium.mill("b")], *clauses)
    app = write_app(tmp_path / "app")
    datasets = ("--dataset", "mill-a/passes", "--dataset", "mill-b/passes")
    job = ("job", "run", app, "--purpose", PURPOSE, *datasets, "--action", "train", "--yes")

    institute.run(*job, form="text").refused(3, "the owner has to approve this code")
    (waiting,) = mill.ok("node", "approvals", "list").json
    assert (waiting["state"], waiting["requester"], waiting["purpose"]) == ("waiting", "institute", PURPOSE)
    assert mill.ok("inbox").json["approvals"] == [waiting["id"]], "the owner need not know where to look"
    shown = mill.ok("node", "approvals", "show", waiting["id"][7:15], form="text").out
    assert "client_app.py" in shown and "    1  " in shown and "single out a member" in shown
    assert f"{waiting['leak_bits']}" in shown and 0 < waiting["leak_bits"] < 5000
    mill.ok("node", "approvals", "grant", waiting["id"][7:15], "--note", "read")

    running = institute.start(*job)
    until(lambda: mill.ok("node", "review", "list").json, "no output is held", seconds=300)
    (held,) = mill.ok("node", "review", "list").json
    assert mill.ok("inbox").json["reviews"] == [held["id"]] and not institute.ok("inbox").json["reviews"]
    assert mill.service is not None
    mill.service.kill()
    consortium.serve_node(mill)
    shown = mill.ok("node", "review", "show", held["id"][7:15], form="text").out
    assert "float64" in shown and "num-examples" in shown
    assert not [one for one in consortium.entries(mill, "outcome") if one["ref"] == held["entry"]]
    mill.ok("node", "review", "release", held["id"][7:15])
    assert running.ended() == 0, running.text

    found = mill.ok("agreement", "show", offer["id"]).json
    assert (found["uses"], found["max_leak_bits"]) == (1, 5000)
    assert found["leak_bits"] == held["summary"]["leak_bits"] <= waiting["leak_bits"]
    assert mill.ok("node", "review", "list").json == []
    # One that changed waits again, and what changed is shown.
    (app / "powerline.txt").write_text("more\n")
    institute.run(*job).refused(3, "approve")
    newest = next(one for one in mill.ok("node", "approvals", "list").json if one["state"] == "waiting")
    assert "+more" in mill.ok("node", "approvals", "diff", newest["id"][7:15], form="text").out
    mill.ok("node", "approvals", "refuse", newest["id"][7:15])
    institute.run(*job).refused(3, "refused by the owner")
