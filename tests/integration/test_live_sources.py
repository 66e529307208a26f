"""A node whose rows lie in databases: it is killed while it reads, the database is away, its password is wrong or sought."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.enterprise_node import postgres
from tests.integration.apps import client_that, write_app
from tests.integration.consortium import Consortium, as_text
from tests.integration.parties import until

PURPOSE = "fed:DemandForecast"
SPY = """
found = {}
for name, act in {
    "password file": lambda: open(SOUGHT["file"]).read(),
    "its folder": lambda: os.listdir(os.path.dirname(SOUGHT["file"])),
    "database": lambda: socket.create_connection(("127.0.0.1", SOUGHT["port"]), 2).recv(1),
    "socket": lambda: socket.socket(socket.AF_UNIX).connect(SOUGHT["socket"]),
    "files": lambda: sqlite3.connect("file:" + SOUGHT["sqlite"] + "?mode=ro", uri=True).execute("SELECT 1 FROM t"),
}.items():
    try:
        found[name] = "got " + repr(act())
    except BaseException as error:
        found[name] = "refused: " + type(error).__name__
found["environment"] = dict(os.environ)
found["data"] = {name: open("/data/" + name, "rb").read().hex() for name in os.listdir("/data")}
print("FOUND", json.dumps(found), flush=True)
return reply(message, w, good)
"""


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


@pytest.mark.long
def test_inv3_inv7_a_password_is_out_of_a_job_s_reach_and_a_wrong_one_is_named(
    consortium: Consortium, sqlite: Path, tmp_path: Path
) -> None:
    mill = consortium.mill("a")
    password = tmp_path / "password"
    password.write_text(postgres.PASSWORD)
    password.chmod(0o600)
    with postgres.serve() as server:
        server.run("CREATE TABLE passes (x1 float8, x2 float8, x3 float8, y float8); GRANT SELECT ON passes TO reader")
        values = ", ".join(str(row) for row in _rows(consortium.records(mill)))
        server.run(f"INSERT INTO passes VALUES {values}")
        add = ("node", "dataset", "add", "live", server.reader, "--table", "passes", "--title", "Live", "--simulated")
        mill.ok(*add, "--password-file", password)
        consortium.agree([mill], "--purpose", PURPOSE, "--expires", "30d", "--protection", "none", dataset="live")
        seen = mill.ok("node", "dataset", "preview", "live", "--rows", "2")
        assert seen.json["rows"] == len(_rows(consortium.records(mill)))
        assert postgres.PASSWORD not in seen.out + seen.err
        sought = {
            "file": str(password), "port": server.port, "sqlite": str(sqlite),
            "socket": str(server.folder / f".s.PGSQL.{server.port}"),
        }  # fmt: skip
        assert all(Path(sought[name]).exists() for name in ("file", "sqlite", "socket"))
        body = f"SOUGHT = json.loads({json.dumps(sought)!r})\n{SPY}"
        spy = client_that(body, before="import json\nimport os\nimport socket\nimport sqlite3")
        assert consortium.job(write_app(tmp_path / "app", client=spy), purpose=PURPOSE).code == 0
        (line,) = {
            text for text in consortium.logs(mill, consortium.job_id())["stdout"].splitlines() if text[:5] == "FOUND"
        }
        found = json.loads(line.removeprefix("FOUND "))
        for name in ("password file", "its folder", "database", "socket", "files"):
            assert found[name].startswith("refused"), f"{name}: {found[name]}"
        assert set(found["data"]) == {"data.parquet", "schema.json"}
        for text in (postgres.PASSWORD, str(server.port), "reader", "mill-a"):
            assert text not in str(found["environment"])
            assert all(text.encode() not in bytes.fromhex(one) for one in found["data"].values())
        password.write_text("another")
        refused = mill.run("node", "dataset", "preview", "live")
        assert refused.code == 5 and "refuses the credentials" in refused.err
        assert "Traceback" not in refused.err and "another" not in refused.err
        done = consortium.job(None, "--min-participants", "2", purpose=PURPOSE)
        told = done.out + done.err
        assert "mill-a" in told and "source-credentials" in told and str(password) not in told
        assert "source-credentials" in _last_outcome(consortium)
        password.write_text(postgres.PASSWORD)
    done = consortium.job(None, "--min-participants", "2", purpose=PURPOSE)
    assert "source-unavailable" in done.out + done.err, "the server has ended"
