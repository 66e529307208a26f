"""The owner's data: what is registered, what is shown, what is refused; no value in any of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.keyong.conftest import Run


def test_add_list_show_remove(keyong: Run, founder: Path, passes: Path) -> None:
    added = keyong(
        "--home", founder, "node", "dataset", "add", "passes", passes, "--title", "Passes", "--title-zh", "道次",
        "--simulated", "--format", "json",
    ).json  # fmt: skip
    assert set(added) == {"dataset", "rows", "path", "registered", "problems"}
    assert added["registered"] is True and added["rows"] == 12
    assert [column["name"] for column in added["dataset"]["columns"]] == ["force", "grade"]
    assert added["dataset"]["simulated"] is True
    (listed,) = keyong("--home", founder, "node", "dataset", "list", "--format", "json").json
    assert listed["dataset"] == "passes" and listed["path"] == str(passes)
    shown = keyong("--home", founder, "node", "dataset", "show", "passes", "--lang", "zh").out
    assert "道次" in shown and "12" in shown
    assert keyong("--home", founder, "node", "dataset", "remove", "passes").code == 0
    assert passes.exists()
    assert keyong("--home", founder, "node", "dataset", "list", "--format", "json").json == []
    kinds = [one["fields"].get("event") for one in keyong("--home", founder, "ledger", "show", "--format", "json").json]
    assert kinds == [None, "removed"]


def test_no_value_is_shown_or_published(keyong: Run, founder: Path, passes: Path) -> None:
    ran = keyong("--home", founder, "node", "dataset", "add", "passes", passes, "--title", "Passes")
    assert ran.code == 0
    assert "11.5" not in ran.out + ran.err and "Q2" not in ran.out + ran.err


def test_a_process_of_its_own_says_nothing_but_our_words(founder: Path, passes: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "keyong",
        "--home",
        founder,
        "node",
        "dataset",
        "add",
        "passes",
        passes,
        "--dry-run",
    ]
    command += ["--title", "Passes", "--dry-run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [row.split(":")[0] for row in ran.stderr.splitlines()] == [
        f"read {passes}",
        "nothing was registered (--dry-run); this is what the catalog would show",
    ]


def test_a_dry_run_registers_nothing(keyong: Run, founder: Path, passes: Path) -> None:
    ran = keyong("--home", founder, "node", "dataset", "add", "passes", passes, "--title", "Passes", "--dry-run")
    assert ran.code == 0 and "nothing was registered" in ran.err
    assert keyong("--home", founder, "node", "dataset", "list", "--format", "json").json == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["passes", "missing.csv", "--title", "T"], "there is no file"),
        (["Bad Name", "PASSES", "--title", "T"], "cannot stand as the name of a dataset"),
        (["passes", "PASSES", "--title", "T", "--column", "nope:number"], "has no column nope"),
        (["passes", "PASSES", "--title", "T", "--column", "grade:number"], "cannot be read as number"),
        (["passes", "PASSES", "--title", "T", "--column", "grade"], "does not declare a column"),
        (["passes", "PASSES", "--title", "T", "--level", "L9"], "level is not of the form"),
        (["passes", "PASSES", "--title", "T", "--encoding", "klingon"], "encoding klingon is not known"),
    ],
)
def test_wrong_input_is_named(keyong: Run, founder: Path, passes: Path, arguments: list[str], part: str) -> None:
    ran = keyong(
        "--home", founder, "node", "dataset", "add", *[str(passes) if one == "PASSES" else one for one in arguments]
    )
    assert ran.code == 2
    assert part in ran.err
    assert "Q1" not in ran.err


def test_an_unknown_dataset_is_refused_where_it_is_named(keyong: Run, founder: Path) -> None:
    for arguments in (["show", "nothing"], ["remove", "nothing"]):
        ran = keyong("--home", founder, "node", "dataset", *arguments)
        assert ran.code == 2 and "no dataset nothing is registered here" in ran.err
    ran = keyong("--home", founder, "catalog", "show", "nothing")
    assert ran.code == 2 and "does not name a dataset" in ran.err
