"""Describing an owner's file: every value is judged, none is published or shown."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enterprise_node import datasets
from enterprise_node._duckdb import confined
from enterprise_node.datasets import SourceDescription, data_version, inspect_source, parse_column
from federation.errors import KeyongError, UsageError
from federation.statements import Column
from tests.shared import SHARED

SECRET = "s3cr3t"

Write = Callable[[str, bytes | str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return put


def types(description: SourceDescription) -> dict[str, str]:
    return {column.name: column.type for column in description.columns}


MILL = (
    "coil,passes,force_kN,hot,rolled_on,started,grade,note\r\n"
    '0017,3,1.5e3,true,2024-01-05,2024-01-05 08:30:00,Q355B,"a, ""b"""\r\n'
    "0018,-4,.5,FALSE,2024/1/6,2024/1/6 8:30,Q235,\r\n"
    '0019, 5 ,12.,true,2024-12-31,2024-01-05T08:30:00.25Z,"Q3\n90",x\r\n'
)


def test_types_are_found_and_nothing_else_is_taken_from_the_values(write: Write) -> None:
    found = inspect_source(write("mill.csv", MILL))
    assert types(found) == {
        "coil": "text",  # leading zeros: a code, not a number
        "passes": "integer",
        "force_kN": "number",
        "hot": "boolean",
        "rolled_on": "date",
        "started": "timestamp",
        "grade": "text",
        "note": "text",
    }
    assert (found.rows, found.kind, found.problems) == (3, "csv", ())
    assert [column.name for column in found.columns if column.nullable] == ["note"]
    assert all((c.minimum, c.maximum, c.categories) == (None, None, ()) for c in found.columns)


@pytest.mark.parametrize("name", ["mill.csv.gz", "mill.tsv", "mill.tsv.gz", "semi.csv", "marked.csv", "we*ird[1]'.csv"])
def test_the_same_table_in_other_dress(write: Write, name: str) -> None:
    text = "a,b\n1,x\n2,y\n"
    if "tsv" in name:
        text = text.replace(",", "\t")
    elif name == "semi.csv":
        text = text.replace(",", ";")
    elif name == "marked.csv":
        text = "\ufeff" + text
    found = inspect_source(write(name, text))
    assert types(found) == {"a": "integer", "b": "text"}
    assert found.rows == 2


def test_a_name_that_is_a_pattern_names_one_file(write: Write) -> None:
    write("ab.csv", "x\nb\n")
    for name in ("a*.csv", "a?.csv", "[a]b.csv"):
        found = inspect_source(write(name, "x\n1\n"))
        assert (found.rows, found.columns[0].type) == (1, "integer")


def test_a_value_far_down_changes_the_type_of_the_whole_column(write: Write) -> None:
    lines = [f"{i},{i},2024-01-01" for i in range(3000)]
    lines[2500] = "2.5,x,2024-01-01 10:00"
    found = inspect_source(write("long.csv", "a,b,c\n" + "\n".join(lines) + "\n"))
    assert types(found) == {"a": "number", "b": "text", "c": "timestamp"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "123456789012345678"], "integer"),
        (["1", "1234567890123456789"], "text"),
        (["1.5", "nan"], "text"),
        (["1.5", "1e999"], "text"),
        (["1_000", "1"], "text"),
        (["0x10"], "text"),
        (["true", "1"], "text"),
        (["2024-02-30"], "text"),
        (["2024-01-01", "2024-01-01 25:00"], "text"),
        (["1", "", "  "], "integer"),
    ],
)
def test_what_only_looks_like_a_type_is_not_one(write: Write, values: list[str], expected: str) -> None:
    rows = "".join(f"{value},x\n" for value in values)
    assert types(inspect_source(write("t.csv", "a,b\n" + rows)))["a"] == expected


def test_gbk_files_are_recognised_and_read(write: Write) -> None:
    text = "钢种,轧制力\nQ355B低合金,12.5\n碳素结构钢,13\n"
    path = write("轧机.csv", text.encode("gbk"))
    with pytest.raises(UsageError) as refused:
        inspect_source(path)
    assert refused.value.params["encoding"] == "gb18030"
    assert "--encoding gb18030" in refused.value.hint
    for name in ("gb18030", "GBK", "gb2312"):
        found = inspect_source(path, encoding=name)
        assert types(found) == {"钢种": "text", "轧制力": "number"}
        assert found.reading.encoding == "gb18030"
    packed = write("轧机.csv.gz", text.encode("gb18030"))
    assert inspect_source(packed, encoding="gb18030").rows == 2
    assert inspect_source(write("u.csv", text.encode("utf-16")), encoding="utf-16").rows == 2
    with pytest.raises(UsageError, match="utf-16"):
        inspect_source(write("u.csv", text.encode("utf-16")))


