"""``keyong ledger statement``: the provider's ledger and the consumer's, each read by its owner's command, give one figure."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from federation.statements import Metered
from keyong.accounts import month_of
from keyong.receiving import receive
from tests.keyong.conftest import Run as Keyong
from tests.keyong.parties import NODES, Parties, now

TARIFF = {"cost": "100", "tariff": "CNY; second 0.5; megabyte 2"}


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def used(parties: Parties, tmp_path: Path) -> dict[str, str]:
    """Two jobs under two agreements with a tariff, their results fetched by the lab; each node's agreement."""
    agreements = {node: parties.agree(node, **TARIFF) for node in NODES}
    for number, rounds in enumerate((2, 1)):
        run = parties.ask(agreements)
        for step in range(1, rounds + 1):
            for node in NODES:
                parties.step(run, node, step, metered=Metered(seconds=10 * step, bytes=500_000))
        parties.end(run, rounds)
        parties.attest()
        receive(parties.client(run), run.id, run.plan.digest, tmp_path / f"result-{number}", seconds=0.0)
    return agreements


def statement(keyong: Keyong, home: Path, *more: object) -> Any:
    ran = keyong("--home", home, "ledger", "statement", *more, "--format", "json")
    assert ran.code == 0, ran.err
    return ran.json


def results(tmp_path: Path) -> list[object]:
    return ["--receipts", tmp_path / "result-0", "--receipts", tmp_path / "result-1"]


def test_each_side_prints_the_same_figure_from_its_own_ledger(
    parties: Parties, used: dict[str, str], keyong: Keyong, tmp_path: Path
) -> None:
    month = month_of(now())
    lab = statement(keyong, parties.homes["lab"].path, "--month", month, *results(tmp_path))
    assert lab["missing"] == []
    for node in NODES:
        ours = statement(keyong, parties.homes[node].path, "--month", month)
        (theirs,) = [one for one in lab["statements"] if one["agreement"] == used[node]]
        (mine,) = ours["statements"]
        assert mine["figure"] == theirs["figure"]
        assert (mine["uses"], mine["seconds"], mine["bytes"]) == (2, 40, 1_500_000)
        assert Decimal(mine["amount"]) == 2 * 100 + Decimal("0.5") * 40 + 2 * Decimal("1.5")


def test_an_auditor_reads_it_from_an_export(
    parties: Parties, used: dict[str, str], keyong: Keyong, tmp_path: Path
) -> None:
    export = parties.export("mill-a", tmp_path / "mill-a.export")
    read = statement(keyong, parties.homes["mill-c"].path, export, "--root", parties.fingerprint)
    (own,) = statement(keyong, parties.homes["mill-a"].path)["statements"]
    assert [one["figure"] for one in read["statements"]] == [own["figure"]]


def test_a_result_that_the_consumer_leaves_out_is_missed_and_another_figure(
    parties: Parties, used: dict[str, str], keyong: Keyong, tmp_path: Path
) -> None:
    short = statement(keyong, parties.homes["lab"].path, "--receipts", tmp_path / "result-0")
    whole = statement(keyong, parties.homes["lab"].path, *results(tmp_path))
    assert len(short["missing"]) == 2
    assert {one["figure"] for one in short["statements"]}.isdisjoint(one["figure"] for one in whole["statements"])


def test_a_receipt_that_was_changed_is_refused(
    parties: Parties, used: dict[str, str], keyong: Keyong, tmp_path: Path
) -> None:
    for file in (tmp_path / "result-0").rglob("*.receipt.json"):
        file.write_bytes(file.read_bytes().replace(b'"sig":"', b'"sig":"AA', 1).replace(b'=="}', b'"}', 1))
    ran = keyong("--home", parties.homes["lab"].path, "ledger", "statement", *results(tmp_path))
    assert ran.code in (2, 4) and not ran.out.strip()


def test_what_names_no_month_and_no_agreement_is_refused_not_answered_with_nothing(
    parties: Parties, used: dict[str, str], keyong: Keyong
) -> None:
    asked = ("--home", parties.homes["mill-a"].path, "ledger", "statement")
    ran = keyong(*asked, "--month", "2026-13")
    assert ran.code == 2 and "2026-13 is not a month" in ran.err
    ran = keyong(*asked, "--agreement", "zzzz")
    assert ran.code == 2 and "no agreement that this ledger shows is called zzzz" in ran.err
    ran = keyong(*asked, "--month", "2001-01", "--agreement", used["mill-a"])
    assert ran.code == 0 and "nothing was used" in ran.err


def test_as_csv_and_as_a_page(parties: Parties, used: dict[str, str], keyong: Keyong, tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "may.csv", "--page", tmp_path / "may.html")
    (found,) = statement(keyong, parties.homes["mill-a"].path, "--agreement", used["mill-a"][7:19], *files)[
        "statements"
    ]
    with (tmp_path / "may.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(found["amount"])
    assert found["figure"] in (tmp_path / "may.html").read_text(encoding="utf-8")
    for lang, said in (
        ("en", ("optimising processes", "training models", "done 2")),
        ("zh", ("工艺优化", "训练模型", "完成 2")),
    ):
        page = (*files[2:3], tmp_path / f"{lang}.html")
        ran = keyong("--home", parties.homes["mill-a"].path, "--lang", lang, "ledger", "statement", *page)
        shown = (tmp_path / f"{lang}.html").read_text(encoding="utf-8")
        assert all(
            text in shown for text in (*said, "mill-a Ltd <small>mill-a</small>", "lab Ltd <small>lab</small>")
        ), shown
        assert "fed:" not in shown and "fed:" not in ran.out and "mill-a Ltd (mill-a)" in ran.out
    ran = keyong("--home", parties.homes["mill-a"].path, "--lang", "zh", "ledger", "statement")
    assert ran.code == 0 and found["figure"] in ran.out
