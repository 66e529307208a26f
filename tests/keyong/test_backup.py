"""A backup of a home that serves, and the home that comes of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from federation.errors import KeyongError
from federation.home import AlreadyServingError, Home
from federation.ledger import LedgerError
from keyong import backing_up
from keyong._backup_folder import BackupError, Manifest
from keyong.backing_up import back_up, ledger_key
from keyong.cli import run
from keyong.restoring import LedgerOlderError, restore
from keyong.upgrading import upgrade
from tests.federation.stores.recordings import rows, unpack_homes


@pytest.fixture
def home(tmp_path: Path) -> Home:
    one = Home(unpack_homes(tmp_path / "homes") / "mill")
    upgrade(one)
    return one


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


def cli(*arguments: object, capsys: Any) -> tuple[int, Any]:
    code = run([str(one) for one in ("--lang", "en", "--format", "json", *arguments)])
    said = capsys.readouterr()
    return code, json.loads(said.out or said.err)


def test_a_copy_taken_under_load_is_whole_and_restores(home: Home, tmp_path: Path) -> None:
    stop, written = threading.Event(), []
    began = threading.Event()

    def append() -> None:
        with home.open_ledger() as ledger:
            while not stop.is_set():
                written.append(ledger.append("owner", {"dataset": "passes", "what": "x" * 2000}).index)
                began.set()

    writer = threading.Thread(target=append)
    writer.start()
    try:
        assert began.wait(10)
        manifests = [back_up(home, tmp_path / f"copy-{number}") for number in range(3)]
    finally:
        stop.set()
        writer.join()
    assert written[-1] + 1 > manifests[0].entries and manifests[0].entries < manifests[-1].entries
    for number, manifest in enumerate(manifests):
        done = restore(tmp_path / f"copy-{number}", tmp_path / f"home-{number}")
        assert done.entries == manifest.entries and not done.keys
        shutil.copytree(home.path / "keys", done.home.path / "keys")
        with done.home.open_ledger() as again:  # the guard of the running ledger is content too
            assert again.append("owner", {"what": "went on"}).index == manifest.entries


def test_the_database_before_the_checkpoint_would_not_restore(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = backing_up._FIRST
    monkeypatch.setattr(backing_up, "_FIRST", (order[1], order[0], *order[2:]))
    copy = backing_up._copy

    def grown(source: Path, target: Path) -> Any:
        found = copy(source, target)
        if source.name == "ledger.db":
            with home.open_ledger() as ledger:
                ledger.append("owner", {"what": "between the two"})
        return found

    monkeypatch.setattr(backing_up, "_copy", grown)
    with pytest.raises(LedgerError):
        back_up(home, tmp_path / "copy")
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_everything_is_there_again_with_keys_and_for_the_owner_alone(
    home: Home, tmp_path: Path, passphrase: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home.folder("jobs", "one") / "result.bin").write_bytes(b"result")
    (home.folder("logs") / "left-behind").write_bytes(b"printed")
    (home.folder("answers") / "1").write_bytes(b"a company's own contribution")
    code, made = cli("--home", home.path, "backup", tmp_path / "copy", "--keys", passphrase, capsys=capsys)
    assert code == 0 and made["keys"] is True and made["entries"] == 2
    for path in (tmp_path / "copy").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())

    again = tmp_path / "again"
    code, done = cli("--home", again, "restore", tmp_path / "copy", "--keys", passphrase, capsys=capsys)
    assert code == 0 and done["keys"] is True and done["entries"] == 2 and done["compared"] == 0
    assert rows(again / "store.db") == rows(home.path / "store.db")
    assert (again / "jobs/one/result.bin").read_bytes() == b"result" and not (again / "logs").exists()
    assert not (tmp_path / "copy" / "answers").exists() and not (again / "answers").exists()
    for path in (home.path / "keys").iterdir():
        assert (again / "keys" / path.name).read_bytes() == path.read_bytes()
    code, who = cli("--home", again, "whoami", capsys=capsys)
    assert code == 0 and who["member"] == "mill"


def test_a_ledger_older_than_a_checkpoint_from_elsewhere_is_refused(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "copy")
    with home.open_ledger() as ledger:
        ledger.append("owner", {"what": "after the backup"})
    newest = (home.path / "ledger" / "ledger.checkpoint").read_bytes()
    with pytest.raises(LedgerOlderError) as refused:
        restore(tmp_path / "copy", tmp_path / "again", checkpoints=[newest])
    assert refused.value.code == "ledger-rolled-back" and refused.value.exit_code == 4
    assert not (tmp_path / "again").exists() and not (tmp_path / ".again.restoring").exists()
    restore(tmp_path / "copy", tmp_path / "again")  # nothing else would have noticed


@pytest.mark.parametrize("name", ["identity.json", "ledger/ledger.db", "ledger/ledger.checkpoint", "store.db"])
def test_a_changed_or_missing_file_is_named(home: Home, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    back_up(home, copy)
    data = (copy / name).read_bytes()
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), None):
        (copy / name).unlink()
        if damaged is not None:
            (copy / name).write_bytes(damaged)
        with pytest.raises(BackupError, match=name):
            restore(copy, tmp_path / "again")
        assert not (tmp_path / "again").exists()


def test_a_manifest_cannot_lead_outside(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    manifest = back_up(home, copy)
    (tmp_path / "secret").write_text("outside")
    for path in ("../secret", "/etc/hostname"):
        changed = manifest.files[0].model_copy(update={"path": path})
        manifest.model_copy(update={"files": (*manifest.files, changed)}).write(copy)
        with pytest.raises(BackupError, match="outside"):
            restore(copy, tmp_path / "again")
    (copy / "ledger" / "link").symlink_to(tmp_path / "secret")
    linked = manifest.files[0].model_copy(update={"path": "ledger/link"})
    manifest.model_copy(update={"files": (*manifest.files, linked)}).write(copy)
    with pytest.raises(BackupError):
        restore(copy, tmp_path / "again")


def test_nothing_is_written_over_a_home(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "copy")
    claim = home.claim("node")
    with pytest.raises(AlreadyServingError):
        restore(tmp_path / "copy", home.path)
    claim.release()
    with pytest.raises(KeyongError, match="not empty"):
        restore(tmp_path / "copy", home.path)
    with pytest.raises(KeyongError, match="not empty"):
        back_up(home, tmp_path / "copy")
    with pytest.raises(KeyongError, match="inside the home"):
        back_up(home, home.path / "copy")


def test_keys_open_with_their_passphrase_alone(home: Home, tmp_path: Path, passphrase: Path) -> None:
    back_up(home, tmp_path / "copy", passphrase=b"correct horse battery staple")
    with pytest.raises(BackupError, match="passphrase"):
        restore(tmp_path / "copy", tmp_path / "again", passphrase=b"another passphrase")
    assert not (tmp_path / "again").exists()
    passphrase.chmod(0o644)
    assert run(["--home", str(home.path), "backup", str(tmp_path / "more"), "--keys", str(passphrase)]) == 2
    passphrase.write_text("short\n")
    passphrase.chmod(0o600)
    assert run(["--home", str(home.path), "backup", str(tmp_path / "more"), "--keys", str(passphrase)]) == 2


def test_a_backup_without_a_manifest_or_of_a_newer_form_is_none(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    back_up(home, copy)
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(BackupError) as refused:
        restore(copy, tmp_path / "again")
    assert refused.value.code == "store-newer"
    os.unlink(copy / "manifest.json")
    with pytest.raises(BackupError, match="no backup"):
        restore(copy, tmp_path / "again")
    with pytest.raises(BackupError):
        Manifest.read(tmp_path / "nowhere")


def test_the_people_are_told_what_is_lost(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(home.path), "--lang", "en", "backup", str(tmp_path / "copy")]) == 0
    assert "private keys are not in it" in capsys.readouterr().err
    assert run(["--home", str(tmp_path / "again"), "--lang", "en", "restore", str(tmp_path / "copy")]) == 0
    said = capsys.readouterr().err
    assert "from number 2 on" in said and "mill numbered 2" in said and "private keys are missing" in said
    assert ledger_key(Home(tmp_path / "again")) == ledger_key(home)
