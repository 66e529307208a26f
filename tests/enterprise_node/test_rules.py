"""Desensitisation rules: what each does to values and to the schema, what of it stays secret, what is refused."""

from __future__ import annotations

import hmac
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enterprise_node import extraction
from enterprise_node.datasets import SourceDescription, data_version, inspect_source, parse_column
from enterprise_node.materialise import Grant, Snapshot, materialise_here
from enterprise_node.rules import (
    KEY_BYTES,
    Codes,
    Kept,
    Pseudonym,
    Rules,
    RulesError,
    after,
    check_fit,
    describe_rules,
    parse_rules,
    read_rules,
)
from enterprise_node.rules.kept import MAX_CODES, RulesKeyError, derive
from enterprise_node.source_file import DatasetChangedError
from federation.errors import UnavailableError

CSV = """operator,coil,grade,force,thick,day,at,n
Bob,c1,Q235,12.34,3.7,2024-01-05,2024-01-05 08:31:07,17
Al,c1,Q355,-1.26,0.3,2024-02-05,2024-01-06 08:31:07,-17
Bob,c2,Q235,,25,,,
"""
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def source(tmp_path: Path) -> SourceDescription:
    (tmp_path / "a.csv").write_text(CSV)
    return inspect_source(tmp_path / "a.csv")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    (tmp_path / "home" / "keys").mkdir(parents=True, mode=0o700)
    made = Kept(tmp_path / "home", "passes")
    made.ensure_key()
    return made


class Made:
    """Snapshots of one source under rules, each read back by column."""

    def __init__(self, source: SourceDescription, kept: Kept, folder: Path) -> None:
        self.source, self.kept, self.folder, self.count = source, kept, folder, 0

    def snapshot(self, toml: str, agreement: str = A, *, counting: bool = False) -> Snapshot:
        rules = parse_rules(toml)
        check_fit(self.source.columns, rules)
        self.count += 1
        one = self.source
        grant = Grant(one.place, one.reading, one.fingerprint, one.columns, rules, self.kept, agreement)
        return materialise_here(grant, self.folder / f"s{self.count}", counting=counting)

    def __call__(self, toml: str, agreement: str = A) -> dict[str, list[Any]]:
        table = pq.read_table(self.snapshot(toml, agreement).folder / "data.parquet")
        found: dict[str, list[Any]] = table.to_pydict()
        return found


@pytest.fixture
def made(source: SourceDescription, kept: Kept, tmp_path: Path) -> Made:
    return Made(source, kept, tmp_path)


def test_a_dropped_column_is_nowhere(made: Made) -> None:
    snapshot = made.snapshot('[columns.operator]\nrule = "drop"')
    for file in snapshot.folder.iterdir():
        assert b"Bob" not in file.read_bytes() and b"operator" not in file.read_bytes()
    assert "operator" in made('[columns.coil]\nrule = "pseudonym"'), "without the rule it is there"


def test_pseudonyms_are_hmac_sha_256_and_hang_on_the_agreement(made: Made, kept: Kept) -> None:
    one = made('[columns.coil]\nrule = "pseudonym"')["coil"]
    key = hmac.digest(kept.key_file.read_bytes(), f"keyong-rules-1\0pseudonym\0{A}".encode(), "sha256")
    assert one == [hmac.digest(key, name, "sha256").hex()[:20] for name in (b"c1", b"c1", b"c2")]
    assert made('[columns.coil]\nrule = "pseudonym"')["coil"] == one
    other = made('[columns.coil]\nrule = "pseudonym"', B)["coil"]
    assert not set(one) & set(other) and other[0] == other[1] != other[2]
    wide = [made('[columns.coil]\nrule = "pseudonym"\nscope = "dataset"', name)["coil"] for name in (A, B)]
    assert wide[0] == wide[1] != one


def test_another_key_makes_other_pseudonyms_and_no_key_makes_none(made: Made, kept: Kept) -> None:
    one = made('[columns.coil]\nrule = "pseudonym"')["coil"]
    kept.key_file.unlink()
    with pytest.raises(RulesKeyError):
        made('[columns.coil]\nrule = "pseudonym"')
    kept.ensure_key()
    assert len(kept.key_file.read_bytes()) == KEY_BYTES and kept.key_file.stat().st_mode & 0o777 == 0o600
    assert not set(one) & set(made('[columns.coil]\nrule = "pseudonym"')["coil"])
    assert derive(b"k" * 32, Pseudonym(), A) != derive(b"k" * 32, Pseudonym(), B)


