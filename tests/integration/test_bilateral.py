"""Scores and intersections between real processes: what they tell, what they cost, what is refused, what stays where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keyong
from tests.integration.consortium import Consortium, at_once
from tests.integration.parties import ForkedParty, Party, until

PURPOSE, EXACT, KEYS = "fed:QualityControl", "fed:Research", "fed:SupplyChainPlanning"
ROWS = 4000
BILATERAL = ("--protection", "bilateral", "--expires", "30d", "--min-tier", "T2")
WEIGHTS = {"width": 0.011, "gauge": -1.5}


def write_passes(path: Path) -> np.ndarray[Any, Any]:
    make = np.random.default_rng(5)
    width, gauge = make.uniform(1000, 3000, ROWS), make.uniform(2, 12, ROWS)
    force = 10 + 0.01 * width - 1.2 * gauge + make.normal(0, 1.5, ROWS)
    bad = (make.random(ROWS) < 1 / (1 + np.exp(-(force - 21) / 3))).astype(int)
    maker = [f"S-{number:04d}" for number in np.arange(ROWS) % 600]
    lines = ["width,gauge,force,bad,maker"]
    lines += [f"{a:.2f},{b:.3f},{c:.4f},{d},{e}" for a, b, c, d, e in zip(width, gauge, force, bad, maker, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return np.array([[float(value) for value in line.split(",")[:4]] for line in lines[1:]])


@pytest.fixture(scope="module")
def mills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """One mill with passes, and an institute that may ask."""
    one = Consortium(tmp_path_factory.mktemp("bilateral"), mills=("mill-a",), party=ForkedParty)
    one.found()
    for mill in one.mills:
        one.join(mill)
    mill = one.mill("a")
    one.rows = write_passes(one.records(mill))  # type: ignore[attr-defined]
    mill.ok(
        "node", "dataset", "add", "passes", one.records(mill), "--title", "Passes", "--simulated",
        "--column", "width:number=1000..3000", "--column", "gauge:number=2..12", "--column", "force:number=0..50",
        "--column", "bad:integer=0..1",
    )  # fmt: skip
    one.serve_node(mill)
    at_once(lambda party: party.ok("peers", "accept", "--all"), one.mills)
    agree(one, one.institute, "--purpose", PURPOSE, "--action", "score", "--count", "4")
    agree(one, one.institute, "--purpose", EXACT, "--action", "score", "--count", "9", "--rho", "unbounded")
    agree(one, one.institute, "--purpose", EXACT, "--action", "psi", "--count", "3", "--rho", "unbounded")
    agree(one, one.institute, "--purpose", KEYS, "--action", "psi", "--count", "3")
    try:
        yield one
    finally:
        one.stop()


def agree(mills: Consortium, asker: Party, *clauses: str) -> None:
    mill = mills.mill("a")
    mill.ok("agreement", "offer", "--to", asker.name, "--dataset", "passes", "--title", "T", *BILATERAL, *clauses)
    (offer,) = asker.ok("inbox").json["offers"]
    asker.ok("agreement", "sign", offer["id"])
    until(lambda: mills._holds(mill, offer["digest"]), "no signed agreement came back")


def receipts(mills: Consortium) -> list[dict[str, Any]]:
    """What the mill's receipts say, oldest first."""
    return [entry["fields"]["receipt"]["statement"] for entry in mills.entries(mills.mill("a"), "outcome")]


def results(party: Party, mills: Consortium) -> list[str]:
    """How an asker's own ledger says its questions ended."""
    return [entry["fields"]["status"] for entry in mills.entries(party, "result")]


def model_file(folder: Path, kind: str = "linear", target: str = "force", intercept: float = 9.5) -> Path:
    path = folder / f"{kind}.json"
    weights = WEIGHTS if kind == "linear" else {"force": 0.3}
    path.write_text(json.dumps({"model": kind, "target": target, "intercept": intercept, "weights": weights}))
    return path


