"""Founding, inviting, removing; who we are and whom we accept: JSON's keys, files' modes, refusals."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from coordinator.migrations import COORDINATOR_STORE
from coordinator.store import CoordinatorStore
from federation.stores import open_engine
from tests.keyong.conftest import Run


def test_init_prints_the_fingerprint_and_keeps_keys_private(keyong: Run, founder: Path, fingerprint: str) -> None:
    assert fingerprint.startswith("sha256:") and len(fingerprint) == 71
    for key in (founder / "keys").iterdir():
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = ["consortium", "init", "--name", "P", "--member", "m", "--entity", "M", "--address", "127.0.0.1:7443"]
    ran = keyong("--home", founder, *again)
    assert ran.code == 2 and "already holds an identity" in ran.err


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:port", ":7443", "host:70000"])
def test_init_refuses_what_is_no_address(keyong: Run, tmp_path: Path, address: str) -> None:
    ran = keyong(
        "--home", tmp_path / "h", "consortium", "init", "--name", "P", "--member", "m", "--entity", "M",
        "--address", address,
    )  # fmt: skip
    assert ran.code == 2 and "is not an address" in ran.err
    assert not (tmp_path / "h").exists()


def test_whoami_json(keyong: Run, founder: Path) -> None:
    found = keyong("--home", founder, "whoami", "--format", "json").json
    assert set(found) == {
        "home", "member", "entity", "roles", "enrolled", "consortium", "keys", "coordinator", "roster", "root_key_here",
    }  # fmt: skip
    assert set(found["keys"]) == {"statement", "ledger", "witness", "tls"}
    assert set(found["roster"]) == {"version", "expires", "digest"}
    assert found["roles"] == ["member", "coordinator", "analyst"]


def test_an_invitation_on_stdout_is_one_line_and_in_a_file_private(keyong: Run, founder: Path, tmp_path: Path) -> None:
    ran = keyong("--home", founder, "consortium", "invite", "mill-a", "--entity", "Mill A")
    assert ran.code == 0
    assert ran.out.startswith("keyong-invitation:") and ran.out.count("\n") == 1
    file = tmp_path / "a"
    ran = keyong("--home", founder, "consortium", "invite", "mill-a", "--entity", "Mill A", "-o", file)
    assert ran.out == "" and str(file) in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ran = keyong("--home", founder, "consortium", "invite", "inst", "--entity", "X")
    assert ran.code == 2 and "in the roster already" in ran.err


def test_an_invitation_that_could_not_be_written_voids_no_earlier_one(
    keyong: Run, founder: Path, tmp_path: Path
) -> None:
    store = CoordinatorStore(open_engine(founder / "coordinator.db", COORDINATOR_STORE))
    invite = ("--home", founder, "consortium", "invite", "mill-a", "--entity", "Mill A", "-o", tmp_path / "a")
    assert keyong(*invite).code == 0
    (earlier,) = store.outstanding("")
    ran = keyong(*invite)
    assert ran.code == 2 and "exists already" in ran.err
    assert [one.fingerprint for one in store.outstanding("")] == [earlier.fingerprint]
    ran = keyong(*invite[:-1], tmp_path / "b")
    assert ran.code == 0 and "the earlier invitation for mill-a, which nobody used, is void" in ran.err
    assert [one.fingerprint for one in store.outstanding("")] != [earlier.fingerprint]


def test_roster_json_and_removal_refusals(keyong: Run, founder: Path) -> None:
    found = keyong("--home", founder, "consortium", "roster", "--format", "json").json
    assert set(found) == {"consortium", "name", "version", "expires", "root", "members"}
    assert [one["id"] for one in found["members"]] == ["inst"]
    assert keyong("--home", founder, "consortium", "remove", "inst").code == 2
    ran = keyong("--home", founder, "consortium", "remove", "nobody")
    assert ran.code == 2 and "has no member nobody" in ran.err


def test_peers_are_accepted_by_name_on_record(keyong: Run, founder: Path) -> None:
    assert keyong("--home", founder, "peers", "list", "--format", "json").json == [
        {"entity": "Institute", "members": ["inst"], "accepted": False, "waiting": {}}
    ]
    assert keyong("--home", founder, "peers", "accept").code == 2
    ran = keyong("--home", founder, "peers", "accept", "Nobody Ltd")
    assert ran.code == 2 and "the roster has no legal entity Nobody Ltd" in ran.err
    assert keyong("--home", founder, "peers", "accept", "--all", "--format", "json").json == {
        "accepted": ["Institute"],
        "members": ["inst"],
    }
    assert keyong("--home", founder, "peers", "list", "--format", "json").json[0]["accepted"] is True
    entries = keyong("--home", founder, "ledger", "show", "--kind", "peers", "--format", "json").json
    assert [one["fields"]["entity"] for one in entries] == ["Institute"]
