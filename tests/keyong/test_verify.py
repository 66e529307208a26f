"""``keyong verify``: three lines, the entry that fails, and that nothing is believed because of where it lies."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.home import Home, now
from federation.ledger import VerifierKey, open_checkpoint
from federation.statements import Revocation
from tests.keyong.conftest import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one home is that every test here gets a copy of: founding it takes longer than the tests do."""
    return tmp_path_factory.mktemp("made") / "institute"


@pytest.fixture
def founder(keyong: Run, made: Path, passes: Path, tmp_path: Path) -> Path:
    """A home with three entries, one of them with a signed statement."""
    if not made.is_dir():
        make(keyong, made, passes)
    return Path(shutil.copytree(made, tmp_path / "institute"))


@pytest.fixture
def recorded(founder: Path) -> Path:
    return founder


def make(keyong: Run, founder: Path, passes: Path) -> None:
    ran = keyong(
        "--home", founder, "consortium", "init", "--name", "Plates", "--member", "inst", "--entity", "Institute",
        "--address", "127.0.0.1:1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert keyong("--home", founder, "node", "dataset", "add", "passes", passes, "--title", "Passes").code == 0
    assert keyong("--home", founder, "peers", "accept", "--all").code == 0
    home = Home(founder)
    with home.open_ledger() as ledger:
        ledger.append("intent", {"purpose": "test"})


def test_three_lines(keyong: Run, recorded: Path, fingerprint: str) -> None:
    ran = keyong("verify", recorded, "--root", fingerprint)
    assert ran.code == 0
    integrity, anchoring, completeness = ran.out.splitlines()
    assert integrity.startswith("integrity     intact: 3 entries, 1 statements")
    assert anchoring == "anchoring     unanchored: nobody else vouches for this history yet"
    assert completeness == "completeness  open: 1 steps without their counterpart (entries 2)"


def test_json(keyong: Run, recorded: Path, fingerprint: str) -> None:
    found = keyong("verify", recorded, "--root", fingerprint, "--format", "json").json
    assert set(found) == {"member", "entity", "origin", "consortium", "integrity", "anchoring", "completeness"}
    assert found["integrity"]["holds"] is True
    assert found["anchoring"]["state"] == "unanchored"
    assert found["completeness"] == {"state": "open", "open_intents": [2], "stray_outcomes": []}


@pytest.mark.parametrize("form", ["home", "ledger", "export", "sealed"])
def test_a_home_a_folder_and_an_export_verify_alike(
    keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path, form: str
) -> None:
    path = {"home": recorded, "ledger": recorded / "ledger"}.get(form, tmp_path / "export")
    if form in ("export", "sealed"):
        arguments = ["--sealed"] if form == "sealed" else []
        assert keyong("--home", recorded, "ledger", "export", path, *arguments).code == 0
        shutil.rmtree(recorded)
    found = keyong("verify", path, "--root", fingerprint, "--format", "json").json
    assert found["integrity"]["entries"] == 3
    assert found["integrity"]["statements"] == (0 if form == "sealed" else 1)
    assert (found["integrity"]["withheld"] > 0) is (form == "sealed")


@pytest.mark.parametrize(("require", "code"), [("integrity", 0), ("anchored", 4), ("complete", 4)])
def test_what_exit_code_0_demands(keyong: Run, recorded: Path, fingerprint: str, require: str, code: int) -> None:
    assert keyong("verify", recorded, "--root", fingerprint, "--require", require).code == code


@pytest.mark.parametrize("language", ["en", "zh"])
def test_inv6_one_changed_byte_fails_at_its_entry(
    keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path, language: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    with sqlite3.connect(copy / "ledger" / "ledger.db") as connection:
        data = bytearray(connection.execute("SELECT data FROM entry WHERE idx = 1").fetchone()[0])
        data[40] ^= 1
        connection.execute("UPDATE entry SET data = ? WHERE idx = 1", (bytes(data),))
    ran = keyong("verify", copy, "--root", fingerprint, "--lang", language)
    assert ran.code == 4
    assert ("entry 1 was changed" if language == "en" else "第 1 条记录") in ran.err
    assert keyong("verify", recorded, "--root", fingerprint).code == 0


def test_another_root_is_refused(keyong: Run, recorded: Path) -> None:
    ran = keyong("verify", recorded, "--root", "sha256:" + "0" * 64)
    assert ran.code == 4 and "the root of this consortium is" in ran.err
    ran = keyong("verify", recorded, "--root", "sha256:00")
    assert ran.code == 2 and "is not a root fingerprint" in ran.err


def test_a_statement_that_its_author_did_not_sign_fails_at_its_entry(
    keyong: Run, recorded: Path, fingerprint: str
) -> None:
    """Signed by a stranger in the founder's name, then entered by the founder's own ledger, which is intact."""
    at = now()
    forged = Revocation(issued=at, expires=at, agreement="sha256:" + "1" * 64, by="inst").seal(SigningKey.generate())
    with Home(recorded).open_ledger() as ledger:
        index = ledger.append("revocation", {"revocation": forged.to_bytes()}).index
    ran = keyong("verify", recorded, "--root", fingerprint)
    assert ran.code == 4
    assert f"entry {index} holds a statement (revocation) that does not hold" in ran.err


def test_a_statement_by_a_member_that_no_roster_names_fails(keyong: Run, recorded: Path, fingerprint: str) -> None:
    at = now()
    stranger = Revocation(issued=at, expires=at, agreement="sha256:" + "1" * 64, by="stranger").seal(
        SigningKey.generate()
    )
    with Home(recorded).open_ledger() as ledger:
        ledger.append("revocation", {"revocation": stranger.to_bytes()})
    ran = keyong("verify", recorded, "--root", fingerprint)
    assert ran.code == 4 and "no roster names the member stranger" in ran.err


def test_rosters_are_believed_for_their_chain_alone(
    keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path
) -> None:
    """Another consortium's roster beside the ledger, its own key in it: the pinned root does not fit."""
    other = tmp_path / "other"
    arguments = [
        "consortium",
        "init",
        "--name",
        "P",
        "--member",
        "inst",
        "--entity",
        "M",
        "--address",
        "127.0.0.1:7443",
    ]
    assert keyong("--home", other, *arguments).code == 0
    copy = tmp_path / "copy"
    shutil.copytree(other, copy)
    assert keyong("verify", copy, "--root", fingerprint).code == 4
    shutil.rmtree(copy / "rosters")
    shutil.copytree(recorded / "rosters", copy / "rosters")
    ran = keyong("verify", copy, "--root", fingerprint)
    assert ran.code == 4 and "is not one of this consortium" in ran.err


@pytest.mark.parametrize("what", ["nothing", "text", "empty", "no-rosters"])
def test_what_is_no_ledger_is_said_to_be_none(
    keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "path"
    if what == "text":
        path.write_text("hello\n", encoding="utf-8")
    elif what == "empty":
        path.mkdir()
    elif what == "no-rosters":
        shutil.copytree(recorded / "ledger", path / "ledger")
    ran = keyong("verify", path, "--root", fingerprint)
    assert ran.code == (4 if what == "text" else 2)
    assert "Traceback" not in ran.err


def test_a_cut_export_fails(keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path) -> None:
    file = tmp_path / "export"
    keyong("--home", recorded, "ledger", "export", file)
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(rows[:-2]))
    assert keyong("verify", file, "--root", fingerprint).code == 4
    file.write_bytes(b"".join(rows[:1]))
    assert keyong("verify", file, "--root", fingerprint).code == 4


def test_receipts_of_another_ledger_are_not_counted(
    keyong: Run, recorded: Path, fingerprint: str, tmp_path: Path
) -> None:
    folder = tmp_path / "receipts"
    folder.mkdir()
    ran = keyong("verify", recorded, "--root", fingerprint, "--receipts", folder)
    assert ran.code == 2 and "holds no receipt of the ledger" in ran.err
    ran = keyong("verify", recorded, "--root", fingerprint, "--receipts", tmp_path / "absent")
    assert ran.code == 2 and "absent does not exist" in ran.err and "holds no receipt" not in ran.err
    (folder / "file").touch()
    ran = keyong("verify", recorded, "--root", fingerprint, "--receipts", folder / "file")
    assert ran.code == 2 and "file is not a folder" in ran.err


def test_tiles_for_other_tools(keyong: Run, recorded: Path, tmp_path: Path) -> None:
    told = keyong("--home", recorded, "ledger", "tiles", tmp_path / "public", "--format", "json").json
    assert (told["entries"], told["files"]) == (3, 2)
    signed = open_checkpoint((tmp_path / "public" / "checkpoint").read_bytes(), VerifierKey.parse(told["vkey"]))
    assert signed.checkpoint.size == 3
