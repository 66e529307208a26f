"""Queries over real nodes: text in, table out; what is refused, what is kept, what the coordinator holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import keyong
from federation.errors import KeyongError
from federation.home import Home
from federation.query import unpack_parts
from federation.statements import Envelope, JobPlan
from keyong.answer_receipts import contributors
from keyong.client import Client
from tests.integration.consortium import Consortium, at_once
from tests.integration.parties import ForkedParty, Party

PURPOSE = "fed:Benchmarking"
ROWS = {"mill-a": 400, "mill-b": 500, "mill-c": 600}


def write_passes(path: Path, rows: int, seed: int) -> None:
    """Passes of one mill: two alloys everywhere, a third of which mill-c alone has more than a few."""
    make = np.random.default_rng(seed)
    rare = 40 if seed == 3 else 3
    alloy = np.where(np.arange(rows) < rare, "rare", np.where(np.arange(rows) % 2 == 0, "mild", "hard"))
    force = make.normal(20, 4, rows)
    width = make.normal(2500, 300, rows)
    cracked = make.random(rows) < 1 / (1 + np.exp(-(force - 22) / 4 - (width - 2500) / 600))
    lines = ["alloy,force,width,site,cracked"]
    lines += [f"{a},{f:.4f},{w:.1f},s{seed},{c:d}" for a, f, w, c in zip(alloy, force, width, cracked, strict=True)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def mills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Three mills under agreements for queries."""
    one = Consortium(tmp_path_factory.mktemp("query"), party=ForkedParty)
    one.found()
    for mill in one.mills:
        one.join(mill)

    def serve(mill: Party) -> None:
        seed = 1 + one.mills.index(mill)
        write_passes(one.records(mill), ROWS[mill.name], seed)
        alloys = "alloy:text=mild|hard|rare"
        mill.ok(
            "node", "dataset", "add", "passes", one.records(mill), "--title", "Passes", "--simulated",
            "--column", alloys, "--column", "force:number=0..60", "--column", "site:text=s1|s2|s3",
        )  # fmt: skip
        mill.ok(
            "node", "dataset", "add", "heats", one.records(mill), "--title", "Heats", "--simulated", "--unit-rows", "1",
            "--column", alloys, "--column", "force:number=0..60",
        )  # fmt: skip
        mill.ok(
            "node", "dataset", "add", "slabs", one.records(mill), "--title", "Slabs", "--simulated", "--unit-rows", "1",
            "--column", "force:number=0..60", "--column", "width:number=0..6000",
        )  # fmt: skip
        mill.ok(
            "node", "dataset", "add", "plates", one.records(mill), "--title", "Plates", "--simulated", "--unit-rows", "1",
            "--column", "cracked:integer=0..1", "--column", "force:number=8..32", "--column", "width:number=1600..3400",
        )  # fmt: skip
        one.serve_node(mill)

    at_once(serve, one.mills)
    at_once(lambda mill: mill.ok("peers", "accept", "--all"), one.mills)
    one.agree(one.mills, "--purpose", PURPOSE, "--expires", "30d", "--action", "aggregateQuery", "--count", "20")
    one.agree(
        one.mills,
        "--purpose",
        PURPOSE,
        "--expires",
        "30d",
        "--action",
        "aggregateQuery",
        "--rho",
        "0.2",
        dataset="heats",
    )
    try:
        yield one
    finally:
        one.stop()


def asked(mills: Consortium, sql: str, *more: str) -> dict[str, Any]:
    """The answer as JSON."""
    return dict(mills.institute.ok("query", sql, "--purpose", PURPOSE, "--yes", *more).json)


def pooled(mills: Consortium, sql: str) -> list[tuple[Any, ...]]:
    files = [str(mills.records(mill)) for mill in mills.mills]
    return duckdb.connect().execute(sql.replace("passes", f"read_csv({files})")).fetchall()


