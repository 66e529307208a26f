"""The snapshot: granted columns alone, of the registered bytes alone, writable by nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from enterprise_node import extraction as module
from enterprise_node.datasets import SourceDescription, inspect_source, parse_column
from enterprise_node.materialise import Snapshot, materialise
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.synthetic import synthetic_rows
from federation.errors import UsageError
from federation.statements import Column

SECRET = "s3cr3t-recipe"
TEXT = f"id,force,recipe\n3,1.5,{SECRET}\n1,,{SECRET}\n2,7,{SECRET}\n"


@pytest.fixture
def source(tmp_path: Path) -> SourceDescription:
    path = tmp_path / "mill.csv"
    path.write_text(TEXT)
    return inspect_source(path)


def snap(source: SourceDescription, folder: Path, count: int = 2) -> Snapshot:
    return materialise(source.path, source.columns[:count], source.fingerprint, folder, reading=source.reading)


def test_granted_columns_are_there_in_order_and_the_others_are_absent(
    source: SourceDescription, tmp_path: Path
) -> None:
    snapshot = snap(source, tmp_path / "s")
    table = pq.read_table(snapshot.folder / "data.parquet")
    assert table.to_pydict() == {"id": [3, 1, 2], "force": [1.5, None, 7.0]}
    assert snapshot.rows == 3
    for file in snapshot.folder.iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert b"recipe" not in file.read_bytes()
    schema = json.loads((snapshot.folder / "schema.json").read_bytes())
    assert schema == {
        "format": 1,
        "rows": 3,
        "columns": [
            {"name": "id", "type": "integer", "nullable": False, "unit": ""},
            {"name": "force", "type": "number", "nullable": True, "unit": ""},
        ],
    }
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".keyong")] == []


def test_nobody_may_write_and_everybody_may_read(source: SourceDescription, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        snapshot = snap(source, tmp_path / "s")
    finally:
        os.umask(old)
    assert snapshot.folder.stat().st_mode & 0o777 == 0o555
    assert sorted(entry.name for entry in snapshot.folder.iterdir()) == ["data.parquet", "schema.json"]
    assert all(entry.stat().st_mode & 0o777 == 0o444 for entry in snapshot.folder.iterdir())
    snapshot.discard()
    snapshot.discard()
    assert not snapshot.folder.exists()


def test_equal_snapshots_have_equal_digests(source: SourceDescription, tmp_path: Path) -> None:
    digests = [snap(source, tmp_path / str(number)).digest for number in range(2)]
    assert digests[0] == digests[1]
    assert snap(source, tmp_path / "more", 3).digest != digests[0]


@pytest.mark.parametrize("change", [TEXT + "4,4,x\n", TEXT.replace("7", "8"), "", None])
def test_a_changed_or_missing_file_is_refused_and_leaves_nothing(
    source: SourceDescription, tmp_path: Path, change: str | None
) -> None:
    if change is None:
        source.path.unlink()
    else:
        source.path.write_text(change)
    with pytest.raises(DatasetChangedError) as refused:
        snap(source, tmp_path / "s")
    assert refused.value.code == "dataset-changed"
    assert not (tmp_path / "s").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(
    source: SourceDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.table

    def swap(*arguments: object) -> str:
        source.path.write_text(TEXT.replace("7", "8"))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "table", swap)
    with pytest.raises(DatasetChangedError):
        snap(source, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_file_in_another_encoding_is_read_from_the_bytes_that_were_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "轧机.csv"
    path.write_bytes("钢种,力\n低合金,1\n碳素钢,2\n".encode("gbk"))
    found = inspect_source(path, encoding="gbk")
    real = module.table

    def swap(*arguments: object) -> str:
        path.write_bytes("钢种,力\n假,9\n".encode("gbk"))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "table", swap)
    snapshot = snap(found, tmp_path / "s")
    assert pq.read_table(snapshot.folder / "data.parquet").to_pydict() == {"钢种": ["低合金", "碳素钢"], "力": [1, 2]}


def test_a_granted_column_that_is_gone_is_refused(source: SourceDescription, tmp_path: Path) -> None:
    columns = [*source.columns, Column(name="gone", type="text")]
    with pytest.raises(DatasetChangedError) as refused:
        materialise(source.path, columns, source.fingerprint, tmp_path / "s", reading=source.reading)
    assert refused.value.code == "dataset-column-missing"
    assert not (tmp_path / "s").exists()


def test_a_folder_that_exists_is_not_touched(source: SourceDescription, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "kept").write_text("x")
    with pytest.raises(UsageError):
        snap(source, tmp_path / "s")
    assert (tmp_path / "s" / "kept").exists()
    with pytest.raises(UsageError):
        snap(source, tmp_path / "none", 0)


def test_values_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,d,e\n+5, 007 ,yes,2024/1/5,2024-01-05T08:30:00Z\n,.5,0,,\n")
    declared = [parse_column(option) for option in ("a:integer", "b:number", "c:boolean")]
    found = inspect_source(path, declared=declared)
    table = pq.read_table(snap(found, tmp_path / "s", 5).folder / "data.parquet")
    assert [str(field.type) for field in table.schema] == ["int64", "double", "bool", "date32[day]", "timestamp[us]"]
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["a"], first["b"], first["c"], str(first["d"])) == (5, 7.0, True, "2024-01-05")
    assert str(first["e"]) == "2024-01-05 08:30:00"
    assert table.slice(1).to_pylist() == [{"a": None, "b": 0.5, "c": False, "d": None, "e": None}]


@pytest.mark.parametrize("name", ["big.csv.gz", "big.parquet"])
def test_the_order_of_many_rows_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    duckdb.sql(f"COPY (SELECT (i * 7919) % 300007 AS k, 'filler' AS f FROM range(300000) t(i)) TO '{path}'")
    found = inspect_source(path)
    table = pq.read_table(snap(found, tmp_path / "s", 1).folder / "data.parquet")
    assert table.column("k").to_pylist() == [(i * 7919) % 300007 for i in range(300000)]


def test_parquet_sources(tmp_path: Path) -> None:
    path = tmp_path / "we?ird.parquet"
    duckdb.sql(f"""COPY (SELECT i AS "Force [kN]", '{SECRET}' AS r FROM range(5) t(i)) TO '{path}' (FORMAT parquet)""")
    found = inspect_source(path)
    snapshot = snap(found, tmp_path / "s", 1)
    assert pq.read_table(snapshot.folder / "data.parquet").to_pydict() == {"Force [kN]": [0, 1, 2, 3, 4]}
    assert SECRET.encode() not in (snapshot.folder / "data.parquet").read_bytes()


COLUMNS = (
    Column(name="i", type="integer", minimum="-2", maximum="3"),
    Column(name="x", type="number", maximum="-500", nullable=True, unit="kN"),
    Column(name="g", type="text", categories=("Q235", "Q355")),
    Column(name="k", type="integer", categories=("10", "20")),
    Column(name="b", type="boolean"),
    Column(name="d", type="date"),
    Column(name="t", type="timestamp"),
    Column(name="s", type="text"),
)


def test_made_up_rows_fit_the_schema(tmp_path: Path) -> None:
    made = synthetic_rows(COLUMNS, 400, 7, tmp_path / "m")
    table = pq.read_table(made.folder / "data.parquet")
    values = table.to_pydict()
    assert made.rows == len(values["i"]) == 400
    assert set(values["i"]) == {-2, -1, 0, 1, 2, 3}
    present = [value for value in values["x"] if value is not None]
    assert 0 < len(present) < 400
    assert max(present) <= -500
    assert set(values["g"]) == {"Q235", "Q355"}
    assert set(values["k"]) == {10, 20}
    assert all(None not in values[name] for name in "igkbdts")
    assert synthetic_rows(COLUMNS, 400, 7, tmp_path / "again").digest == made.digest
    assert synthetic_rows(COLUMNS, 400, 8, tmp_path / "other").digest != made.digest
    with pytest.raises(UsageError):
        synthetic_rows((), 4, 7, tmp_path / "none")


def test_made_up_files_have_the_form_of_real_ones(tmp_path: Path) -> None:
    made = synthetic_rows(COLUMNS, 5, 1, tmp_path / "m")
    again = inspect_source(made.folder / "data.parquet", declared=COLUMNS)
    real = materialise(again.path, COLUMNS, again.fingerprint, tmp_path / "r", reading=again.reading)
    left, right = (pq.read_schema(s.folder / "data.parquet") for s in (made, real))
    assert [(f.name, str(f.type)) for f in left] == [(f.name, str(f.type)) for f in right]
    assert (made.folder / "schema.json").read_bytes() == (real.folder / "schema.json").read_bytes()
    assert made.folder.stat().st_mode == real.folder.stat().st_mode


def test_no_privacy_unit_contributes_more_rows_than_is_declared(tmp_path: Path) -> None:
    """The first rows of each unit in the source's order; rows that name no unit are one unit together."""
    from enterprise_node.materialise import Grant, materialise_here

    rows = [("a", 1), ("b", 2), ("a", 3), ("", 4), ("a", 5), ("", 6), ("b", 7), ("", 8)]
    source = tmp_path / "units.csv"
    source.write_text("machine,x\n" + "".join(f"{unit},{x}\n" for unit, x in rows), encoding="utf-8")
    found = inspect_source(source)
    x = tuple(column for column in found.columns if column.name == "x")  # the unit itself need not be granted

    def taken(name: str, **unit: Any) -> list[int]:
        grant = Grant(found.place, found.reading, found.fingerprint, x, **unit)
        snapshot = materialise_here(grant, tmp_path / name)
        values = pq.read_table(snapshot.folder / "data.parquet")["x"].to_pylist()
        assert snapshot.rows == len(values)
        return [int(value) for value in values]

    assert taken("two", unit="machine", unit_rows=2) == [1, 2, 3, 4, 6, 7]
    assert taken("one", unit="machine", unit_rows=1) == [1, 2, 4]
    assert taken("all") == taken("rows", unit="", unit_rows=1) == [1, 2, 3, 4, 5, 6, 7, 8]