def score(party: Party, model: Path, purpose: str, *more: str) -> dict[str, Any]:
    return dict(party.ok("score", model, "--on", "mill-a/passes", "--purpose", purpose, "--yes", *more).json)


def test_inv5_a_score_is_the_loss_and_nothing_else(mills: Consortium, tmp_path: Path) -> None:
    """Without noise it equals numpy's; with noise it lies where it says; both are on record with the words they rest on."""
    rows = mills.rows  # type: ignore[attr-defined]
    predicted = 9.5 + WEIGHTS["width"] * rows[:, 0] + WEIGHTS["gauge"] * rows[:, 1]
    wanted = float(np.mean((predicted - rows[:, 2]) ** 2))
    model = model_file(tmp_path)
    exact = score(mills.institute, model, EXACT, "--exact")
    assert exact["loss"] == pytest.approx(wanted, rel=5e-3) and exact["rows"] == pytest.approx(ROWS, rel=1e-3)
    assert exact["micro_rho"] == 0 and exact["half_width"] == 0
    noised = score(mills.institute, model, PURPOSE, "--rho", "0.05")
    assert noised["micro_rho"] == 50_000 and 0 < noised["half_width"] < 20
    assert abs(noised["loss"] - wanted) < 3 * noised["half_width"]  # beyond once in 10^8 runs
    # the node's record of both: what permitted it, in words, and what it cost
    said = receipts(mills)[-2:]
    assert all("fed:bilateral" in one["exception"] and one["protection"] == "fed:bilateral" for one in said)
    assert [one["micro_rho"] for one in said] == [0, 50_000]
    assert "rho: unbounded" in said[0]["exception"] and "rho: unbounded" not in said[1]["exception"]
    assert results(mills.institute, mills)[-2:] == ["done", "done"]
    # what the coordinator holds of it opens to nobody but the asker, whose key is gone by now
    for held in (mills.institute.home / "jobs").glob("*/answer.sealed"):
        assert str(exact["loss"])[:8].encode() not in held.read_bytes()
    assert not list(mills.institute.home.rglob("*.ckks"))


@pytest.mark.long
def test_a_logistic_score_and_the_sdk(mills: Consortium) -> None:
    rows = mills.rows  # type: ignore[attr-defined]
    with keyong.connect(mills.institute.home) as mine:
        found = mine.score(
            {"model": "logistic", "target": "bad", "intercept": -6.0, "weights": {"force": 0.3}},
            on="mill-a/passes",
            purpose=EXACT,
            exact=True,
        )
        common = mine.intersect(
            [f"s-{number:04d}" for number in range(500, 900)],
            on="mill-a/passes",
            column="maker",
            purpose=EXACT,
            exact=True,
        )
    margin = (2 * rows[:, 3] - 1) * (0.3 * rows[:, 2] - 6.0)
    assert abs(found.score.loss - np.logaddexp(0, -margin).mean()) < found.score.approximation
    assert (common.size, common.mine) == (100, 400)


def test_an_intersection_tells_a_size_under_noise(mills: Consortium, tmp_path: Path) -> None:
    """The size is floored, rounded and charged; both sides' ledgers have it; a third party's coordinator cannot read it."""
    keys = tmp_path / "ours.csv"
    keys.write_text("code,name\n" + "".join(f"s-{number:04d},x\n" for number in range(300, 1000)))
    ask = ("--on", "mill-a/passes", "--column", "maker", "--purpose", KEYS, "--keys-column", "code", "--yes")
    found = mills.institute.ok("intersect", keys, *ask).json
    assert abs(found["size"] - 300) <= 4 * found["half_width"] and found["size"] % 5 == 0
    assert found["mine"] == 700 and found["micro_rho"] == 5000
    assert [one["stage"] for one in receipts(mills)[-2:]] == ["blind", "size"]
    assert results(mills.institute, mills)[-1] == "done"
    # a single key is not asked about: refused by the node, at the price of a use
    keys.write_text("code,name\ns-0001,x\n")
    mills.institute.run("intersect", keys, *ask).refused(3, "too few keys")
