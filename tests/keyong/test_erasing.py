"""``keyong ledger erase`` and exports for one agreement: what entries say goes or stays sealed, and everything verifies."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.ledger import verify_ledger
from tests.keyong.conftest import Run as Keyong
from tests.keyong.parties import Parties, Run


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def two(parties: Parties) -> tuple[str, Run, str, Run]:
    """Two agreements of mill-a's, and a job under each."""
    first, second = parties.agree("mill-a"), parties.agree("mill-a")
    runs = [parties.ask({"mill-a": agreement}) for agreement in (first, second)]
    for run in runs:
        parties.work(run)
    return first, runs[0], second, runs[1]


def kinds(parties: Parties, kind: str) -> list[int]:
    return [entry.index for entry in parties.ledgers["mill-a"].find(kind=kind)]


def test_what_is_erased_is_gone_and_everything_verifies(
    parties: Parties, two: tuple[str, Run, str, Run], keyong: Keyong
) -> None:
    home, ledger = parties.homes["mill-a"].path, parties.ledgers["mill-a"]
    (receipt, _, appended) = two[1].receipts["mill-a"][0]
    bundle = ledger.receipt_bundle(appended.index)
    secret = ledger.fields(receipt.intent)["requester"]
    ran = keyong(
        "--home", home, "ledger", "erase", receipt.intent, "--reason", "asked for", "--by", "A. Meier", "-y",
        "--format", "json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ledger.fields(receipt.intent) == {} and secret == "lab"
    (record,) = kinds(parties, "erasure")
    assert ran.json["recorded"] == [record] and ledger.entry(record).ref == receipt.intent
    said = ledger.fields(record)
    assert said["reason"] == "asked for" and said["by"] == "mill-a: A. Meier" and "requester" in said["fields"]
    verdict = verify_ledger(ledger.folder, ledger.vkey, receipts=[bundle])
    assert verdict.erased == len(said["fields"]) and verdict.completeness == "complete"
    assert keyong("verify", home, "--root", parties.fingerprint).code == 0
    shown = keyong("--home", home, "ledger", "show", receipt.intent)
    assert "erased: " in shown.err


def test_no_byte_of_it_is_left_in_the_files(parties: Parties, keyong: Keyong) -> None:
    ledger = parties.ledgers["mill-a"]
    index = ledger.append("note", {"text": "the-name-of-a-person"}).index
    home = parties.homes["mill-a"].path
    assert keyong("--home", home, "ledger", "erase", index, "--reason", "asked for", "-y").code == 0
    left = [path.name for path in ledger.folder.iterdir() if b"the-name-of-a-person" in path.read_bytes()]
    assert left == []


def test_a_whole_agreement_goes_once_it_is_over(
    parties: Parties, two: tuple[str, Run, str, Run], keyong: Keyong
) -> None:
    first, run, _, other = two
    home, ledger = parties.homes["mill-a"].path, parties.ledgers["mill-a"]
    erase = ("--home", home, "ledger", "erase", "--agreement", first[7:19], "--reason", "over", "-y")
    ran = keyong(*erase)
    assert ran.code == 3 and "is in force" in ran.err
    with closing(sqlite3.connect(home / "store.db")) as connection:
        connection.execute("UPDATE holding SET state = 'revoked' WHERE digest = ?", (first,))
        connection.commit()
    assert keyong(*erase).code == 0
    gone = [index for receipt, _, appended in run.receipts["mill-a"] for index in (receipt.intent, appended.index)]
    stay = [index for receipt, _, appended in other.receipts["mill-a"] for index in (receipt.intent, appended.index)]
    assert all(ledger.fields(index) == {} for index in gone)
    assert all(ledger.fields(index).keys() == ledger.entry(index).fields.keys() for index in stay)
    assert keyong("verify", home, "--root", parties.fingerprint, "--require", "complete").code == 0
    assert keyong(*erase).code == 2, "there is nothing left"


@pytest.mark.parametrize("kind", ["revocation", "erasure", "intent"])
def test_what_rules_rest_on_stays(parties: Parties, keyong: Keyong, kind: str) -> None:
    run, ledger = parties.ask(), parties.ledgers["mill-a"]
    if kind == "revocation":
        index = ledger.append("revocation", {"agreement": "sha256:" + "1" * 64, "by": "lab"}).index
    elif kind == "erasure":
        note = ledger.append("note", {"text": "x"}).index
        index = ledger.erase(note, ["text"], "asked for").index
    else:
        index = parties.intend(run, "mill-a", 1)[2]
    before = ledger.fields(index)
    ran = keyong("--home", parties.homes["mill-a"].path, "ledger", "erase", index, "--reason", "x", "-y")
    assert ran.code == 3 and f"entry {index}" in ran.err
    assert ledger.fields(index) == before


def test_what_is_not_there_is_not_erased(parties: Parties, keyong: Keyong) -> None:
    home = parties.homes["mill-a"].path
    index = parties.ledgers["mill-a"].append("note", {"text": "x"}).index
    assert keyong("--home", home, "ledger", "erase", 99, "--reason", "x", "-y").code == 2
    assert keyong("--home", home, "ledger", "erase", index, "--field", "name", "--reason", "x", "-y").code == 2
    assert keyong("--home", home, "ledger", "erase", "--reason", "x", "-y").code == 2
    assert keyong("--home", home, "ledger", "erase", index).code == 2, "a reason is needed"
    assert not kinds(parties, "erasure")


def test_replay_and_audit_say_what_they_cannot_judge(
    parties: Parties, two: tuple[str, Run, str, Run], keyong: Keyong, tmp_path: Path
) -> None:
    home = parties.homes["mill-a"].path
    (receipt, _, appended) = two[1].receipts["mill-a"][0]
    assert keyong(
        "--home", home, "ledger", "erase", receipt.intent, appended.index, "--reason", "x", "-y"
    ).code == 0  # fmt: skip
    ran = keyong("--home", home, "ledger", "replay", "--format", "json")
    assert receipt.intent in ran.json["erased"]
    for run in two[1], two[3]:
        parties.end(run)
    files = [parties.export(name, tmp_path / f"{name}.export") for name in parties.homes]
    ran = keyong("audit", *files, "--root", parties.fingerprint, "--format", "json")
    assert ran.code == 0, ran.out
    assert {"member": "mill-a", "kind": "outcome"} in ran.json["completeness"]["not_judged"]


def test_an_export_for_one_agreement_opens_nothing_else(
    parties: Parties, two: tuple[str, Run, str, Run], keyong: Keyong, tmp_path: Path
) -> None:
    first, run, second, other = two
    home = parties.homes["mill-a"].path
    file = tmp_path / "first.export"
    assert keyong("--home", home, "ledger", "export", file, "--agreement", first[7:19]).code == 0
    assert keyong("verify", file, "--root", parties.fingerprint, "--require", "complete").code == 0
    text = file.read_text()
    opened = {number for number, line in enumerate(entry_lines(text)) if json.loads(line)["fields"]}
    mine = {0} | {i for receipt, _, done in run.receipts["mill-a"] for i in (receipt.intent, done.index)}
    assert opened == mine
    for word in (second, other.plan.digest, *(envelope.digest for _, envelope, _ in other.receipts["mill-a"])):
        assert not discloses(text, word), word
    assert discloses(text, first) and discloses(text, run.plan.digest)


def entry_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith('{"entry"')]


def discloses(text: str, word: str) -> bool:
    """Whether any opened payload holds the word, also within a statement."""

    def holds(data: bytes) -> bool:
        if word.encode() in data:
            return True
        try:
            return word.encode() in base64.b64decode(json.loads(data)["payload"])
        except (ValueError, KeyError, TypeError):
            return False

    payloads = [
        base64.b64decode(field["payload"])
        for line in entry_lines(text)
        for field in json.loads(line)["fields"].values()
    ]
    return any(map(holds, payloads))
