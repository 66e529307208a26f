"""inv6: a lost ledger is followed by one of another origin, which commits to what others vouch for, by the root's word alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SignatureError
from federation.home import Home, KeysDifferError
from federation.ledger import LedgerRolledBackError, parse_note
from federation.statements import Roster
from keyong import embedded, rooting, succeeding
from keyong.receiving import receive
from tests.keyong.conftest import Run
from tests.keyong.parties import Parties
from tests.keyong.test_rooting import spread

NAME = "mill-a"


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def lost(parties: Parties, tmp_path: Path) -> bytes:
    """mill-a has lost what it wrote after a backup; the last checkpoint of it that others cosigned."""
    parties.work(parties.ask())
    parties.attest()
    home = parties.homes[NAME]
    parties.ledgers[NAME].close()
    copy = Path(shutil.copytree(home.path / "ledger", tmp_path / "backup"))
    parties.ledgers[NAME] = home.open_ledger()
    run = parties.ask()
    parties.work(run)
    parties.attest()
    receive(parties.client(run), run.id, run.plan.digest, tmp_path / "result", seconds=0.0)
    parties.ledgers[NAME].append("note", {"nobody": "saw this"})
    parties.ledgers[NAME].close()
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (home.path / "ledger" / name).unlink(missing_ok=True)
        if (copy / name).exists():
            shutil.copy(copy / name, home.path / "ledger" / name)
    witness = parties.witnesses["mill-b"]
    note = witness.last_note(f"keyong/{home.identity.consortium.removeprefix('urn:uuid:')}/{NAME}")
    assert note is not None
    return note


def renew(parties: Parties, note: bytes, tmp_path: Path) -> Home:
    """By the library's own steps, the link left out."""
    home = parties.homes[NAME]
    found = succeeding.prepare(home, [note], "disk lost")
    file = tmp_path / "proposal.json"
    rooting.save(file, rooting.propose(parties.homes["institute"], new_ledger=found.envelope))
    rooting.adopt(parties.homes["institute"], file)
    spread(parties)
    parties.ledgers[NAME] = succeeding.begin(home)
    parties.keys[NAME].ledger = home.key("ledger")
    return home


def test_a_ledger_below_its_last_signed_size_does_not_open(parties: Parties, lost: bytes) -> None:
    with pytest.raises(LedgerRolledBackError):
        parties.homes[NAME].open_ledger()


