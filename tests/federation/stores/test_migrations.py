"""Stores across releases: migrated after a copy, all or nothing; refused when newer, with the way back."""

from __future__ import annotations

import concurrent.futures
import importlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from coordinator import store as coordinator_store
from coordinator.migrations import COORDINATOR_STORE
from enterprise_node import store as node_store
from federation import holdings
from federation.dataspace import store as dataspace_store
from federation.errors import KeyongError
from federation.release import release
from federation.stores import (
    COPIES,
    HOME_STORE,
    MigrationFailedError,
    Store,
    StoreNewerError,
    StoreOlderError,
    StoreUnreadableError,
    migrate,
    open_engine,
    standing,
)
from tests.federation.stores.recordings import rows, schema, unpack_homes

RECORDED = {
    "node": ("mill/store.db", HOME_STORE),
    "analyst": ("lab/store.db", HOME_STORE),
    "coordinator": ("institute/coordinator.db", COORDINATOR_STORE),
}
MODELS = {HOME_STORE: (holdings, node_store, dataspace_store), COORDINATOR_STORE: (coordinator_store,)}
OWN = {"alembic_version", "store_release"}


@pytest.mark.parametrize("who", RECORDED)
def test_a_store_of_the_first_release_becomes_like_a_new_one_and_loses_nothing(tmp_path: Path, who: str) -> None:
    name, store = RECORDED[who]
    path = unpack_homes(tmp_path) / name
    before = rows(path)
    assert sum(map(len, before.values())) > 0 and standing(path, store).revision == "0.1.0"
    with pytest.raises(StoreOlderError):
        open_engine(path, store)

    done = migrate(path, store)

    assert done is not None and (done.before, done.after) == ("0.1.0", store.newest)
    after = rows(path)
    for table, kept in before.items():
        assert not kept or [{column: row[column] for column in kept[0]} for row in after[table]] == kept, table
    open_engine(tmp_path / "new.db", store).dispose()
    assert schema(path) == schema(tmp_path / "new.db")
    assert rows(done.copy) == before and done.copy.stat().st_mode & 0o777 == 0o600
    assert standing(path, store).release == release() and migrate(path, store) is None
    open_engine(path, store).dispose()


def test_a_table_of_the_other_store_goes_only_where_it_is_empty(tmp_path: Path) -> None:
    path = unpack_homes(tmp_path) / "institute/coordinator.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO seen VALUES ('mail', 3)")
        connection.commit()
    migrate(path, COORDINATOR_STORE)
    after = rows(path)
    assert after["seen"] == [{"box": "mail", "number": 3}] and "holding" not in after


@pytest.mark.parametrize("store", MODELS, ids=lambda store: store.name)
def test_the_migrations_lead_to_what_the_models_say(tmp_path: Path, store: Store) -> None:
    names = {
        model.__tablename__
        for module in MODELS[store]
        for model in vars(module).values()
        if isinstance(model, type) and hasattr(model, "__table__") and model.__module__ == module.__name__
    }
    engine = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    SQLModel.metadata.create_all(engine, [SQLModel.metadata.tables[name] for name in names])
    engine.dispose()
    open_engine(tmp_path / "migrated.db", store).dispose()
    migrated = {name: table for name, table in schema(tmp_path / "migrated.db").items() if name not in OWN}
    assert migrated == schema(tmp_path / "models.db")


@pytest.mark.parametrize("store", MODELS, ids=lambda store: store.name)
def test_revisions_are_one_line(store: Store) -> None:
    previous = None
    folder = Path(str(importlib.import_module(store.migrations).__file__)).parent
    for number, path in enumerate(sorted(folder.glob("r*.py")), start=1):
        module = importlib.import_module(f"{store.migrations}.{path.stem}")
        assert module.revision == f"{number:04d}" == path.stem[1:5] and module.down_revision == previous
        previous = module.revision
    assert previous == store.newest


# -- a release that does not exist yet --------------------------------------------------------------------------------

