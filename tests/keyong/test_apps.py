"""What a job is made from: the app's settings, its outputs, times and names as people write them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.errors import UsageError
from keyong.cli._app import AppError, load_app, parse_settings
from keyong.cli._clauses import qualified
from keyong.cli._context import moment, split_dataset
from keyong.cli.job_check import read_schema
from tests.keyong.conftest import Run

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PROJECT = """
[project]
name = "lin"
version = "0.1.0"
[tool.flwr.app]
publisher = "x"
[tool.flwr.app.components]
serverapp = "lin:server"
clientapp = "lin:client"
[tool.flwr.app.config]
num-server-rounds = 3
lr = 0.3
name = "seven"
quick = false
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "lin.py").write_text("", encoding="utf-8")
    return folder


def test_settings_take_the_app_s_types(app: Path) -> None:
    loaded = load_app(app, ["lr=1", "name=7", "quick=true", "num-server-rounds=5"], None)
    assert loaded.config == {"lr": 1.0, "name": "7", "quick": True, "num-server-rounds": 5}
    assert isinstance(loaded.config["lr"], float)
    assert loaded.outputs is None


@pytest.mark.parametrize(
    ("text", "part"), [("momentum=1", "it declares: lr, name"), ("lr", "write --config"), ("=1", "write --config")]
)
def test_unknown_settings_name_the_known_ones(app: Path, text: str, part: str) -> None:
    with pytest.raises(AppError) as caught:
        load_app(app, [text], None)
    assert part in caught.value.hint


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", 1), ("1.5", 1.5), ("true", True), ("'x'", "x"), ("plain words", "plain words"), ("[1]", "[1]")],
)
def test_values_are_toml_or_text(value: str, expected: object) -> None:
    assert parse_settings([f"a={value}"], {"a": 0}) == {"a": expected}


def test_outputs_come_from_a_file_or_the_app(app: Path, tmp_path: Path) -> None:
    file = tmp_path / "outputs.toml"
    file.write_text('[train]\narrays = "sent"\nmetrics = ["loss"]\n', encoding="utf-8")
    outputs = load_app(app, [], file).outputs
    assert outputs is not None and [metric.name for metric in outputs.train.metrics] == ["loss"]
    file.write_text("[train]\nsurprise = 1\n", encoding="utf-8")
    with pytest.raises(UsageError):
        load_app(app, [], file)
    with pytest.raises(UsageError):
        load_app(app, [], tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", datetime(2026, 7, 30, 12, tzinfo=UTC)),
        ("10s", datetime(2026, 5, 1, 12, 0, 10, tzinfo=UTC)),
        ("2h", datetime(2026, 5, 1, 14, tzinfo=UTC)),
        ("2027-06-30", datetime(2027, 7, 1, tzinfo=UTC)),
        ("2026-05-01", datetime(2026, 5, 2, tzinfo=UTC)),
        ("2027-06-30T12:00:00+08:00", datetime(2027, 6, 30, 4, tzinfo=UTC)),
    ],
)
def test_times_as_people_write_them(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["soon", "0d", "2020-01-01", "d", "-5d"])
def test_times_that_are_none_or_past_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        moment(text, NOW)


def test_terms_and_dataset_names() -> None:
    assert qualified("train", ("fed:train",)) == qualified("fed:train", ("fed:train",)) == "fed:train"
    with pytest.raises(UsageError):
        qualified("steal", ("fed:train",))
    assert split_dataset("mill-a/passes") == ("mill-a", "passes")
    for text in ("passes", "/passes", "a/", "a/b/c"):
        with pytest.raises(UsageError):
            split_dataset(text)


def test_a_schema_file_is_toml_or_what_the_catalog_prints(tmp_path: Path) -> None:
    file = tmp_path / "schema.toml"
    file.write_text('[[columns]]\nname = "x"\ntype = "number"\n', encoding="utf-8")
    assert read_schema(file)[0].name == "x"
    other = tmp_path / "schema.json"
    other.write_text('{"columns": [{"name": "y", "type": "text"}]}', encoding="utf-8")
    assert read_schema(other)[0].type == "text"
    other.write_text('{"columns": [{"name": "y", "type": "colour"}]}', encoding="utf-8")
    with pytest.raises(UsageError):
        read_schema(other)


def test_check_wants_either_a_dataset_or_a_schema(keyong: Run, app: Path, runtimes: Path) -> None:
    ran = keyong("job", "check", app)
    assert ran.code == 2 and "--dataset MEMBER/DATASET or --schema FILE" in ran.err
    ran = keyong("job", "check", app.parent / "nowhere", "--schema", "x")
    assert ran.code == 2 and "is not a folder" in ran.err


def test_without_a_runtime_the_hint_says_how_to_build_one(
    keyong: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYONG_RUNTIMES", str(tmp_path / "none"))
    ran = keyong("job", "check", app, "--schema", "x")
    assert ran.code == 5 and "hint: build it: keyong node runtime build" in ran.err