def test_by_commands_from_the_loss_to_the_new_ledger(
    parties: Parties, lost: bytes, keyong: Run, tmp_path: Path
) -> None:
    home, institute = parties.homes[NAME].path, parties.homes["institute"].path
    seen, request, proposal = tmp_path / "seen", tmp_path / "request.json", tmp_path / "proposal.json"
    seen.write_bytes(lost)
    ran = keyong("--home", home, "ledger", "succeed", request, "--reason", "disk lost")
    assert ran.code == 4 and "another company cosigned" in ran.err, "nobody can be reached, and nothing was given"
    ran = keyong(
        "--home", home, "ledger", "succeed", request, "--reason", "disk lost", "--checkpoint", seen, "--format", "json"
    )
    assert ran.code == 0, ran.err
    assert (ran.json["number"], ran.json["witnesses"]) == (2, ["mill-b"])
    assert keyong("--home", home, "ledger", "begin", "-y").code == 4, "the roster does not name it yet"
    assert keyong("--home", institute, "consortium", "propose", proposal, "--new-ledger", request).code == 0
    assert keyong("--home", institute, "consortium", "adopt", proposal).code == 0
    spread(parties)
    ran = keyong("--home", home, "ledger", "begin", "-y", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["origin"].endswith("/mill-a/2")
    assert (home / "ledger-1" / "ledger.db").exists(), "the old one is kept as evidence"
    ran = keyong("verify", home, "--root", parties.fingerprint)
    assert ran.code == 0, ran.err
    parties.ledgers[NAME] = parties.homes[NAME].open_ledger()


def test_the_holders_of_root_keys_see_what_they_sign(
    parties: Parties, lost: bytes, keyong: Run, tmp_path: Path
) -> None:
    found = succeeding.prepare(parties.homes[NAME], [lost], "disk lost")
    file = tmp_path / "proposal.json"
    rooting.save(file, rooting.propose(parties.homes["institute"], new_ledger=found.envelope))
    proposal = rooting.read_proposal(parties.homes["institute"], file)
    assert proposal.new_ledgers == ((NAME, found.checkpoint.size),) and proposal.changed == ()
    stranger = rooting.root_key(parties.homes["lab"], make=True)
    rooting.save(file, proposal.roster.seal(stranger))
    with pytest.raises(SignatureError, match="of no root"):
        rooting.adopt(parties.homes["institute"], file)


def test_a_state_that_nobody_else_vouches_for_is_refused(parties: Parties, lost: bytes, tmp_path: Path) -> None:
    alone = parse_note(lost)
    own = tuple(one for one in alone.signatures if not one.name.endswith("/witness"))
    with pytest.raises(succeeding.SuccessionError):
        succeeding.prepare(parties.homes[NAME], [type(alone)(alone.text, own).encode()], "disk lost")


def test_a_request_needs_the_members_own_keys(parties: Parties, lost: bytes) -> None:
    found = succeeding.prepare(parties.homes[NAME], [lost], "disk lost")
    rosters = parties.homes["institute"].history.rosters
    for left_out in found.envelope.signatures:
        fewer = type(found.envelope)(
            found.envelope.payload_type,
            found.envelope.payload,
            tuple(one for one in found.envelope.signatures if one is not left_out),
        )
        with pytest.raises(SignatureError):
            succeeding.check_request(rosters, fewer)


def test_afterwards_everything_verifies_and_nothing_from_before_is_good(
    parties: Parties, lost: bytes, keyong: Run, tmp_path: Path
) -> None:
    home = renew(parties, lost, tmp_path)
    assert home.renewed_at is not None and home.restored_at is not None
    run = parties.ask()
    parties.work(run)
    parties.attest()
    root = ("--root", parties.fingerprint)
    ran = keyong("verify", home.path, *root, "--require", "anchored")
    assert ran.code == 0, ran.err
    files = [parties.export(name, tmp_path / f"{name}.export") for name in parties.homes]
    ran = keyong("audit", *files, *root, "--format", "json")
    assert ran.code == 0, ran.err
    assert {"member": NAME, "kind": "continued"} in ran.json["completeness"]["not_judged"]


def test_the_lost_ledger_is_shown_to_be_older_than_what_was_signed(
    parties: Parties, lost: bytes, keyong: Run, tmp_path: Path
) -> None:
    home = renew(parties, lost, tmp_path)
    old = tmp_path / "old"
    shutil.copytree(home.path / "rosters", old / "rosters")
    shutil.copytree(home.path / "ledger-1", old / "ledger")
    ran = keyong("verify", old, "--root", parties.fingerprint)
    assert ran.code == 4 and "ledger-rolled-back" in ran.out


def test_a_home_that_goes_on_with_the_lost_one_is_refused(parties: Parties, lost: bytes, tmp_path: Path) -> None:
    found = succeeding.prepare(parties.homes[NAME], [lost], "disk lost")
    file = tmp_path / "proposal.json"
    rooting.save(file, rooting.propose(parties.homes["institute"], new_ledger=found.envelope))
    rooting.adopt(parties.homes["institute"], file)
    spread(parties)
    with pytest.raises(KeysDifferError):
        parties.homes[NAME].check_keys()


def test_a_new_ledger_that_commits_to_something_else_is_found(
    parties: Parties, lost: bytes, keyong: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = succeeding._create

    def forgetful(home: Any, folder: Path, origin: str, me: Any, key: Any) -> None:
        real(home, folder, origin, me.model_copy(update={"ledger_since": "another state"}), key)

    monkeypatch.setattr(succeeding, "_create", forgetful)
    home = renew(parties, lost, tmp_path)
    ran = keyong("verify", home.path, "--root", parties.fingerprint)
    assert ran.code == 4 and "ledger-continuation" in ran.out
    monkeypatch.setattr(embedded.StatementCheck, "__init__", _blind)
    assert keyong("verify", home.path, "--root", parties.fingerprint).code == 0


def _blind(self: Any, rosters: Any, continues: str = "") -> None:
    self._rosters, self._continues = rosters, ""


def test_rosters_without_a_lost_ledger_read_as_before(parties: Parties) -> None:
    first = parties.homes[NAME].history.envelopes[0]
    assert b"ledger_number" not in first.payload and Roster.read(first).member(NAME).ledger_number == 1
