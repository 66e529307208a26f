"""The line end to end, as members and an auditor go it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from federation.crypto import PublicKey
from federation.errors import KeyongError
from federation.home import Home
from federation.keyring import ledger_origin
from federation.ledger import VerifierKey, verify_bundle
from federation.statements import Envelope, Receipt, ResultAcknowledgement
from tests.integration.apps import CLIENT
from tests.integration.consortium import MILLS, ROWS, Consortium, read_records
from tests.integration.parties import Party, environment, until

START = np.array([0.5, -0.25, 0.125, 1.0])


@pytest.fixture(scope="module")
def result(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one job of one round, fetched by the requester."""
    done = consortium.job()
    assert done.code == 0, done.err
    assert "UNPROTECTED" in done.err
    folder = tmp_path_factory.mktemp("result") / "result"
    consortium.institute.ok("job", "result", consortium.job_id(), "-o", folder)
    return folder


def test_inv5_model_is_the_weighted_mean(consortium: Consortium, result: Path) -> None:
    steps, total = np.zeros(4), sum(ROWS.values())
    for mill in consortium.mills:
        x, y = read_records(consortium.records(mill))
        steps += len(y) * (START - 0.1 * x.T @ (x @ START - y) / len(y))
    tensors = load_file(result / "model.safetensors")
    (array,) = [value for name, value in tensors.items() if name.rpartition("/")[2].rpartition(".")[2] == "w"]
    np.testing.assert_allclose(array, steps / total, rtol=0, atol=1e-6)
    summary = json.loads((result / "summary.json").read_text())
    assert (summary["status"], summary["unprotected"], summary["total_weight"]) == ("done", True, total)
    assert sorted(summary["contributed"]) == sorted(MILLS)


def test_inv2_receipts_are_in_each_ledger(consortium: Consortium, result: Path) -> None:
    home = Home(consortium.institute.home)
    seen = set()
    for path in sorted((result / "receipts").glob("*.proof.json")):
        node = next(name for name in MILLS if name in path.name)
        key = VerifierKey(
            ledger_origin(home.identity.consortium, node), PublicKey.from_text(home.roster.member(node).ledger_key)
        )
        bundle = verify_bundle(path.read_bytes(), key)
        receipt = Receipt.read(Envelope.from_bytes(bundle.fields["receipt"]))
        assert (receipt.node, receipt.outcome, receipt.weight) == (node, "ok", ROWS[node])
        assert "fed:none" in receipt.exception, "an unprotected update has to say so"
        assert receipt.isolation.tier == "T2"
        other = VerifierKey(key.name, PublicKey.from_text(home.roster.member("institute").ledger_key))
        with pytest.raises(KeyongError):
            verify_bundle(path.read_bytes(), other)
        seen.add(node)
    assert seen == set(MILLS)


def test_inv2_intent_comes_before_outcome(consortium: Consortium, result: Path) -> None:
    for mill in consortium.mills:
        kinds = [entry["kind"] for entry in consortium.entries(mill)]
        assert kinds.count("intent") == kinds.count("outcome") >= 1
        assert kinds.index("intent") < kinds.index("outcome")


def test_inv6_a_result_is_witnessed_before_use_and_acknowledged_on_every_ledger(
    consortium: Consortium, result: Path
) -> None:
    said = ResultAcknowledgement.read(Envelope.from_bytes((result / "acknowledgement.json").read_bytes()))
    assert said.anchoring in ("witnessed", "final") and {one.node for one in said.nodes} == set(MILLS)
    digest = Envelope.from_bytes((result / "acknowledgement.json").read_bytes()).digest

    def acknowledged(party: Party) -> int:
        shown = party.ok("ledger", "show", "--kind", "ack", "--last", "1000").json
        return sum(entry["fields"]["digest"] == digest for entry in shown)

    assert acknowledged(consortium.institute) == 2, "as the requester, and as the coordinator"
    for mill in consortium.mills:
        until(partial(acknowledged, mill), f"no acknowledgement reached {mill.name}")


def test_all_parties_ledgers_tell_one_story_of_the_job(consortium: Consortium, result: Path, tmp_path: Path) -> None:
    plan = Envelope.from_bytes((result / "plan.json").read_bytes()).digest
    files = []
    for party in consortium.parties:
        files.append(tmp_path / f"{party.name}.export")
        party.ok("ledger", "export", files[-1])
    found = consortium.institute.run("audit", *files, "--root", consortium.fingerprint, form="json").json
    assert all(one["integrity"]["holds"] for one in found["ledgers"]) and found["forks"] == []
    # Other tests' jobs, some of them submitted without a record, are in these ledgers too.
    assert [one for one in found["completeness"]["findings"] if one["plan"] == plan] == []
    assert found["completeness"]["not_judged"] == []


def test_inv6_every_home_verifies(consortium: Consortium, result: Path) -> None:
    for party in consortium.parties:
        done = party.ok("verify", party.home, "--root", consortium.fingerprint)
        assert done.json["integrity"]["holds"] is True
        assert done.json["completeness"]["open_intents"] == []
    wrong = "sha256:" + "0" * 64
    consortium.institute.run("verify", consortium.institute.home, "--root", wrong).refused(4, "root", hint=False)