def test_inv5_a_table_over_three_mills(mills: Consortium) -> None:
    """The table equals the pooled one; a cell with one large contributor is suppressed; it is kept; nobody holds a sum."""
    sql = "SELECT alloy, COUNT(*) AS n, AVG(force) AS f, CORR(force, width) AS r FROM passes GROUP BY alloy"
    answer = asked(mills, sql)
    assert answer["columns"] == ["alloy", "n", "f", "r", "contributing", "of"] and not answer["repeated"]
    wanted = {
        row[0]: row
        for row in pooled(mills, "SELECT alloy, count(*), avg(force), corr(force, width) FROM passes GROUP BY 1")
    }
    rows = {row["alloy"]: row for row in answer["rows"]}
    # of the rare alloy two mills have three passes each: they keep them back, and a second alloy with them
    assert rows["rare"]["suppressed"] and rows["rare"]["n"] is None
    shown = [row for row in rows.values() if not row["suppressed"]]
    assert len(shown) == 1 and shown[0]["contributing"] == shown[0]["of"] == 3
    for row in shown:
        assert [row["n"], row["f"], row["r"]] == pytest.approx(list(wanted[row["alloy"]][1:]), rel=1e-9)
    # one use each, two steps each, receipts with the snapshot's digest
    for mill in mills.mills:
        outcomes = [one for one in mills.entries(mill, "outcome")]
        assert len(outcomes) == 2, outcomes
    again = asked(mills, sql)
    assert again["repeated"] and again["rows"] == answer["rows"]
    assert len(mills.entries(mills.mill("a"), "outcome")) == 2
    # what the coordinator has on disk of the answer opens under the asker's key alone
    (held,) = (mills.institute.home / "jobs").glob("*/answer.bfv")
    assert len(unpack_parts(held.read_bytes())) == 1
    assert all(str(one).encode() not in held.read_bytes() for one in (shown[0]["n"], shown[0]["f"]))
    check_receipts(mills, answer["job"])


def check_receipts(mills: Consortium, job: str) -> None:
    """Who is in the answer is what the nodes' receipts say: one left out is missed, one changed is refused."""
    with Client(Home(mills.institute.home)) as client:
        files = client.result_files(job)
        assert [(one.rounds_done, one.rounds) for one in client.jobs() if one.job == job] == [(1, 1)]
        assert json.loads(files["summary.json"])["rounds_done"] == 1
        envelope = Envelope.from_bytes(files["plan.json"])
        plan = JobPlan.read(envelope)
        assert contributors(client, files, plan, envelope.digest) == tuple(sorted(mill.name for mill in mills.mills))
        mine = sorted(path for path in files if path.startswith("receipts/") and "mill-a" in path)
        left = {path: data for path, data in files.items() if path not in mine}
        assert contributors(client, left, plan, envelope.digest) == ("mill-b", "mill-c")
        (receipt, *_) = [path for path in mine if path.endswith(".receipt.json")]
        other = files | {
            receipt: files[next(path for path in files if "mill-b" in path and path.endswith(".receipt.json"))]
        }
        with pytest.raises(KeyongError):
            contributors(client, other, plan, envelope.digest)
        with pytest.raises(KeyongError):
            contributors(client, files, plan, "sha256:" + "0" * 64)


@pytest.mark.long
def test_a_frame_a_histogram_and_their_forms(mills: Consortium, tmp_path: Path) -> None:
    sql = "SELECT HISTOGRAM(force, 0, 16, 20, 24, 60), COUNT(*) AS n FROM passes"
    with keyong.connect(mills.institute.home) as mine:
        frame = mine.query(sql, purpose=PURPOSE)
    edges = [(0, 16), (16, 20), (20, 24), (24, 60)]
    for (low, high), count in zip(edges, frame["n"], strict=True):
        assert count == pooled(mills, f"SELECT count(*) FROM passes WHERE force >= {low} AND force < {high}")[0][0]
    told = mills.institute.run("query", sql, "--purpose", PURPOSE, "--yes", "--plot", "--format", "csv")
    assert told.code == 0 and told.out.splitlines()[0] == "force,n,contributing,of"
    assert "█" in told.err
    path = tmp_path / "table.parquet"
    mills.institute.ok("query", sql, "--purpose", PURPOSE, "--yes", "--format", "parquet", "-o", path)
    assert (
        duckdb.connect().execute("SELECT sum(n) FROM read_parquet(?)", [str(path)]).fetchall()[0][0] == frame["n"].sum()
    )


