"""A node whose rows lie in a database: it is killed while it reads them, and the database is away."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.integration.consortium import Consortium, as_text
from tests.integration.parties import until

PURPOSE = "fed:DemandForecast"


def _rows(records: Path) -> list[tuple[float, ...]]:
    table: list[tuple[float, ...]] = [tuple(map(float, row)) for row in np.loadtxt(records, delimiter=",", skiprows=1)]
    return table


@pytest.fixture(scope="module")
def sqlite(consortium: Consortium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mill-a's passes in a database, offered beside the others' files under a purpose of its own."""
    path = tmp_path_factory.mktemp("live") / "plant.sqlite"
    mill = consortium.mill("a")
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x1 REAL, x2 REAL, x3 REAL, y REAL)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", _rows(consortium.records(mill)))
        database.commit()
    mill.ok("node", "dataset", "add", "live", path, "--table", "t", "--title", "Live", "--simulated")
    clauses = ("--purpose", PURPOSE, "--expires", "30d", "--protection", "none")
    consortium.agree([mill], *clauses, dataset="live")
    consortium.agree([consortium.mill("b"), consortium.mill("c")], *clauses)
    yield path
    mill.ok("node", "dataset", "remove", "live")


def _last_outcome(consortium: Consortium) -> str:
    return as_text(consortium.entries(consortium.mill("a"), "outcome")[-1])


def _readers(path: Path) -> set[int]:
    """Processes other than this one that have the file open."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if any(os.readlink(one) == str(path) for one in (entry / "fd").iterdir()):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.long
def test_inv2_a_node_is_killed_while_it_reads_its_source(consortium: Consortium, sqlite: Path) -> None:
    """Nothing half made is left, what was reading is gone, and the ledger says after the next start what became of it."""
    mill = consortium.mill("a")
    with closing(sqlite3.connect(sqlite, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")  # who reads waits
        running = consortium.institute.start(
            "job", "run", consortium.app, "--purpose", PURPOSE, "--yes", "--min-participants", "2"
        )
        over = ("fell-out", "process-ended")
        until(
            lambda: _readers(sqlite) or [one for one in running.events if one.get("event") in over], "no one reads", 100
        )
        assert _readers(sqlite), f"{running.events}\n{running.text}"
        assert mill.service is not None
        mill.service.kill()
        until(lambda: not _readers(sqlite), "what makes the snapshot outlived its node")
        assert running.ended() == 0, f"two others were enough\n{running.events}\n{running.text}"
        verdict = mill.ok("verify", mill.home, "--root", consortium.fingerprint).json
        assert len(verdict["completeness"]["open_intents"]) == 1
        consortium.serve_node(mill)
    verdict = mill.ok("verify", mill.home, "--root", consortium.fingerprint).json
    assert verdict["completeness"]["open_intents"] == [] and "aborted" in _last_outcome(consortium)
    assert not any((mill.home / "sessions").iterdir()), "a part of a snapshot was left behind"
    assert consortium.job(purpose=PURPOSE).code == 0


def test_inv7_a_source_that_is_away(consortium: Consortium, sqlite: Path) -> None:
    """The requester hears a code; where the source lies is the owner's alone."""
    moved = sqlite.with_name("moved")
    sqlite.rename(moved)
    try:
        done = consortium.job(None, "--min-participants", "2", purpose=PURPOSE)
    finally:
        moved.rename(sqlite)
    told = done.out + done.err
    assert "mill-a" in told and "source-unavailable" in told and str(sqlite) not in told and "Traceback" not in told
    assert "source-unavailable" in _last_outcome(consortium)
    assert not any((consortium.mill("a").home / "sessions").iterdir())
