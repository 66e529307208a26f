"""PostgreSQL as a source, against a real server: types, credentials, what breaks, and what must never be told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from enterprise_node.datasets import SourceDescription, inspect_source
from enterprise_node.materialise import Grant, materialise_apart, materialise_here
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.sources import (
    SourceCredentialsError,
    SourceQueryError,
    SourceUnavailableError,
    locate,
)
from federation.errors import KeyongError, UsageError
from tests.enterprise_node import postgres
from tests.ports import own_port

SECRET = "s3cr3t-recipe"
pytestmark = pytest.mark.xdist_group("postgresql")

TABLE = f"""
CREATE SCHEMA rolling;
CREATE TYPE rolling.grade AS ENUM ('Q235', 'Q355');
CREATE TABLE rolling.passes (
    id bigint PRIMARY KEY, heat text, grade rolling.grade, force double precision, width numeric(9, 3), ok boolean,
    day date, at timestamptz, key uuid, tags text[], note text);
INSERT INTO rolling.passes VALUES
    (1, '007', 'Q235', 1.5, 2000.125, true, '2024-01-05', '2024-01-05 16:31:07.25+08', NULL, '{{a}}', '{SECRET}'),
    (2, '', 'Q355', 'NaN', 'NaN', false, NULL, NULL, '123e4567-e89b-12d3-a456-426614174000', NULL, 'a,"b"' || chr(10) || 'c'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
GRANT USAGE ON SCHEMA rolling TO reader;
GRANT SELECT ON rolling.passes TO reader;
CREATE TABLE rolling.secret (x int);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.serve() as one:
        one.run(TABLE)
        yield one


@pytest.fixture
def password(tmp_path: Path) -> str:
    (tmp_path / "password").write_text(postgres.PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    return f"file:{tmp_path / 'password'}"


def grant(found: SourceDescription, count: int = 99) -> Grant:
    return Grant(found.place, found.reading, found.fingerprint, found.columns[:count])


def rows(found: SourceDescription, folder: Path) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = pq.read_table(
        materialise_here(grant(found), folder).folder / "data.parquet"
    ).to_pylist()
    return made


def test_a_table_with_its_types(server: postgres.Server, password: str, tmp_path: Path) -> None:
    found = inspect_source(server.reader, table="rolling.passes", credential=password)
    assert {one.name: one.type for one in found.columns} == {
        "id": "integer", "heat": "text", "grade": "text", "force": "number", "width": "number", "ok": "boolean",
        "day": "date", "at": "timestamp", "key": "text", "note": "text",
    }  # fmt: skip
    assert found.reading.live and found.rows == 3 and all(one.nullable for one in found.columns)
    assert [str(one) for one in found.problems if "tags" in str(one)], "a column of no use is named"
    first, second, third = rows(found, tmp_path / "s")
    assert first["at"] == datetime(2024, 1, 5, 8, 31, 7, 250000) and first["day"] == date(2024, 1, 5)
    assert (first["heat"], first["width"], first["ok"]) == ("007", 2000.125, True)
    assert (second["heat"], second["force"], second["note"]) == ("", None, 'a,"b"\nc')
    assert set(third.values()) == {3, None}
    assert postgres.PASSWORD not in found.reading.to_json() and password in found.reading.to_json()


async def test_a_query_of_the_owners_and_only_granted_columns(
    server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import structlog

    monkeypatch.setenv("PLANT_DB_PASSWORD", postgres.PASSWORD)
    query = "SELECT id * 10 AS ten, note FROM rolling.passes WHERE id < 3 ORDER BY id DESC -- newest first"
    found = inspect_source(server.reader, select=query, credential="env:PLANT_DB_PASSWORD")
    snapshot = await materialise_apart(grant(found, 1), tmp_path / "s", seconds=60, log=structlog.get_logger())
    assert pq.read_table(snapshot.folder / "data.parquet").to_pydict() == {"ten": [20, 10]}
    assert all(SECRET.encode() not in file.read_bytes() for file in snapshot.folder.iterdir())


def test_rows_are_read_anew_and_what_no_longer_fits_is_refused(
    server: postgres.Server, password: str, tmp_path: Path
) -> None:
    server.run("CREATE TABLE rolling.moving AS SELECT 1 AS a, 'x' AS b; GRANT SELECT ON rolling.moving TO reader")
    found = inspect_source(server.reader, table="rolling.moving", credential=password)
    server.run("INSERT INTO rolling.moving VALUES (2, 'y')")
    assert [row["a"] for row in rows(found, tmp_path / "1")] == [1, 2]
    server.run(f"ALTER TABLE rolling.moving ALTER a TYPE text; UPDATE rolling.moving SET a = '{SECRET}' WHERE b = 'y'")
    with pytest.raises(DatasetChangedError) as refused:
        rows(found, tmp_path / "2")
    assert refused.value.code == "dataset-type" and SECRET not in str(refused.value) + refused.value.hint
    server.run("ALTER TABLE rolling.moving DROP a")
    with pytest.raises(DatasetChangedError) as refused:
        rows(found, tmp_path / "3")
    assert refused.value.code == "dataset-column-missing"
    server.run("ALTER TABLE rolling.moving ADD a int; DELETE FROM rolling.moving")
    with pytest.raises(DatasetChangedError) as refused:
        rows(found, tmp_path / "4")
    assert refused.value.code == "dataset-empty"
    server.run("DROP TABLE rolling.moving")
    with pytest.raises(SourceQueryError):
        rows(found, tmp_path / "5")
    assert not [path for path in tmp_path.iterdir() if path.name in "2345" or path.name.startswith(".keyong")]


def refused_as(kind: type[KeyongError], server: postgres.Server, **how: str) -> None:
    with pytest.raises(kind) as refused:
        inspect_source(how.pop("source", server.reader), **how)  # type: ignore[arg-type]
    text = f"{refused.value} {refused.value.hint} {refused.value!r}"
    assert postgres.PASSWORD not in text and SECRET not in text and "wrong-one" not in text


def test_what_is_refused_tells_no_value_and_no_password(
    server: postgres.Server, password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "wrong-one")
    table = "rolling.passes"
    refused_as(SourceCredentialsError, server, table=table, credential="env:WRONG")
    refused_as(SourceCredentialsError, server, table=table)
    refused_as(SourceCredentialsError, server, table=table, credential="env:NOT_SET_AT_ALL")
    refused_as(SourceCredentialsError, server, table="rolling.secret", credential=password)
    refused_as(SourceQueryError, server, table="rolling.none", credential=password)
    for query in (
        "DELETE FROM rolling.passes",
        "SELECT 1; DROP TABLE rolling.passes",
        "SELECT 1) TO PROGRAM 'id'; --",
        "SELECT note::int FROM rolling.passes",
        "SELECT * FROM rolling.passes; COMMIT",
    ):
        refused_as(SourceQueryError, server, select=query, credential=password)
    refused_as(SourceUnavailableError, server, table=table, source=f"postgresql://a@127.0.0.1:{own_port()}/mes")
    found = inspect_source(server.reader, table=table, credential=password)
    assert found.rows == 3, "nothing was changed"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_password_that_others_can_read_is_refused(server: postgres.Server, tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").write_text(postgres.PASSWORD)
    (tmp_path / "open").chmod(mode)
    refused_as(SourceCredentialsError, server, table="rolling.passes", credential=f"file:{tmp_path / 'open'}")
    (tmp_path / "open").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    refused_as(SourceCredentialsError, server, table="rolling.passes", credential=f"file:{tmp_path / 'link'}")
    inspect_source(server.reader, table="rolling.passes", credential=f"file:{tmp_path / 'open'}")


def test_addresses_hold_no_password_and_name_what_is_read() -> None:
    for url, how in (
        ("postgresql://a:pw@h/d", {"table": "t"}),
        ("postgresql://a@h/d?password=pw", {"table": "t"}),
        ("postgresql://a@h/", {"table": "t"}),
        ("postgresql://a@h/d", {}),
        ("postgresql://a@h/d", {"table": "t", "select": "SELECT 1"}),
        ("postgresql://a@h:no/d?x", {"table": "t"}),
    ):
        with pytest.raises(UsageError) as refused:
            locate(url, **how)
        assert "pw" not in str(refused.value)


def test_a_server_elsewhere_is_spoken_to_under_tls_unless_the_owner_says_otherwise() -> None:
    from enterprise_node.sources.postgresql import _parameters

    assert _parameters("postgresql://a@db.plant/d", "")["sslmode"] == "verify-full"
    assert _parameters("postgresql://a@db.plant/d?sslmode=disable", "")["sslmode"] == "disable"
    assert "sslmode" not in _parameters("postgresql://a@127.0.0.1/d", "")


def test_a_server_that_goes_away_is_named_as_such(tmp_path: Path, password: str) -> None:
    with postgres.serve() as other:
        other.run("CREATE TABLE t AS SELECT 1 AS a; GRANT SELECT ON t TO reader")
        found = inspect_source(other.reader, table="t", credential=password)
        other.stop()
        with pytest.raises(SourceUnavailableError):
            rows(found, tmp_path / "s")
        assert not (tmp_path / "s").exists()