NEXT = """
import os, sqlalchemy as sa
from alembic import op
revision, down_revision = "{revision}", "{before}"
def upgrade():
    op.create_table("added", sa.Column("a", sa.Integer()))
    op.execute("INSERT INTO added VALUES (1)")
    with op.batch_alter_table("seen") as table:
        table.add_column(sa.Column("later", sa.String(), nullable=True))
    {last}
"""


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """``store.db`` with one more migration, which may end in a way of its own (``indirect`` parameter)."""
    package = f"later_{abs(hash(request.node.name))}"
    folder = tmp_path / "packages" / package
    here = Path(str(importlib.import_module(HOME_STORE.migrations).__file__)).parent
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("__pycache__"))
    revision = f"{int(HOME_STORE.newest) + 1:04d}"
    last = getattr(request, "param", "pass")
    text = NEXT.format(revision=revision, before=HOME_STORE.newest, last=last)
    (folder / f"r{revision}_later.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return Store("store", package)


def current(tmp_path: Path) -> Path:
    path = unpack_homes(tmp_path) / "mill/store.db"
    migrate(path, HOME_STORE)
    return path


def test_a_newer_store_is_refused_with_who_wrote_it_and_the_way_back(tmp_path: Path, later: Store) -> None:
    path = current(tmp_path)
    before = rows(path)
    done = migrate(path, later)
    assert done is not None and rows(path)["added"] == [{"a": 1}]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE store_release SET release = '7.8.9' WHERE revision = ?", (later.newest,))
        connection.commit()
    written = rows(path)
    for attempt in (lambda: open_engine(path, HOME_STORE), lambda: migrate(path, HOME_STORE)):
        with pytest.raises(StoreNewerError) as refused:
            attempt()
        assert refused.value.code == "store-newer" and refused.value.exit_code == 5
        assert "7.8.9" in str(refused.value) and release() in str(refused.value)
        assert later.newest in str(refused.value) and str(done.copy.parent) in refused.value.hint
    assert rows(path) == written

    shutil.copy(done.copy, path)  # the way back that the hint names
    path.with_name("store.db-wal").unlink(missing_ok=True)
    open_engine(path, HOME_STORE).dispose()
    assert rows(path) == before


@pytest.mark.parametrize("later", ["raise RuntimeError('a secret')", "op.execute('no SQL')"], indirect=True)
def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path, later: Store) -> None:
    path = current(tmp_path)
    before, shape = rows(path), schema(path)
    with pytest.raises(MigrationFailedError) as failed:
        migrate(path, later)
    assert "a secret" not in str(failed.value) and "store-" in failed.value.hint
    assert rows(path) == before and schema(path) == shape
    open_engine(path, HOME_STORE).dispose()


@pytest.mark.parametrize("later", ["os._exit(9)"], indirect=True)
def test_a_crash_in_a_migration_leaves_the_store_as_it_was(tmp_path: Path, later: Store) -> None:
    path = current(tmp_path)
    before, shape = rows(path), schema(path)
    code = (
        "import sys; from pathlib import Path; from federation.stores import Store, migrate\n"
        f"sys.path.insert(0, {str(tmp_path / 'packages')!r})\n"
        f"migrate(Path({str(path)!r}), Store('store', {later.migrations!r}))"
    )
    tree = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=tree, check=False).returncode == 9
    assert rows(path) == before and schema(path) == shape
    open_engine(path, HOME_STORE).dispose()


def test_the_newest_copies_are_kept(tmp_path: Path, later: Store) -> None:
    path = current(tmp_path)
    kept = path.read_bytes()
    for _ in range(COPIES + 2):
        path.write_bytes(kept)
        done = migrate(path, later)
    copies = sorted((path.parent / "backups").iterdir())
    assert done is not None and len(copies) == COPIES and copies[-1] == done.copy


def test_without_a_copy_nothing_is_migrated(tmp_path: Path, later: Store) -> None:
    path = current(tmp_path)
    shutil.rmtree(path.parent / "backups")
    (path.parent / "backups").write_text("in the way")
    shape = schema(path)
    with pytest.raises(KeyongError):
        migrate(path, later)
    assert schema(path) == shape


def test_two_that_make_a_store_at_once_are_both_content(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        engines = list(pool.map(lambda _: open_engine(path, HOME_STORE), range(2)))
    for engine in engines:
        engine.dispose()
    assert standing(path, HOME_STORE).state == "current" and path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else" * 400)
    with pytest.raises(StoreUnreadableError):
        open_engine(tmp_path / "store.db", HOME_STORE)