def test_the_decoded_copy_is_gone_afterwards(write: Write, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    inspect_source(write("g.csv", "名\n值\n".encode("gbk")), encoding="gbk", work=work)
    assert list(work.iterdir()) == []


BAD: list[tuple[str, bytes | str, str]] = [
    ("empty.csv", "", "is empty"),
    ("empty.parquet", b"", "is empty"),
    ("header.csv", "a,b\n", "no rows"),
    ("blank.csv", "\n1,2\n", "names no columns"),
    ("numbers.csv", "1.5,2\n3,4\n", "numbers where the column names should be"),
    ("twice.csv", f"{SECRET},b,{SECRET}\n1,2,3\n", "columns 1 and 3"),
    ("case.csv", "A,b,a\n1,2,3\n", "columns 1 and 3"),
    ("unnamed.csv", "a,,c\n1,2,3\n", "column 2"),
    ("short.csv", f"a,b\n1,2\n{SECRET}\n3,4\n", "short.csv has not as many fields as the header: 1, not 2"),
    ("long.csv", f"a,b\n1,2,{SECRET}\n", "line 2 of"),
    ("quote.csv", f'a,b\n1,"{SECRET}\n3,4\n', "quote.csv holds a quote"),
    ("latin.csv", b"a,b\n1,\xff\xff" + SECRET.encode(), "latin.csv is not utf-8, first in line 2"),
    ("late.csv", b"a,b\n" + b"1,2\n" * 400_000 + b"1,\xff\xff" + SECRET.encode(), "is not utf-8, first in line 400002"),
    ("sheet.xlsx", "a,b\n1,2\n", "neither a CSV nor a Parquet"),
    ("data.json", "{}", "neither a CSV nor a Parquet"),
    ("fake.parquet", f"{SECRET}\n", "not a Parquet"),
    ("torn.parquet", b"PAR1" + SECRET.encode() + b"PAR1", "damaged"),
    ("plain.csv.gz.csv", gzip.compress(b"a\n1\n"), "disagree on gzip"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_files_that_are_none_are_refused_without_a_value(
    write: Write, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        inspect_source(write(name, content))
    text = f"{refused.value.message} {refused.value.hint}"
    assert message in text
    assert SECRET not in text
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_places_that_are_no_files_are_refused(tmp_path: Path, write: Write) -> None:
    (tmp_path / "folder.csv").mkdir()
    with zipfile.ZipFile(tmp_path / "renamed.csv", "w") as archive:
        archive.writestr("a", "b")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 1000)[:-9])
    for name, message in (
        ("folder.csv", "the folder .* holds no file"),
        ("absent.csv", "no file"),
        ("renamed.csv", "neither"),
        ("torn.csv.gz", "damaged gzip"),
    ):
        with pytest.raises(UsageError, match=message):
            inspect_source(tmp_path / name)
    with pytest.raises(UsageError, match="not known"):
        inspect_source(write("a.csv", "a\n1\n"), encoding="klingon")
    for delimiter in (",,", '"', "\n", "\uff0c"):
        with pytest.raises(UsageError, match="delimiter"):
            inspect_source(write("a.csv", "a\n1\n"), delimiter=delimiter)


def test_a_declared_type_is_checked_to_the_last_row_and_the_value_is_not_shown(write: Write) -> None:
    rows = "".join(f"{i}\n" for i in range(1, 5000)) + f"{SECRET}\n7\n"
    with pytest.raises(UsageError) as refused:
        inspect_source(write("t.csv", "force\n" + rows), declared=[parse_column("force:number")])
    assert "data row 5000" in refused.value.message
    assert SECRET not in f"{refused.value.message} {refused.value.hint} {refused.value.params}"


def test_declared_types_are_taken_at_their_word(write: Write) -> None:
    path = write("t.csv", "code,flag,level,day\n007,yes,+5,2024/1/5\n008,0,06,2024-1-6\n")
    names = ["code:integer", "flag:boolean", "level:number", "day:timestamp"]
    found = inspect_source(path, declared=[parse_column(name) for name in names])
    assert types(found) == {"code": "integer", "flag": "boolean", "level": "number", "day": "timestamp"}
    assert types(inspect_source(path)) == {"code": "text", "flag": "text", "level": "text", "day": "date"}
    with pytest.raises(UsageError, match="no column colour"):
        inspect_source(path, declared=[parse_column("colour:text")])


def test_marks_for_missing_values_are_the_owner_s_to_name(write: Write) -> None:
    path = write("t.csv", "a,b\n1,x\nNA,y\n-,z\n")
    assert types(inspect_source(path))["a"] == "text"
    found = inspect_source(path, null_values=("NA", "-"))
    assert (found.columns[0].type, found.columns[0].nullable) == ("integer", True)


def test_bounds_are_the_owner_s_and_values_outside_them_are_told_by_row(write: Write) -> None:
    declared = [
        Column(name="t", type="number", unit="°C", minimum="0", maximum="1500.5"),
        Column(name="g", type="text", categories=("Q235", "Q355's")),
    ]
    found = inspect_source(write("t.csv", f"t,g,e\n1,Q235,\n1500.5,Q355's,\n1501,{SECRET},\n"), declared=declared)
    assert found.columns[0] == declared[0]
    assert found.columns[1] == declared[1]
    told = [problem.message for problem in found.problems]
    assert [message.split()[1] for message in told] == ["t", "g", "e"]
    assert told[0].endswith("data row 3")
    assert told[2] == "column e holds no value in any row"
    assert SECRET not in " ".join(told)


def test_column_options() -> None:
    assert parse_column("a:b:number") == Column(name="a:b", type="number")
    for option in ("a", "a:float", ":number", 'a":text'):
        with pytest.raises(UsageError):
            parse_column(option)


def test_parquet_types(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    duckdb.sql(
        f"""COPY (SELECT 1::TINYINT AS i, 2::UBIGINT AS u, 18446744073709551615::UBIGINT AS huge, 1.5::FLOAT AS f,
        1.25::DECIMAL(9,2) AS d, 'x' AS t, true AS b, DATE '2024-01-01' AS day, TIMESTAMP '2024-01-01 10:00' AS at,
        [1, 2] AS list, {{'k': 1}} AS struct, NULL::INTEGER AS none) TO '{path}' (FORMAT parquet)"""
    )
    found = inspect_source(path)
    assert types(found) == {
        "i": "integer",
        "u": "integer",
        "huge": "number",  # beyond 64 bits with sign
        "f": "number",
        "d": "number",
        "t": "text",
        "b": "boolean",
        "day": "date",
        "at": "timestamp",
        "none": "integer",
    }
    assert found.kind == "parquet"
    assert {problem.params["name"] for problem in found.problems} == {"list", "struct", "none"}
    with pytest.raises(UsageError, match="cannot be read as integer"):
        inspect_source(path, declared=[parse_column("f:integer")])


def test_parquet_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    nested = pa.array([{"A": 1, "b": {"c": 2}}])  # names within a structure are no columns
    pq.write_table(pa.table([nested, pa.array([1]), pa.array([2])], names=["s", "A", "a"]), path)
    with pytest.raises(UsageError, match="columns 2 and 3"):
        inspect_source(path)


def test_a_file_that_changes_while_it_is_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("t.csv", "a,b\n1,x\n")
    real = datasets.table

    def change(*arguments: Any) -> str:
        path.write_text("a,b\n2,x\n")
        return real(*arguments)

    monkeypatch.setattr(datasets, "table", change)
    with pytest.raises(UsageError, match="changed while it was read"):
        inspect_source(path)


def test_versions_change_with_bytes_schema_and_reading(write: Write) -> None:
    one = inspect_source(write("t.csv", "a,b\n1,x\n"))
    assert one.data_version == inspect_source(one.path).data_version
    others = [
        inspect_source(one.path, declared=[parse_column("a:number")]).data_version,
        inspect_source(one.path, null_values=("NA",)).data_version,
        inspect_source(write("t.csv", "a,b\n2,x\n")).data_version,
        data_version(one.fingerprint, one.columns[:1], one.reading),
    ]
    assert len({one.data_version, *others}) == 5


def test_inv3_duckdb_can_reach_one_file_and_nothing_else(write: Write, tmp_path: Path) -> None:
    allowed, other = write("a.csv", "a\n1\n"), write("b.csv", f"a\n{SECRET}\n")
    out = tmp_path / "out.csv"
    forbidden = [
        f"SELECT * FROM read_csv('{other}')",
        f"SELECT * FROM read_text('{other}')",
        f"SELECT * FROM '{other}'",
        f"SELECT * FROM read_csv('{tmp_path}/*.csv')",
        f"COPY (SELECT 1) TO '{out}'",
        f"ATTACH '{tmp_path}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '1TB'",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    ]
    with confined(tmp_path, allowed) as connection:
        assert connection.execute(f"SELECT count(*) FROM read_csv('{allowed}')").fetchone() == (1,)
    for query in forbidden:
        with pytest.raises(KeyongError) as refused, confined(tmp_path, allowed) as connection:
            connection.execute(query)
        assert SECRET not in str(refused.value)
    assert not out.exists()
    free = duckdb.connect()  # the fence, not the query, is what stops it
    assert free.execute(forbidden[0]).fetchall() == [(SECRET,)]


@pytest.mark.parametrize(
    "name", ["ai4i2020/ai4i2020.csv", "gas_turbine/gt_2011.csv.gz", "pjm_hourly/AEP_hourly.csv.gz"]
)
def test_real_files(name: str) -> None:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no {name} under KEYONG_SHARED")
    found: Any = inspect_source(path)
    assert found.rows > 1000
    assert not found.problems
    assert {column.type for column in found.columns} - {"text"}
