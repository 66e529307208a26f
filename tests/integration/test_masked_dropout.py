"""A masked round over real processes from which a node is lost for good: keys shared, step begun, vector never sent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.apps import client_that, write_app
from tests.integration.consortium import PURPOSE, ROWS, read_records, running
from tests.integration.parties import ForkedParty, until

MILLS = ("mill-a", "mill-b", "mill-c", "mill-d")
LOST = "mill-c"
START = np.array([0.5, -0.25, 0.125, 1.0])
STUCK = client_that(
    f"""
    if len(y) == {ROWS[LOST]}:
        time.sleep(3600)
    return reply(message, w - 0.1 * (x.T @ (x @ w - y)) / len(y), good)
    """,
    before="import time",
)


@pytest.mark.long
def test_inv5_a_node_killed_between_its_shares_and_its_vector_leaves_the_exact_sum_of_the_others(
    isolating: None, tmp_path: Path
) -> None:
    with running(tmp_path / "parties", MILLS, "masked", ForkedParty) as mills:
        app = write_app(tmp_path / "app", client=STUCK)
        lost = next(mill for mill in mills.mills if mill.name == LOST)
        going = mills.institute.start("job", "run", app, "--purpose", PURPOSE, "--yes")
        # its INTENT follows the shares that the others sealed to it, which came with the step
        until(lambda: mills.entries(lost, "intent"), "no step began", 90)
        assert lost.service is not None
        lost.service.kill()
        assert going.ended() == 0, f"three others were enough\n{going.events}\n{going.text}"
        assert going.wait_for("fell-out")["data"]["node"] == LOST
        mills.institute.ok("job", "result", mills.job_id(), "-o", tmp_path / "result")
        steps, weights = np.zeros(4), {}
        for mill in mills.mills:
            if mill.name != LOST:
                x, y = read_records(mills.records(mill))
                weights[mill.name] = len(y)
                steps += len(y) * (START - 0.1 * x.T @ (x @ START - y) / len(y))
    (array,) = load_file(tmp_path / "result" / "model.safetensors").values()
    np.testing.assert_allclose(array, steps / sum(weights.values()), rtol=0, atol=1e-6)
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert sorted(summary["contributed"]) == sorted(weights)
    assert (summary["unprotected"], summary["total_weight"]) == (False, sum(weights.values()))
