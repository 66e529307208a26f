"""A masked job under differential privacy, end to end: noise in the model, rho in every receipt, a budget that ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from federation.crypto import PublicKey
from federation.home import Home
from federation.keyring import ledger_origin
from federation.ledger import VerifierKey, verify_bundle
from federation.privacy import rho_text
from federation.statements import Envelope, Receipt
from tests.integration.consortium import MILLS, Consortium, read_records

START = np.array([0.5, -0.25, 0.125, 1.0])
PURPOSE = "fed:QualityControl"


@pytest.mark.long
def test_inv5_a_job_with_noise_spends_what_it_states_and_no_more(consortium: Consortium, tmp_path: Path) -> None:
    consortium.agree(
        consortium.mills, "--purpose", PURPOSE, "--expires", "30d", "--protection", "masked", "--rho", "0.08"
    )
    noisy = ("--action", "train", "--rounds", "1", "--clip", "1")
    done = consortium.job(None, *noisy, "--rho", "0.05", purpose=PURPOSE)
    assert done.code == 0, done.err
    assert "rho 0.05 of each dataset's privacy budget" in done.err
    consortium.institute.ok("job", "result", consortium.job_id(), "-o", tmp_path / "result")

    steps = np.zeros(4)
    for mill in consortium.mills:
        x, y = read_records(consortium.records(mill))
        change = -0.1 * x.T @ (x @ START - y) / len(y)
        steps += change / max(1.0, float(np.linalg.norm(change)))
    (array,) = load_file(tmp_path / "result" / "model.safetensors").values()
    apart = np.abs(array - START - steps / len(MILLS))
    # sigma of the mean is about 3.3 here: none of four values is that close to what noise was added to
    assert 1e-3 < float(apart.max()) < 40
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert summary["total_weight"] == len(MILLS), "under noise every node weighs the same"

    home = Home(consortium.institute.home)
    spent = {}
    for path in (tmp_path / "result" / "receipts").glob("*.proof.json"):
        node = next(name for name in MILLS if name in path.name)
        origin = ledger_origin(home.identity.consortium, node)
        key = VerifierKey(origin, PublicKey.from_text(home.roster.member(node).ledger_key))
        fields = verify_bundle(path.read_bytes(), key).fields
        spent[node] = Receipt.read(Envelope.from_bytes(fields["receipt"])).micro_rho
    for mill in consortium.mills:
        shown = mill.ok("budget", "show", "passes", "--history").json
        everybody, institute = shown["budgets"]
        assert institute["requester"] == "Rolling Institute"
        assert 40_000 < spent[mill.name] <= 50_000
        assert everybody["rho_taken"] == institute["rho_taken"] == rho_text(spent[mill.name])
        assert [one["rho_reserved"] for one in shown["history"]] == ["0"]

    again = consortium.job(None, *noisy, "--rho", "0.05", purpose=PURPOSE)
    assert again.code == 3 and "0.08" in again.err, again.err
    without = consortium.job(None, "--action", "train", "--rounds", "1", purpose=PURPOSE)
    assert without.code == 3 and "unbounded" in without.err, without.err


def test_an_owner_sets_where_a_budget_ends(consortium: Consortium) -> None:
    mill = consortium.mills[0]
    mill.run("budget", "set", "passes").refused(2, "nothing")
    assert mill.ok("budget", "set", "passes", "--profile", "strict").json["quarterly"] == "0.018"
    assert mill.ok("budget", "show", "passes").json["budgets"][0]["rho_limit"] == "0.018"
    consortium.agree([mill], "--purpose", "fed:Benchmarking", "--expires", "30d", "--protection", "none")
    refused = consortium.job(
        None, "--action", "train", "--rounds", "1", "--clip", "1", "--rho", "0.05", purpose="fed:Benchmarking"
    )
    assert refused.code == 3 and "privacy budget does not cover" in refused.err, refused.err
    mill.ok("budget", "set", "passes", "--profile", "standard")
    shown = mill.run("budget", "show", form="text")
    assert "░" in shown.out and "everybody" in shown.out
