"""Homes: one identity on disk, and rosters that are never forgotten."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import read_private
from federation.errors import KeyongError, UsageError
from federation.home import Home, NoHomeError
from federation.statements import RosterRolledBackError


def test_no_home_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoHomeError) as refused:
        Home(tmp_path / "nowhere")
    assert "keyong join" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"format": 1}', b"\xff"])
def test_a_damaged_identity_is_refused(parties: Any, content: bytes) -> None:
    path = parties.of["mill"].home.path / "identity.json"
    path.write_bytes(content)
    with pytest.raises(NoHomeError):
        Home(path.parent)


def test_a_home_of_a_newer_version_is_refused(parties: Any) -> None:
    path = parties.of["mill"].home.path / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(NoHomeError) as refused:
        Home(path.parent)
    assert "upgrade" in refused.value.hint


def test_a_key_that_others_could_read_is_not_used(parties: Any) -> None:
    home = parties.of["mill"].home
    (home.path / "keys" / "statement.key").chmod(0o644)
    with pytest.raises(UsageError) as refused:
        home.key("statement")
    assert refused.value.code == "permissions"


def test_an_identity_is_never_written_over(parties: Any) -> None:
    mill = parties.of["mill"]
    with pytest.raises(UsageError):
        Home.create(mill.home.path, mill.home.identity, mill.keys, list(mill.home.history.envelopes))


def test_a_roster_is_on_disk_before_it_is_used(parties: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from federation import home as module
    from federation.errors import UnavailableError

    home = parties.of["mill"].home
    second = parties.roster()

    def full(path: Path, data: bytes, **_: Any) -> None:
        raise UnavailableError("no room")

    monkeypatch.setattr(module, "write_private", full)
    with pytest.raises(UnavailableError):
        home.learn(second)
    assert home.history.latest.version == 1
    monkeypatch.undo()
    assert home.learn(second).version == 2
    assert Home(home.path).history.latest.version == 2


def test_another_roster_of_a_version_already_on_disk_is_refused(parties: Any) -> None:
    one, other = Home(parties.of["mill"].home.path), Home(parties.of["mill"].home.path)
    first, fork = parties.roster(), parties.roster(name="fork")
    assert other.history.latest.version == 1
    one.learn(first)
    with pytest.raises(RosterRolledBackError):
        other.learn(fork)
    assert other.history.digest == first.digest == Home(one.path).history.digest


def test_what_another_process_learned_is_noticed(parties: Any) -> None:
    one, other = Home(parties.of["mill"].home.path), Home(parties.of["mill"].home.path)
    assert other.history.latest.version == 1
    one.learn(parties.roster())
    assert other.history.latest.version == 2 and other.roster.version == 2


def test_threads_that_learn_at_once_learn_once(parties: Any) -> None:
    home = parties.of["mill"].home
    second = parties.roster()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: home.learn(second).version, range(16)))
    assert versions == [2] * 16 and len(home.history.envelopes) == 2


def test_a_roster_file_that_was_changed_is_refused(parties: Any) -> None:
    home = parties.of["mill"].home
    path = home.path / "rosters" / "000001.json"
    data = bytearray(read_private(path))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(KeyongError):
        _ = Home(home.path).history


def test_a_home_that_was_broken_off_can_be_made_again_and_no_key_is_lost(parties: Any) -> None:
    mill = parties.of["mill"]
    home = mill.home
    key = (home.path / "keys" / "statement.key").read_bytes()
    (home.path / "identity.json").unlink()  # what is written last
    again = Home.create(home.path, home.identity, mill.keys, list(home.history.envelopes))
    assert again.open_ledger().size == 0
    kept = list((home.path / "unfinished").rglob("statement.key"))
    assert [path.read_bytes() for path in kept] == [key]


@pytest.mark.parametrize("folder", ["keys", "ledger", "witnessed", "approvals", "code"])
def test_whoever_serves_removes_what_a_killed_writer_left_in_any_folder(parties: Any, folder: str) -> None:
    home = parties.of["mill"].home
    left = home.folder(folder) / ".note.0123456789abcdef.tmp"
    left.write_bytes(b"half a note")
    home.claim("node").release()
    assert not left.exists()