def test_what_singles_out_a_company_is_suppressed(mills: Consortium) -> None:
    answer = asked(mills, "SELECT COUNT(*) AS n, SUM(force) FROM passes WHERE site = 's2'")
    assert [row["suppressed"] for row in answer["rows"]] == [True]


def entries_of_questions(mills: Consortium) -> int:
    """What a mill has on record of being asked; acknowledgements of answers come later, when the asker has them."""
    return sum(one["kind"] != "ack" for one in mills.entries(mills.mill("a")))


def test_refusals_say_why_before_anybody_is_asked(mills: Consortium) -> None:
    def refused(sql: str, code: int, *words: str, purpose: str = PURPOSE) -> None:
        mills.institute.run("query", sql, "--purpose", purpose, "--yes").refused(code, *words)

    before = entries_of_questions(mills)
    refused("SELECT MAX(force) FROM passes", 2, "differential privacy", "line 1")
    refused("SELECT force FROM passes", 2, "force", "column 8")
    refused("SELECT COUNT(*) FROM nothing", 2, "nothing")
    assert entries_of_questions(mills) == before
    refused("SELECT COUNT(*) FROM passes", 3, "purpose", purpose="fed:Marketing")


def test_explanation_asks_nobody(mills: Consortium) -> None:
    before = entries_of_questions(mills)
    told = mills.institute.run("query", "SELECT AVG(width) FROM passes", "--purpose", PURPOSE, "--explain")
    assert told.code == 0 and "who learns what" in told.out and "not protected against" in told.out
    document = mills.institute.ok(
        "query", "SELECT AVG(width) FROM passes", "--purpose", "fed:Marketing", "--explain"
    ).json
    assert {one["clause"] for one in document["refusals"]} == {"purpose"}
    assert document["plan"]["measures"][0]["kind"] == "mean" and document["leak_bits"] > 0
    assert entries_of_questions(mills) == before
    json.dumps(document)


def test_inv1_an_agreements_smallest_group_binds_the_plan_and_every_node(mills: Consortium) -> None:
    """At mill-a no alloy has 230 passes: its part of each stays at home, and two companies are too few to show one."""
    purpose = ("--purpose", "fed:Research", "--expires", "30d", "--action", "aggregateQuery")
    mills.agree(mills.mills, *purpose, "--set", "group-size=230")
    sql = "SELECT alloy, COUNT(*) AS n FROM passes GROUP BY alloy"

    def ask(text: str) -> list[dict[str, Any]]:
        return list(mills.institute.ok("query", text, "--purpose", "fed:Research", "--yes").json["rows"])

    assert all(row["suppressed"] for row in ask(sql)), "198 passes of an alloy are fewer than 230"
    (row,) = ask("SELECT COUNT(*) AS n FROM passes")
    assert (row["n"], row["suppressed"]) == (sum(ROWS.values()), False)
    intent = [one for one in mills.entries(mills.mill("a")) if one["kind"] == "intent"][-1]
    judged = next(one for one in intent["fields"]["decision"]["constraints"] if one["operand"] == "fed:minGroupSize")
    assert (judged["left"], judged["right"]) == ("230", "230"), "the plan is as strict as the agreement"