def test_inv6_other_companies_nodes_cosign_every_nodes_ledger(consortium: Consortium, result: Path) -> None:
    """A ledger at rest becomes final by itself; never by its own company's word or the coordinator's."""
    names = {mill.home.name for mill in consortium.mills}
    for party in (consortium.institute, *consortium.mills):

        def anchoring(party: Party = party) -> dict[str, Any]:
            found: dict[str, Any] = party.ok("verify", party.home, "--root", consortium.fingerprint).json["anchoring"]
            return found

        def everyone(
            seen: Callable[[], dict[str, Any]] = anchoring, others: set[str] = names - {party.home.name}
        ) -> bool:
            found = seen()
            return found["state"] == "final" and set(found["witnesses"]) == others

        # A quorum makes it final; the others' cosignatures come when they are asked again.
        until(everyone, f"the ledger of {party.home.name} is not cosigned by every other node")
        assert anchoring()["quorum"] == len(names - {party.home.name}) // 2 + 1
        party.ok("verify", party.home, "--root", consortium.fingerprint, "--require", "anchored")


def test_every_decision_comes_out_the_same_when_judged_again(consortium: Consortium, result: Path) -> None:
    for mill in consortium.mills:
        done = mill.ok("ledger", "replay").json
        intents = [entry for entry in consortium.entries(mill) if entry["kind"] == "intent"]
        assert done["findings"] == [] and done["erased"] == [] and done["same"] >= len(intents) > 0


@pytest.fixture(scope="module")
def export(consortium: Consortium, result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mill a's history in one file, away from every home."""
    mill = consortium.mill("a")
    path = tmp_path_factory.mktemp("auditor") / "mill-a.export"
    mill.ok("ledger", "export", path)
    assert path.stat().st_mode & 0o077 == 0
    return path


def test_export_verifies_offline_elsewhere(consortium: Consortium, result: Path, export: Path) -> None:
    auditor = Party(export.parent, "nobody")
    command = auditor.command("verify", export, "--root", consortium.fingerprint, form="json")
    if os.geteuid() == 0:
        command = ["unshare", "-n", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["integrity"]["holds"] is True
    assert not auditor.home.exists(), "verifying needs no home and makes none"


def test_receipts_held_are_found_in_the_export(
    consortium: Consortium, result: Path, export: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "receipts"
    mine.mkdir()
    for path in (result / "receipts").iterdir():
        if "mill-a" in path.name:
            shutil.copy(path, mine)
    arguments = ("verify", export, "--root", consortium.fingerprint, "--receipts", mine)
    done = consortium.institute.run(*arguments, form="json")
    assert done.code == 0, done.err
    assert done.json["integrity"]["receipts"] >= 1
    for path in mine.glob("*.proof.json"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert consortium.institute.run(*arguments).code == 4


def test_inv6_a_changed_byte_is_named(consortium: Consortium, result: Path, tmp_path: Path) -> None:
    mill = consortium.mill("a")
    copy = tmp_path / "copy"
    for part in ("ledger", "rosters"):
        shutil.copytree(mill.home / part, copy / part)
    with sqlite3.connect(copy / "ledger" / "ledger.db") as connection:
        index = connection.execute("SELECT count(*) FROM entry").fetchone()[0] // 2
        data = bytearray(connection.execute("SELECT data FROM entry WHERE idx = ?", (index,)).fetchone()[0])
        data[len(data) // 2] ^= 1
        connection.execute("UPDATE entry SET data = ? WHERE idx = ?", (bytes(data), index))
    connection.close()
    done = mill.run("verify", copy, "--root", consortium.fingerprint)
    done.refused(4, f"entry {index}", hint=False)


def test_inv6_a_tampered_export_fails(consortium: Consortium, export: Path, tmp_path: Path) -> None:
    whole = export.read_bytes()
    copy = tmp_path / "copy"
    for at in (len(whole) // 3, len(whole) // 2, len(whole) - 200):
        data = bytearray(whole)
        data[at] ^= 1
        copy.write_bytes(data)
        done = consortium.institute.run("verify", copy, "--root", consortium.fingerprint)
        assert done.code == 4, f"byte {at} of {len(whole)}: exit {done.code}\n{done.out}{done.err}"
        assert "Traceback" not in done.err
    copy.write_bytes(whole[: len(whole) // 2])
    assert consortium.institute.run("verify", copy, "--root", consortium.fingerprint).code == 4


def test_job_check_shows_what_a_plan_needs(consortium: Consortium, tmp_path: Path) -> None:
    done = consortium.institute.run("job", "check", consortium.app, "--dataset", "mill-a/passes")
    assert done.code == 0, done.err
    assert "num-examples, loss" in done.out


def test_the_client_part_imports_nothing_of_ours() -> None:
    assert "keyong" not in CLIENT and "federation" not in CLIENT
