"""A home of an older release: brought to this one by the first command, unless an older process serves it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from federation.home import Home
from federation.stores import HOME_STORE, standing
from keyong import upgrading
from keyong.cli import run
from tests.federation.stores.recordings import rows, unpack_homes


def test_the_first_command_migrates_and_says_where_the_copy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = unpack_homes(tmp_path) / "mill"
    before = rows(home / "store.db")
    assert run(["--home", str(home), "--lang", "en", "whoami"]) == 0
    said = capsys.readouterr().err
    (copy,) = (home / "backups").iterdir()
    assert "store.db was migrated from revision 0.1.0" in said and str(copy) in said and rows(copy) == before
    assert run(["--home", str(home), "--lang", "en", "agreement", "list", "--all"]) == 0
    said = capsys.readouterr()
    assert "Passes" in said.out and "migrated" not in said.err


@pytest.mark.parametrize("role", upgrading.ROLES)
def test_nothing_is_migrated_below_a_process_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setattr(upgrading, "WAIT_SECONDS", 0.0)
    home = Home(unpack_homes(tmp_path) / "institute")
    claim = home.claim(role)
    with pytest.raises(upgrading.StoreInUseError, match=role):
        upgrading.upgrade(home)
    assert not (home.path / "backups").exists()
    claim.release()
    assert [one.path.name for one in upgrading.upgrade(home)] == ["coordinator.db"] and upgrading.upgrade(home) == []


def test_a_newer_store_stops_what_needs_it_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(unpack_homes(tmp_path) / "mill")
    upgrading.upgrade(home)
    with closing(sqlite3.connect(home.path / "store.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    assert standing(home.path / "store.db", HOME_STORE).state == "newer"
    assert run(["--home", str(home.path), "--lang", "en", "whoami"]) == 0
    capsys.readouterr()
    assert run(["--home", str(home.path), "--lang", "en", "agreement", "list"]) == 5
    said = capsys.readouterr().err
    assert "9999" in said and str(home.path / "backups") in said and "Traceback" not in said