@pytest.mark.long
def test_noise_is_added_paid_for_and_ends_with_the_budget(mills: Consortium) -> None:
    """A dataset with a privacy unit is answered with noise only; the identical query costs nothing and says the same."""
    sql = "SELECT alloy, COUNT(*) AS n, MEDIAN(force) AS m FROM heats GROUP BY alloy"
    told = mills.institute.run("query", sql, "--purpose", PURPOSE, "--explain")
    assert told.code == 0 and "rho 0.00" in told.out and "standard deviation" in told.out, told.out
    answer = asked(mills, sql, "--rho", "0.05")
    assert answer["noise"]["rho"].startswith("0.0499") or answer["noise"]["rho"] == "0.05"
    true = dict(pooled(mills, "SELECT alloy, count(*) FROM passes GROUP BY 1"))
    rows = {row["alloy"]: row for row in answer["rows"]}
    assert all(not row["suppressed"] and row["contributing"] == 3 for row in rows.values())
    apart = [abs(row["n"] - true[alloy]) for alloy, row in rows.items()]
    assert 0 < max(apart) < 250, "the standard deviation of a count is about 40 here"
    assert all(row["n.low"] < row["n"] < row["n.high"] for row in rows.values())
    assert rows["mild"]["m.low"] <= 20.5 and rows["mild"]["m.high"] >= 19.5

    def spent() -> list[str]:
        shown = [mill.ok("budget", "show", "heats").json["budgets"] for mill in mills.mills]
        return [one[0]["rho_taken"] for one in shown]

    assert spent() == [answer["noise"]["rho"]] * 3
    again = asked(mills, sql, "--rho", "0.05")
    assert again["repeated"] and again["rows"] == answer["rows"] and spent() == [answer["noise"]["rho"]] * 3
    anew = asked(mills, sql, "--rho", "0.05", "--again")
    assert [row["n"] for row in anew["rows"]] != [row["n"] for row in answer["rows"]], "noise of its own"
    # a third would pass the 0.1 that one company may spend
    refused = mills.institute.run("query", sql, "--purpose", PURPOSE, "--yes", "--rho", "0.05", "--again")
    assert refused.code == 3 and "budget" in refused.err, refused.err
    assert "unit" in mills.institute.run("query", "SELECT COUNT(*) FROM passes", "--purpose", PURPOSE, "--rho", "1").err


def test_a_logistic_regression_over_three_mills(mills: Consortium) -> None:
    """Steps are plans of their own, paid for one by one; none begins where the budget has no room for all of them."""
    purpose = "fed:DefectDetection"
    terms = ("--expires", "30d", "--action", "aggregateQuery", "--rho", "1000", "--count", "5")
    mills.agree(mills.mills, "--purpose", purpose, *terms, dataset="plates")
    at_once(lambda mill: mill.ok("budget", "set", "plates", "--quarterly", "1000", "--requester", "500"), mills.mills)  # type: ignore[misc]
    sql, more = "SELECT LOGREG(cracked, force, width, 3) AS fit FROM plates", ("--purpose", purpose, "--yes")

    def outcomes() -> int:
        return len(mills.entries(mills.mill("a"), "outcome"))

    before = outcomes()
    told = mills.institute.run("query", sql, "--rho", "400", *more, "--explain")
    assert told.code == 0 and "3 steps" in told.out and "3 coefficients" in told.out, (told.out, told.err)
    answer = mills.institute.ok("query", sql, "--rho", "400", *more).json
    (row,) = answer["rows"]
    rows = pooled(
        mills, "SELECT cracked, greatest(8, least(32, force)), greatest(1600, least(3400, width)) FROM passes"
    )
    table = np.array(rows, dtype=float)
    wanted = likeliest(np.column_stack([np.ones(len(table)), table[:, 1:]]), table[:, 0])
    got = [row["fit.intercept"], row["fit.force"], row["fit.width"]]
    assert got == pytest.approx(wanted, rel=0.05) and row["fit.rows"] == pytest.approx(len(table), abs=5)
    assert all(row[f"fit.{name}.low"] < row[f"fit.{name}"] < row[f"fit.{name}.high"] for name in ("force", "width"))
    assert (row["contributing"], row["of"], outcomes()) == (3, 3, before + 3 * 2)
    (taken, *_) = mills.mill("b").ok("budget", "show", "plates").json["budgets"]
    assert taken["rho_taken"] == answer["noise"]["rho"] and 399 < float(taken["rho_taken"]) <= 400
    again = mills.institute.ok("query", sql, "--rho", "400", *more).json
    assert again["repeated"] and again["rows"] == answer["rows"] and outcomes() == before + 3 * 2
    # 100 are left, which one step of 67 would not pass: all three together do
    refused = mills.institute.run("query", sql, "--rho", "200", *more)
    assert refused.code == 3 and "budget" in refused.err, refused.err
    assert outcomes() == before + 3 * 2


