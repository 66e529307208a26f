"""SQLite, DuckDB and folders as sources: what is read, what is refused, what of it is told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from enterprise_node.datasets import SourceDescription, inspect_source
from enterprise_node.materialise import Grant, materialise_here
from enterprise_node.reading import Reading
from enterprise_node.rules import Kept, parse_rules
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.sources import SourceQueryError, SourceUnavailableError, folder
from federation.errors import KeyongError, UsageError

SECRET = "s3cr3t-recipe"


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "plant db?.sqlite"
    with closing(sqlite3.connect(path)) as one:
        one.execute('CREATE TABLE "t""x" (a integer, b text, c, d blob, day text, e)')
        one.executemany(
            'INSERT INTO "t""x" VALUES (?, ?, ?, ?, ?, ?)',
            [
                (1, "007", 1.5, b"x", "2024-01-05", 1),
                (None, "", SECRET, None, None, 0.1),
                (3, 'a"b\nc', 2, b"", None, None),
            ],
        )
        one.commit()
    return path


@pytest.fixture
def duck(tmp_path: Path) -> Path:
    path = tmp_path / "plant.duckdb"
    with closing(duckdb.connect(str(path))) as one:
        one.execute("CREATE SCHEMA s")
        one.execute(
            "CREATE TABLE s.t AS SELECT i, 'x' || i AS v, i / 2 AS h, [1] AS l, DATE '2024-01-01' AS d FROM range(5) r(i)"
        )
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    (place / "sub").mkdir(parents=True)
    (place / "a.PNG").write_bytes(b"first")
    (place / "sub" / "b.png").write_bytes(b"second")
    (place / ".hidden").write_bytes(b"hidden")
    return place


def grant(found: SourceDescription, count: int = 99) -> Grant:
    return Grant(found.place, found.reading, found.fingerprint, found.columns[:count])


def read(found: SourceDescription, folder: Path, count: int = 99) -> list[dict[str, Any]]:
    table = pq.read_table(materialise_here(grant(found, count), folder).folder / "data.parquet")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_a_sqlite_table_with_mixed_values(sqlite: Path, tmp_path: Path) -> None:
    found = inspect_source(sqlite, table='t"x')
    types = {one.name: one.type for one in found.columns}
    assert types == {"a": "integer", "b": "text", "c": "text", "day": "date", "e": "number"}
    assert any("column d" in str(one) for one in found.problems)
    first, second, third = read(found, tmp_path / "s")
    assert first == {"a": 1, "b": "007", "c": "1.5", "day": date(2024, 1, 5), "e": 1.0}
    assert (second["a"], second["b"], second["c"], third["b"]) == (None, "", SECRET, 'a"b\nc')
    one = inspect_source(sqlite, select='SELECT a * 2 AS aa FROM "t""x" ORDER BY a DESC')
    assert read(one, tmp_path / "q") == [{"aa": 6}, {"aa": 2}, {"aa": None}]
    assert "select" in one.reading.document() and Reading.from_json(one.reading.to_json()) == one.reading


def test_readings_of_a_live_source_tell_which_columns_changed(tmp_path: Path) -> None:
    place = tmp_path / "live.sqlite"

    def change(statement: str) -> dict[str, str]:
        with closing(sqlite3.connect(place)) as database, database:
            database.execute(statement)
        found = inspect_source(place, table="t")
        made = materialise_here(grant(found), tmp_path / f"made-{len(list(tmp_path.iterdir()))}")
        return dict(made.values)

    with closing(sqlite3.connect(place)) as database, database:
        database.execute("CREATE TABLE t (x REAL, y INTEGER)")
        database.executemany("INSERT INTO t VALUES (?, ?)", [(one / 2, one % 7) for one in range(3000)])
    first = change("SELECT 1")
    assert set(first) == {"", "x", "y"} and first[""] == "3000" and change("SELECT 1") == first
    second = change("UPDATE t SET x = 0.25 WHERE y = 3")
    assert second["y"] == first["y"] and second["x"] != first["x"]
    narrow = materialise_here(grant(inspect_source(place, table="t"), 1), tmp_path / "narrow").values
    assert narrow == {"": "3000", "x": second["x"]}, "whatever else is granted"
    assert change("DELETE FROM t WHERE y = 3")[""] != "3000"


def test_a_duckdb_table(duck: Path, tmp_path: Path) -> None:
    found = inspect_source(duck, table="s.t")
    types = {one.name: one.type for one in found.columns}
    assert types == {"i": "integer", "v": "text", "h": "number", "d": "date"}
    assert read(found, tmp_path / "s", 2) == [{"i": i, "v": f"x{i}"} for i in range(5)]
    one = inspect_source(duck, select="SELECT v FROM s.t WHERE i > 3")
    assert read(one, tmp_path / "q") == [{"v": "x4"}]


def refused(kind: type[KeyongError], source: Path, **how: Any) -> None:
    with pytest.raises(kind) as error:
        inspect_source(source, **how)
    assert SECRET not in f"{error.value} {error.value.hint}"


def test_only_reading_and_only_of_the_database(sqlite: Path, duck: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text(f"a\n{SECRET}\n")
    before = sqlite.read_bytes()
    for query in (
        'DELETE FROM "t""x"',
        "ATTACH 'x.db' AS other",
        "SELECT 1; SELECT 2",
        "PRAGMA query_only = OFF",
        f'SELECT c + load_extension(\'{tmp_path}/x.so\') FROM "t""x"',
        "SELECT nothing FROM nowhere",
    ):
        refused(KeyongError, sqlite, select=query)
    assert sqlite.read_bytes() == before and not (tmp_path / "x.db").exists()
    for query in (
        "DELETE FROM s.t",
        "SELECT 1; SELECT 2",
        f"SELECT * FROM read_csv('{tmp_path}/other.csv')",
        f"SELECT * FROM '{tmp_path}/other.csv'",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/other.duckdb'",
        "SELECT nothing FROM nowhere",
    ):
        refused(SourceQueryError, duck, select=query)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "other.duckdb").exists()
    refused(SourceQueryError, sqlite, table="none")
    refused(SourceQueryError, duck, table="s.none")
    for source in (sqlite, duck):
        refused(UsageError, source)
        refused(UsageError, source, table="t", select="SELECT 1")
        refused(UsageError, source, table="t", credential="env:X")
    refused(UsageError, tmp_path / "other.csv", table="t")


def test_a_database_that_is_locked_gone_or_damaged(sqlite: Path, duck: Path, tmp_path: Path, monkeypatch: Any) -> None:
    found, other = inspect_source(sqlite, table='t"x'), inspect_source(duck, table="s.t")
    monkeypatch.setattr("enterprise_node.sources.sqlite_file._BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(sqlite, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailableError):
            read(found, tmp_path / "s")
    sqlite.write_bytes(sqlite.read_bytes()[:100] + b"\0" * 4000)
    duck.unlink()
    for one in (found, other):
        with pytest.raises(KeyongError) as error:
            read(one, tmp_path / "s")
        assert error.value.exit_code in (2, 5) and not (tmp_path / "s").exists()


def test_a_folder_and_its_files(images: Path, tmp_path: Path) -> None:
    found = inspect_source(images)
    assert [(one.name, one.type) for one in found.columns] == [("file", "text"), ("bytes", "integer")]
    snapshot = materialise_here(grant(found), tmp_path / "s")
    assert (snapshot.folder / "files/sub/b.png").read_bytes() == b"second" and snapshot.rows == 2
    assert all(not path.stat().st_mode & 0o222 for path in (snapshot.folder, *snapshot.folder.rglob("*")))
    assert not list(snapshot.folder.rglob(".hidden"))
    names = Grant(found.place, found.reading, found.fingerprint, found.columns[1:])
    without = materialise_here(names, tmp_path / "w")
    assert not (without.folder / "files").exists(), "whoever is not granted the names gets no file"
    assert snapshot.digest != without.digest
    (images / "a.PNG").write_bytes(b"other")
    with pytest.raises(DatasetChangedError):
        materialise_here(grant(found), tmp_path / "c")
    snapshot.discard()
    assert not snapshot.folder.exists() and not (tmp_path / "c").exists()


def test_a_folder_with_an_index_of_its_own(images: Path, tmp_path: Path) -> None:
    (images / "index.csv").write_text("file,label\nsub/b.png,scratch\n")
    found = inspect_source(images)
    assert read(found, tmp_path / "s") == [{"file": "sub/b.png", "label": "scratch"}]
    assert not (tmp_path / "s/files/a.PNG").exists() and not (tmp_path / "s/files/index.csv").exists()
    for text in (
        "file\nnone.png\n",
        "file\nsub/b.png\nsub/b.png\n",
        "name\na.PNG\n",
        "file\n../images/a.PNG\n",
        "file\nindex.csv\n",
    ):
        (images / "index.csv").write_text(text)
        refused(UsageError, images)


def test_names_of_files_may_come_under_a_rule(images: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "keys").mkdir(parents=True, mode=0o700)
    kept = Kept(tmp_path / "home", "images")
    kept.ensure_key()
    found = inspect_source(images)
    rules = parse_rules("[columns.file]\nrule = 'pseudonym'")
    one = Grant(found.place, found.reading, found.fingerprint, found.columns, rules, kept, "sha256:1")
    snapshot = materialise_here(one, tmp_path / "s")
    named = pq.read_table(snapshot.folder / "data.parquet").column("file").to_pylist()
    assert [(snapshot.folder / "files" / name).read_bytes() for name in named] == [b"first", b"second"]
    assert [Path(name).suffix for name in named] == [".PNG", ".png"] and not {"a", "b"} & {Path(n).stem for n in named}


@pytest.mark.parametrize("bad", ["link", "folder link", "pipe", "name", "deep"])
def test_folders_that_are_refused(images: Path, tmp_path: Path, bad: str) -> None:
    (tmp_path / "outside.txt").write_text(SECRET)
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: (images / "l.png").symlink_to(tmp_path / "outside.txt"),
        "folder link": lambda: (images / "l").symlink_to(tmp_path),
        "pipe": lambda: os.mkfifo(images / "p.png"),
        "name": lambda: (images / 'q"uote.png').write_bytes(b""),
        "deep": lambda: (
            (images / "/".join("d" * 10)).mkdir(parents=True) or (images / "/".join("d" * 10) / "x").touch()
        ),
    }
    inspect_source(images)
    make[bad]()
    refused(UsageError, images)


def test_folders_have_limits(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_FILES", 1), ("MAX_FILE_BYTES", 5), ("MAX_FOLDER_BYTES", 9)):
        with monkeypatch.context() as patch:
            patch.setattr(folder, name, value)
            refused(UsageError, images)
    inspect_source(images)
