"""A source that is not as it was: changed while it is read, or with values beyond what is read at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enterprise_node import _duckdb, extraction
from enterprise_node.datasets import SourceDescription, inspect_source
from enterprise_node.materialise import Grant, Snapshot, materialise_here
from enterprise_node.rules import Kept, Rules, parse_rules
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.sources import SourceQueryError, SourceUnavailableError, sqlite_file
from federation.errors import UsageError

SECRET = "Geheimwert"
PSEUDONYM = "[columns.coil]\nrule = 'pseudonym'"


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "home" / "keys").mkdir(parents=True, mode=0o700)
    made = Kept(tmp_path / "home", "passes")
    made.ensure_key()
    return made


def parquet(path: Path, first: int) -> None:
    coils = [f"C{first + row // 10}" for row in range(200)]
    pq.write_table(pa.table({"coil": coils, "force": list(map(float, range(200)))}), path)


def snapshot(found: SourceDescription, folder: Path, rules: str = "", kept: Kept | None = None) -> Snapshot:
    grant = Grant(
        found.place,
        found.reading,
        found.fingerprint,
        found.columns,
        parse_rules(rules) if rules else Rules({}),
        kept,
        "sha256:" + "a" * 64,
    )
    return materialise_here(grant, folder)


def before_copying(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have somebody do something between the first look at a source and the reading of its rows."""
    real = extraction._Making.copy

    def copy(making: extraction._Making, target: Path) -> int:
        act()
        return real(making, target)

    monkeypatch.setattr(extraction._Making, "copy", copy)


def test_a_line_that_is_cut_off_meanwhile_is_a_change_and_no_bad_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("coil,force\n" + "c1,1\n" * 50)
    found = inspect_source(path)
    before_copying(monkeypatch, lambda: path.write_text(f'coil,force\n"{SECRET},1\n'))
    with pytest.raises(DatasetChangedError) as refused:
        snapshot(found, tmp_path / "s")
    assert SECRET not in str(refused.value) and not (tmp_path / "s").exists()


def test_values_that_were_not_there_when_pseudonyms_were_made_are_a_change(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, 0)
    found = inspect_source(path)
    before_copying(monkeypatch, lambda: parquet(path, 1000))
    with pytest.raises(DatasetChangedError) as refused:
        snapshot(found, tmp_path / "s", PSEUDONYM, kept)
    assert "C10" not in str(refused.value) and not (tmp_path / "s").exists()


def test_a_file_of_a_folder_that_is_written_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"first")
    found = inspect_source(folder)
    before_copying(monkeypatch, lambda: (folder / "a.png").write_bytes(b"other"))
    with pytest.raises(DatasetChangedError):
        snapshot(found, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_who_writes_to_a_sqlite_database_meanwhile_changes_nothing_of_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t AS SELECT value AS a FROM (WITH n(value) AS "
                       "(SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 50) SELECT * FROM n)")  # fmt: skip
        found = inspect_source(path, table="t")
        real, written = sqlite_file._field, []

        def field(value: object) -> str:
            if value == 1 and not written:
                written.append(writer.execute("UPDATE t SET a = -a"))
            return real(value)

        monkeypatch.setattr(sqlite_file, "_field", field)
        monkeypatch.setattr(sqlite_file, "_BATCH", 1)
        made = snapshot(found, tmp_path / "s")
        assert written and writer.execute("SELECT max(a) FROM t").fetchone() == (-1,)
    assert pq.read_table(made.folder / "data.parquet").column("a").to_pylist() == list(range(1, 51))


def test_a_duckdb_database_that_a_program_writes_to_is_named_as_locked(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS a")
    found = inspect_source(path, table="t")
    holder = os.fork()
    if holder == 0:  # DuckDB's lock is one between processes
        connection = duckdb.connect(str(path))
        (tmp_path / "locked").touch()
        while (tmp_path / "locked").exists():
            os.sched_yield()
        connection.close()
        os._exit(0)
    try:
        while not (tmp_path / "locked").exists():
            os.sched_yield()
        with pytest.raises(SourceUnavailableError):
            snapshot(found, tmp_path / "s")
        assert not (tmp_path / "s").exists()
    finally:
        (tmp_path / "locked").unlink()
        os.waitpid(holder, 0)
    assert snapshot(found, tmp_path / "s").rows == 1


@pytest.mark.parametrize("size", [200_000, _duckdb.MAX_LINE_BYTES + 1])
@pytest.mark.parametrize("kind", ["csv", "parquet", "duckdb", "sqlite", "files"])
def test_huge_values_are_read_or_refused_as_what_they_are(tmp_path: Path, kind: str, size: int) -> None:
    huge = SECRET + "x" * size
    path, how = tmp_path / f"a.{kind}", {}
    if kind == "csv":
        path.write_text(f"a,b\n1,{huge}\n2,y\n")
    elif kind == "parquet":
        pq.write_table(pa.table({"a": [1, 2], "b": [huge, "y"]}), path)
    elif kind == "files":
        path.mkdir()
        (path / "one.bin").write_bytes(b"1")
        (path / "index.csv").write_text(f"file,b\none.bin,{huge}\n")
    else:
        how = {"table": "t"}
        with closing(sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(str(path))) as database:
            database.execute("CREATE TABLE t (a INTEGER, b TEXT)")
            database.execute("INSERT INTO t VALUES (1, ?), (2, 'y')", (huge,))
            database.commit()
    taken = kind in ("parquet", "duckdb") or (kind != "files" and size < _duckdb.MAX_LINE_BYTES)
    if taken:
        made = snapshot(inspect_source(path, **how), tmp_path / "s")
        assert pq.read_table(made.folder / "data.parquet").column("b").to_pylist() == [huge, "y"]
        return
    with pytest.raises(UsageError) as refused:
        inspect_source(path, **how)
    text = f"{refused.value} {refused.value.hint}"
    assert SECRET not in text and ("bytes" in text or "index" in text) and "quote that" not in text


def test_a_row_that_grew_since_the_database_was_registered(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS a, 'x' AS b")
        found = inspect_source(path, table="t")
        writer.execute("INSERT INTO t VALUES (2, ?)", (SECRET * 300_000,))
    with pytest.raises(SourceQueryError) as refused:
        snapshot(found, tmp_path / "s")
    assert refused.value.code == "source-query" and SECRET not in str(refused.value)
    assert not (tmp_path / "s").exists()