def likeliest(features: Any, target: Any) -> Any:
    """Coefficients of the largest likelihood, by Newton's method on rows that are at hand."""
    scale = features.std(axis=0) + features.mean(axis=0)
    scaled, found = features / scale, np.zeros(features.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-scaled @ found))
        found -= np.linalg.solve((scaled * (p * (1 - p))[:, None]).T @ scaled, scaled.T @ (p - target))
    return found / scale


@pytest.mark.long
def test_one_askers_questions_scores_and_training_draw_on_one_budget_and_anothers_on_its_own(
    mills: Consortium, tmp_path: Path
) -> None:
    lab, mill = ForkedParty(mills.folder, "lab"), mills.mill("a")
    lab.ok("join", mills.invite("lab", "Lab Ltd", "--role", "analyst"), "--fingerprint", mills.fingerprint)
    purpose = "fed:QualityControl"
    common = ("--dataset", "slabs", "--title", "T", "--purpose", purpose, "--expires", "30d", "--count", "9")
    bilateral, trained = ("--action", "score", "--protection", "bilateral"), ("--action", "train")
    for asker in (mills.institute, lab):
        for clauses in (bilateral, trained, ("--action", "aggregateQuery")):
            givers = [mill] if clauses is bilateral else mills.mills
            at_once(
                lambda one, to=asker.name, more=clauses: one.ok("agreement", "offer", "--to", to, *common, *more),
                givers,
            )  # type: ignore[misc]
        for offer in asker.ok("inbox").json["offers"]:
            asker.ok("agreement", "sign", offer["id"])

    model = tmp_path / "model.json"
    model.write_text(json.dumps({"model": "linear", "target": "force", "intercept": 20.0, "weights": {"width": 0.0}}))
    sql = "SELECT COUNT(*) AS n FROM slabs"

    def query(asker: Party, rho: str) -> Any:
        return asker.run("query", sql, "--purpose", purpose, "--rho", rho, "--again", "--yes")

    def taken(named: str) -> float:
        shown = mill.ok("budget", "show", "slabs").json["budgets"]
        return next((float(one["rho_taken"]) for one in shown if one["requester"] == named), 0.0)

    assert query(mills.institute, "0.025").code == 0
    asked_for = taken("Rolling Institute")
    assert asked_for == pytest.approx(0.025, rel=0.02)
    scored = mills.institute.run("score", model, "--on", "mill-a/slabs", "--purpose", purpose, "--rho", "0.05", "--yes")
    assert scored.code == 0, scored.err
    assert taken("Rolling Institute") == pytest.approx(asked_for + 0.05, rel=0.02), "one budget for both"
    assert taken("Lab Ltd") == 0
    assert query(lab, "0.09").code == 0, "another's is untouched"
    assert taken("Lab Ltd") == pytest.approx(0.09, rel=0.02)
    assert taken("Rolling Institute") == pytest.approx(asked_for + 0.05, rel=0.02)
    # a quarter is left: what asks for half, a question, a score or training, is refused
    half = "0.05"
    assert "budget" in query(mills.institute, half).err
    on = ("--on", "mill-a/slabs", "--purpose", purpose, "--rho", half, "--yes")
    assert "budget" in mills.institute.run("score", model, *on).err
    training = ("--action", "train", "--rounds", "1", "--clip", "1", "--rho", half)
    refused = mills.job(None, *training, purpose=purpose)
    assert refused.code == 3 and "budget" in refused.err, refused.err