def test_codes_are_stable_and_their_map_is_the_owners(made: Made, kept: Kept) -> None:
    toml = '[columns.grade]\nrule = "codes"\nprefix = "G{value}\'-"'
    one = made(toml)["grade"]
    assert one[0] == one[2] != one[1] and all(code.startswith("G{value}'-") and len(code) == 15 for code in one)
    assert made(toml, B)["grade"] == one
    rows = kept.maps.rows()
    assert {value: "G{value}'-" + code for _, _, value, code in rows} == {"Q235": one[0], "Q355": one[1]}
    assert kept.maps.path.stat().st_mode & 0o777 == 0o600
    mine = made('[columns.grade]\nrule = "codes"\nscope = "agreement"', B)["grade"]
    assert not set(mine) & {code.removeprefix("G{value}'-") for code in one}


def test_a_map_has_an_end(kept: Kept) -> None:
    with pytest.raises(UnavailableError, match="more different values"):
        kept.maps.codes("coil", "", [str(number) for number in range(MAX_CODES + 1)])
    assert kept.maps.rows() == []
    codes = kept.maps.codes("coil", "", ["a", "b"])
    assert len(set(codes.values())) == 2 and kept.maps.codes("coil", "", ["b"])["b"] == codes["b"]


def test_rounding_and_buckets(made: Made) -> None:
    assert made("[columns.force]\nrule = 'round'\nstep = 0.5")["force"] == [12.5, -1.5, None]
    assert made("[columns.force]\nrule = 'round'\nstep = 0.1")["force"] == [12.3, -1.3, None]
    assert made("[columns.n]\nrule = 'round'\nstep = 5")["n"] == [15, -15, None]
    assert made("[columns.n]\nrule = 'round'\nstep = 10")["n"] == [20, -20, None]
    assert made("[columns.n]\nrule = 'bucket'\nwidth = 5")["n"] == [15, -20, None]
    assert made("[columns.thick]\nrule = 'bucket'\nwidth = 0.1")["thick"] == [3.7, 0.3, 25.0]
    edges = "[columns.thick]\nrule = 'bucket'\nedges = [0.3, 10, 20]"
    assert made(edges)["thick"] == ["0.3 .. 10", "0.3 .. 10", ">= 20"]
    assert made("[columns.at]\nrule = 'round'\nto = 'hour'")["at"][0] == datetime(2024, 1, 5, 8)
    assert made("[columns.day]\nrule = 'round'\nto = 'month'")["day"] == [date(2024, 1, 1), date(2024, 2, 1), None]


def test_shifts_keep_what_lies_between(made: Made) -> None:
    plain = [date(2024, 1, 5), date(2024, 2, 5), None]
    both = "[columns.day]\nrule = 'shift'\ndays = 30\n[columns.at]\nrule = 'shift'\ndays = 30"
    one = made(both)
    moved = (one["day"][0] - plain[0]).days
    assert moved != 0 and abs(moved) <= 30 and (one["day"][1] - one["day"][0]).days == 31 and one["day"][2] is None
    assert (one["at"][0] - datetime(2024, 1, 5, 8, 31, 7)).days == moved and one["at"][0].minute == 31
    assert made(both)["day"] == one["day"]
    # Each unit has a number of its own, the same for all its rows.
    each = made("[columns.day]\nrule = 'shift'\ndays = 3000\nunit = 'coil'")["day"]
    assert (each[1] - each[0]).days == 31 and each != one["day"]
    assert len({made("[columns.day]\nrule = 'shift'\ndays = 3000", f"{n}")["day"][0] for n in range(4)}) > 1


@pytest.mark.parametrize("unit", ["", "unit"])
def test_shifts_are_spread_evenly_and_are_never_none(unit: str, kept: Kept) -> None:
    import duckdb

    from enterprise_node.rules import Shift
    from enterprise_node.rules.expressions import constant_shift, ruled

    rule = Shift(3, unit)
    if unit:
        moved = ruled("DATE '2024-01-04'", "date", rule, b"k" * 32, "CAST(u AS VARCHAR)")
        rows = duckdb.sql(f"SELECT {moved} FROM range(3000) t(u)").fetchall()
        found = [(row[0] - date(2024, 1, 4)).days for row in rows]
    else:
        found = [constant_shift(rule, hmac.digest(b"k", str(n).encode(), "sha256")) for n in range(3000)]
    assert {day: found.count(day) > 400 for day in (-3, -2, -1, 1, 2, 3)} == dict.fromkeys((-3, -2, -1, 1, 2, 3), True)
    assert 0 not in found


