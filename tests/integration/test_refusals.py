"""What nobody agreed to does not happen: each refusal names its clause and exits with 3."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apps import client_that, server_with, write_app
from tests.integration.consortium import Consortium
from tests.integration.parties import until

ONE_NODE = "strategies.FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)"
ALONE = ("--min-participants", "1", "--protection", "none")
LIFE_SECONDS = (15, 60, 240)
"""Of an agreement that is to expire; the next one where a slow machine does not sign it in time."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app that is content with one node."""
    return write_app(tmp_path_factory.mktemp("alone") / "app", server=server_with(ONE_NODE))


@pytest.fixture(scope="module")
def brief(consortium: Consortium) -> dict[str, Any]:
    """An agreement signed for seconds, made before the other tests so that they fill its life."""
    mill, institute = consortium.mill("b"), consortium.institute
    offer = ("agreement", "offer", "--to", "institute", "--dataset", "passes", "--title", "Brief")
    for seconds in LIFE_SECONDS:
        mill.ok(*offer, "--purpose", "fed:SafetyMonitoring", "--expires", f"{seconds}s", *ALONE)
        there = [one for one in institute.ok("inbox").json["offers"] if one["provider"] == mill.name]
        newest: dict[str, Any] = max(there, key=lambda one: str(one["expires"]), default={})
        if newest and institute.run("agreement", "sign", newest["id"]).code == 0:
            until(lambda: consortium._holds(mill, newest["digest"]), "no signed agreement came back")
            return newest
    raise AssertionError("no offer was signed within its life")


def test_inv7_another_purpose(consortium: Consortium, brief: dict[str, Any]) -> None:
    refused = len(consortium.entries(consortium.mill("b"), "denied"))
    done = consortium.job(purpose="fed:Marketing")
    done.refused(3, "mill-a", "mill-b", "mill-c", "purpose", "fed:Marketing")
    assert len(consortium.entries(consortium.mill("b"), "denied")) == refused + 1


def test_inv1_two_requests_for_the_last_use(consortium: Consortium, alone: Path) -> None:
    consortium.agree(
        [consortium.mill("a")], "--purpose", "fed:QualityControl", "--count", "1", "--expires", "1d", *ALONE
    )

    def ask(_: int) -> Any:
        return consortium.job(alone, "--dataset", "mill-a/passes", purpose="fed:QualityControl")

    with ThreadPoolExecutor(2) as pool:
        ended = sorted(pool.map(ask, range(2)), key=lambda done: done.code)
    assert [done.code for done in ended] == [0, 3], [done.err for done in ended]
    # A third, when nothing competes any more, hears the clause.
    ask(0).refused(3, "mill-a", "use")


def test_inv1_expired(consortium: Consortium, brief: dict[str, Any], alone: Path) -> None:
    end = datetime.fromisoformat(brief["expires"])
    until(lambda: datetime.now(UTC) > end, "time stands still")
    done = consortium.job(alone, "--dataset", "mill-b/passes", purpose="fed:SafetyMonitoring")
    done.refused(3, "mill-b", "expired")


@pytest.mark.long  # shorter: `code-digest` among the refused plans of tests/enterprise_node/test_line.py
def test_inv1_one_changed_line_of_code(consortium: Consortium, alone: Path, tmp_path: Path) -> None:
    clauses = ("--purpose", "fed:DefectDetection", "--app", alone, "--expires", "1d", *ALONE)
    consortium.agree([consortium.mill("b")], *clauses)
    changed = tmp_path / "changed"
    shutil.copytree(alone, changed)
    with (changed / "linear" / "client_app.py").open("a") as file:
        file.write("# one line\n")
    arguments = ("--dataset", "mill-b/passes")
    done = consortium.job(changed, *arguments, purpose="fed:DefectDetection")
    done.refused(3, "mill-b", "code")
    assert consortium.job(alone, *arguments, purpose="fed:DefectDetection").code == 0


@pytest.mark.long  # shorter: `min-participants` among the refused plans of tests/enterprise_node/test_line.py
def test_inv1_too_few_participants(consortium: Consortium, alone: Path) -> None:
    done = consortium.job(alone, "--dataset", "mill-a/passes", purpose="fed:RemainingLife")
    done.refused(3, "purpose")
    clauses = ("--purpose", "fed:RemainingLife", "--expires", "1d", "--protection", "none", "--min-participants", "3")
    consortium.agree([consortium.mill("a")], *clauses)
    done = consortium.job(alone, "--dataset", "mill-a/passes", purpose="fed:RemainingLife")
    done.refused(3, "mill-a", "participants")


def test_inv8_what_must_be_masked_does_not_leave_alone(consortium: Consortium, alone: Path) -> None:
    """An agreement that permits no unmasked reply: one node cannot be masked, and its reply goes nowhere."""
    clauses = ("--purpose", "fed:EnergyManagement", "--expires", "1d", "--min-participants", "1")
    consortium.agree([consortium.mill("c")], *clauses)
    intents = len(consortium.entries(consortium.mill("c"), "intent"))
    done = consortium.job(alone, "--dataset", "mill-c/passes", purpose="fed:EnergyManagement")
    assert done.code == 3, done.err
    assert len(consortium.entries(consortium.mill("c"), "intent")) == intents


def test_inv1_revoked_before_and_while_a_job_runs(consortium: Consortium, tmp_path: Path) -> None:
    mill = consortium.mill("c")
    client = client_that(
        """
        time.sleep(3600)
        return reply(message, w, good)
        """,
        before="import time",
    )
    app = write_app(tmp_path / "slow", client=client, server=server_with(ONE_NODE))
    clauses = ("--purpose", "fed:FaultDiagnosis", "--expires", "1d", *ALONE)
    agreement = consortium.agree([mill], *clauses)[0]
    arguments = ("job", "run", app, "--purpose", "fed:FaultDiagnosis", "--dataset", "mill-c/passes", "--yes")
    intents = len(consortium.entries(mill, "intent"))
    running = consortium.institute.start(*arguments)
    until(lambda: len(consortium.entries(mill, "intent")) > intents, "no step began", 60)
    mill.ok("agreement", "revoke", agreement["id"])
    assert running.ended() != 0, "long before its step would"
    outcome = consortium.entries(mill, "outcome")[-1]
    assert "killed" in str(outcome), outcome
    assert not any((mill.home / "sessions").iterdir()), "a snapshot was left behind"
    done = consortium.job(app, "--dataset", "mill-c/passes", purpose="fed:FaultDiagnosis")
    assert done.code == 3, done.err