def test_the_schema_is_published_as_the_rules_leave_it(source: SourceDescription) -> None:
    columns = [
        one.model_copy(update={"minimum": "0", "maximum": "29.9"}) if one.name in ("thick", "force") else one
        for one in source.columns
    ]
    toml = """
columns.operator = {rule = "drop"}
columns.coil = {rule = "pseudonym"}
columns.force = {rule = "round", step = 5}
columns.thick = {rule = "bucket", edges = [1, 2]}
columns.n = {rule = "round", step = 0.5}
"""
    shown = {one.name: one for one in after(columns, parse_rules(toml))}
    assert "operator" not in shown
    assert (shown["coil"].type, shown["n"].type, shown["day"].type) == ("text", "number", "date")
    assert (shown["force"].minimum, shown["force"].maximum) == ("0", "30")
    assert shown["thick"].categories == ("< 1", "1 .. 2", ">= 2") and shown["thick"].maximum is None
    assert "pseudonym" in shown["coil"].description


def test_digest_and_data_version_change_with_the_rules_and_with_nothing_else(source: SourceDescription) -> None:
    one = parse_rules("[columns.force]\nrule = 'round'\nstep = 0.50")
    same = parse_rules("# the same\nformat = 1\n[columns.force]\nstep = 0.5\nrule = 'round'")
    assert one.digest == same.digest == read_rules(one.canonical().decode()).digest
    assert one.digest != parse_rules("[columns.force]\nrule = 'round'\nstep = 5").digest
    assert read_rules("").digest == Rules({}).digest == ""
    versions = {
        data_version(source.fingerprint, source.columns, source.reading, rules)
        for rules in (one, same, Rules({}), parse_rules("[columns.n]\nrule = 'drop'"))
    }
    assert len(versions) == 3 and source.data_version in versions


def test_changed_values_are_counted(made: Made) -> None:
    snapshot = made.snapshot(
        "[columns.n]\nrule = 'bucket'\nwidth = 17\n[columns.coil]\nrule = 'pseudonym'", counting=True
    )
    assert dict(snapshot.changed) == {"n": 0, "coil": 3} and snapshot.rules.startswith("sha256:")


def test_rules_in_words(source: SourceDescription) -> None:
    toml = """
columns.operator = {rule = "drop"}
columns.coil = {rule = "pseudonym", scope = "dataset"}
columns.grade = {rule = "codes"}
columns.force = {rule = "round", step = 0.5}
columns.thick = {rule = "bucket", edges = [1, 2]}
columns.day = {rule = "shift", days = 30, unit = "coil"}
columns.at = {rule = "round", to = "month"}
columns.n = {rule = "bucket", width = 5}
"""
    rules = parse_rules(toml)
    english, chinese = describe_rules(rules, "en"), describe_rules(rules, "zh")
    assert len(english) == len(chinese) == 8 == len({*english, *chinese}) // 2
    assert english[3] == "force: rounded to multiples of 0.5" and chinese[3] == "force：取整到 0.5 的倍数"
    assert "月" in chinese[6] and "30" in english[5] and "coil" in english[5]


BAD = {
    "not TOML": "columns = [",
    "no rule": "[columns.force]\nstep = 1",
    "unknown rule": "[columns.force]\nrule = 'noise'",
    "unknown option": "[columns.force]\nrule = 'round'\nstep = 1\nseed = 3",
    "both": "[columns.force]\nrule = 'round'\nstep = 1\nto = 'hour'",
    "zero": "[columns.force]\nrule = 'round'\nstep = 0",
    "not finite": "[columns.force]\nrule = 'round'\nstep = inf",
    "text": "[columns.force]\nrule = 'round'\nstep = '1'",
    "edges": "[columns.force]\nrule = 'bucket'\nedges = [2, 1]",
    "empty": "",
    "stray": "[rules.force]\nrule = 'drop'",
    "dots": "[columns.a.b]\nrule = 'drop'",
    "days": "[columns.day]\nrule = 'shift'\ndays = 0",
    "itself": "[columns.day]\nrule = 'shift'\ndays = 9\nunit = 'day'",
    "scope": "[columns.coil]\nrule = 'pseudonym'\nscope = 'world'",
    "format": "format = 2\n[columns.n]\nrule = 'drop'",
    "calendar": "[columns.day]\nrule = 'round'\nto = 'century'",
}
UNFIT = {
    "no such column": "[columns.speed]\nrule = 'drop'",
    "no such unit": "[columns.day]\nrule = 'shift'\ndays = 9\nunit = 'strip'",
    "a number's": "[columns.coil]\nrule = 'round'\nstep = 1",
    "a date's": "[columns.force]\nrule = 'shift'\ndays = 9",
    "a time's": "[columns.day]\nrule = 'round'\nto = 'hour'",
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_rules_are_refused(name: str) -> None:
    with pytest.raises(RulesError) as refused:
        parse_rules(BAD[name])
    assert refused.value.message and refused.value.exit_code == 2


@pytest.mark.parametrize("name", UNFIT)
def test_rules_that_do_not_fit_are_refused(name: str, source: SourceDescription) -> None:
    with pytest.raises(RulesError):
        check_fit(source.columns, parse_rules(UNFIT[name]))


def test_rules_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a\n1\n")
    with pytest.raises(RulesError, match="no column"):
        after(inspect_source(tmp_path / "one.csv").columns, parse_rules("[columns.a]\nrule = 'drop'"))


def test_a_shift_by_a_unit_that_is_gone_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("day\n2024-01-05\n")
    one = inspect_source(tmp_path / "b.csv", declared=[parse_column("day:date")])
    rules = parse_rules("[columns.day]\nrule = 'shift'\ndays = 9\nunit = 'coil'")
    grant = Grant(one.place, one.reading, one.fingerprint, one.columns, rules, made.kept, A)
    with pytest.raises(DatasetChangedError):
        materialise_here(grant, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_secrets_stand_in_no_representation(made: Made, kept: Kept, tmp_path: Path) -> None:
    one = made.source
    rules = parse_rules("[columns.coil]\nrule = 'pseudonym'")
    order = Grant(one.place, one.reading, one.fingerprint, one.columns, rules, kept, A).order(tmp_path, tmp_path)
    assert order.secrets["coil"] not in repr(order) and order.secrets["coil"] in json.dumps(order.document())
    assert Codes().prefix == ""


def _columnar(folder: Path, name: str) -> SourceDescription:
    """Rows of which few differ in coil and unit, with what SQL might stumble over."""
    coils = ["c'1", "钢卷 2", None, 'c"3', ""]
    days = [date(2024, 1, 1 + row % 20) for row in range(200)]
    table = pa.table({"coil": [coils[row % 5] for row in range(200)], "day": days, "n": list(range(200))})
    pq.write_table(table, folder / name)
    return inspect_source(folder / name)


def test_values_that_are_looked_up_are_those_that_each_row_would_get(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _columnar(tmp_path, "a.parquet")
    toml = "[columns.coil]\nrule = 'pseudonym'\n[columns.day]\nrule = 'shift'\ndays = 40\nunit = 'coil'"
    real, made = extraction.keyed_list, []
    monkeypatch.setattr(extraction, "keyed_list", lambda *of: made.append(of) or real(*of))
    looked_up = Made(source, kept, tmp_path).snapshot(toml)
    assert len(made) == 2, "nothing was looked up"
    for limit, value in (("_MOST_LOOKED_UP", 3), ("_LONGEST_LOOKED_UP", 2), ("_ROWS_PER_VALUE", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(extraction, limit, value)
            (tmp_path / limit).mkdir()
            assert Made(source, kept, tmp_path / limit).snapshot(toml).digest == looked_up.digest
    assert len(made) == 2, "beyond a limit each row's is computed"
    shown = pq.read_table(looked_up.folder / "data.parquet").to_pydict()
    secret = kept.secret(Pseudonym(), A)
    assert shown["coil"][:3] == [
        *(hmac.digest(secret, v.encode(), "sha256").hex()[:20] for v in ("c'1", "钢卷 2")),
        None,
    ]


def test_a_column_without_a_value_has_no_pseudonym(tmp_path: Path, kept: Kept) -> None:
    columns = {"coil": pa.array([None] * 9, pa.string()), "day": [date(2024, 1, 1)] * 9}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    toml = "[columns.coil]\nrule = 'pseudonym'\n[columns.day]\nrule = 'shift'\ndays = 40\nunit = 'coil'"
    shown = Made(inspect_source(tmp_path / "c.parquet"), kept, tmp_path)(toml)
    assert shown["coil"] == [None] * 9 and len(set(shown["day"])) == 1


def test_where_most_values_differ_none_is_looked_up(
    tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"coil": [f"c{row}" for row in range(5000)]}), tmp_path / "b.parquet")
    monkeypatch.setattr(extraction, "keyed_list", lambda *_: pytest.fail("looked up"))
    made = Made(inspect_source(tmp_path / "b.parquet"), kept, tmp_path)("[columns.coil]\nrule = 'pseudonym'")
    assert len(set(made["coil"])) == 5000
