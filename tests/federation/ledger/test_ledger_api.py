"""What callers do with a ledger: append, apply, read, prove, disclose, erase."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.errors import UsageError
from federation.ledger import (
    Checkpoint,
    EntryRefusedError,
    FieldModifiedError,
    KeySubstitutionError,
    Ledger,
    LedgerUnavailableError,
    LedgerUnreadableError,
    NoteSignatureError,
    ProofError,
    VerifierKey,
    cosign,
    open_checkpoint,
    parse_note,
    verify_bundle,
    verify_consistency,
    verify_inclusion,
    verify_ledger,
)
from federation.ledger.note import COSIGNATURE, Note

ORIGIN = "keyong/test/steelworks"


def test_append_then_read(ledger: Ledger) -> None:
    first = ledger.append("genesis", {"member": "steelworks"})
    second = ledger.append("intent", {"plan": "p", "statement": b"\x00signed\xff"})
    assert (first.index, second.index, ledger.size) == (0, 1, 2)
    assert ledger.entry(1).prev == first.leaf_hash.hex()
    assert ledger.fields(1) == {"plan": "p", "statement": b"\x00signed\xff"}
    assert [entry.kind for entry in ledger.entries()] == ["genesis", "intent"]
    assert [entry.index for entry in ledger.find(kind="intent")] == [1]
    signed = open_checkpoint(ledger.checkpoint(), ledger.vkey)
    assert (signed.checkpoint.size, signed.checkpoint.root) == (2, second.root)


def test_nothing_of_a_value_is_in_the_entry(ledger: Ledger) -> None:
    ledger.append("intent", {"plan": "rolling-force-of-line-7"})
    with ledger.reader() as connection:
        (data,) = connection.execute("SELECT data FROM entry").fetchone()
    assert b"rolling" not in data


def test_history_is_kept_over_reopening(ledger: Ledger, folder: Path, key: SigningKey) -> None:
    first = ledger.append("genesis", {})
    ledger.close()
    with pytest.raises(LedgerUnavailableError):
        ledger.append("late", {})
    with Ledger.open(folder, key) as again:
        assert again.append("next", {}).index == 1
        assert again.entry(1).prev == first.leaf_hash.hex()
        assert again.origin == ORIGIN


def test_one_folder_holds_one_ledger(ledger: Ledger, folder: Path, key: SigningKey) -> None:
    with pytest.raises(UsageError):
        Ledger.create(folder, ORIGIN, key)


def test_another_key_cannot_open_it(ledger: Ledger, folder: Path) -> None:
    with pytest.raises(KeySubstitutionError):
        Ledger.open(folder, SigningKey.generate())


def test_no_ledger_is_unavailable(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(LedgerUnavailableError):
        Ledger.open(tmp_path, key)


def test_files_are_for_their_owner_alone(history: Ledger, folder: Path) -> None:
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_a_clock_set_back_does_not_move_time_back(ledger: Ledger, clock: Any) -> None:
    clock.forward(60)
    late = ledger.append("a", {})
    clock.forward(-3600)
    assert ledger.append("b", {}).time == late.time


# -- apply ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(ledger: Ledger) -> Ledger:
    ledger.ensure_schema("uses", 1, "CREATE TABLE uses (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;")
    return ledger


def uses(ledger: Ledger) -> list[tuple[str, int]]:
    with ledger.reader() as connection:
        return connection.execute("SELECT name, n FROM uses ORDER BY name").fetchall()


def test_apply_and_entry_are_one_transaction(counted: Ledger) -> None:
    def reserve(connection: sqlite3.Connection) -> Mapping[str, object]:
        connection.execute("INSERT INTO uses VALUES ('a', 1)")
        return {"decision": {"uses": 1}}

    appended = counted.append("intent", {"plan": "p"}, apply=reserve)
    assert counted.fields(appended.index) == {"plan": "p", "decision": {"uses": 1}}
    assert uses(counted) == [("a", 1)]


def test_what_apply_raises_undoes_this_entry_alone(counted: Ledger) -> None:
    """inv1: a denial leaves neither a reservation nor an INTENT behind, and takes nobody else's with it."""
    gate = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        gate.wait(10)
        connection.execute("INSERT INTO uses VALUES ('first', 1)")

    def deny(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO uses VALUES ('denied', 1)")
        raise PermissionError("clause 3")

    first = counted.submit("intent", {}, apply=slow)
    denied = counted.submit("intent", {}, apply=deny)
    plain = counted.submit("note", {})
    last = counted.submit("intent", {}, apply=lambda c: c.execute("INSERT INTO uses VALUES ('last', 1)") and None)
    gate.set()
    with pytest.raises(PermissionError, match="clause 3"):
        denied.result(10)
    assert [one.result(10).index for one in (first, plain, last)] == [0, 1, 2]
    assert uses(counted) == [("first", 1), ("last", 1)]


def test_apply_sees_the_entries_before_it(counted: Ledger) -> None:
    counts: list[int] = []

    def count(connection: sqlite3.Connection) -> None:
        counts.append(connection.execute("SELECT count(*) FROM entry").fetchone()[0])

    futures = [
        counted.submit("note", {}),
        counted.submit("note", {}, apply=count),
        counted.submit("n", {}, apply=count),
    ]
    assert [one.result(10).index for one in futures] == [0, 1, 2]
    assert counts == [1, 2]


def test_apply_may_not_name_a_field_twice(counted: Ledger) -> None:
    with pytest.raises(EntryRefusedError):
        counted.append("intent", {"a": 1}, apply=lambda _: {"a": 2})

    assert counted.append("intent", {}).index == 0  # its COMMIT is now a prepared statement


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT mine",
        "PRAGMA synchronous = OFF",
        "UPDATE head SET size = 9",
        "DELETE FROM entry",
        "INSERT INTO checkpoint VALUES (9, x'00')",
    ],
)
def test_apply_may_not_touch_the_ledgers_own_state(counted: Ledger, sql: str) -> None:
    gate = threading.Event()
    counted.append("genesis", {})
    before = counted.submit("intent", {}, apply=lambda _: gate.wait(10) and None)
    together = [counted.submit("note", {}) for _ in range(3)]

    def sneak(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO uses VALUES ('sneaked', 1)")
        connection.execute(sql)

    bad = counted.submit("intent", {}, apply=sneak)
    gate.set()
    with pytest.raises(sqlite3.DatabaseError):
        bad.result(10)
    assert [one.result(10).index for one in (before, *together)] == [1, 2, 3, 4]
    assert uses(counted) == []
    assert verify_ledger(counted.folder, counted.vkey).entries == 5


def test_a_mistake_in_apply_is_its_callers_alone(counted: Ledger) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        counted.append("intent", {}, apply=lambda c: c.execute("SELECT * FROM nowhere") and None)


def test_a_reference_points_back(ledger: Ledger) -> None:
    with pytest.raises(EntryRefusedError):
        ledger.append("outcome", {}, ref=0)
    with pytest.raises(EntryRefusedError):
        ledger.append("outcome", {}, ref=-1)
    ledger.append("intent", {})
    ledger.append("outcome", {}, ref=0)
    assert [entry.index for entry in ledger.find(ref=0)] == [1]


def test_schema_steps_run_once_and_in_order(ledger: Ledger, folder: Path, key: SigningKey) -> None:
    ledger.ensure_schema("mine", 1, ["CREATE TABLE mine (a TEXT) STRICT"])
    with Ledger.open(folder, key) as again:
        again.ensure_schema("mine", 1, ["CREATE TABLE mine (a TEXT) STRICT"])
        again.ensure_schema("mine", 2, "ALTER TABLE mine ADD COLUMN b TEXT; INSERT INTO mine VALUES ('x;y', 'z');")
        with pytest.raises(UsageError):
            again.ensure_schema("mine", 4, "SELECT 1;")
        assert again.schema_version("mine") == 2
        with again.reader() as connection:
            assert connection.execute("SELECT a, b FROM mine").fetchall() == [("x;y", "z")]


def test_a_reader_cannot_write(ledger: Ledger) -> None:
    with pytest.raises(LedgerUnreadableError), ledger.reader() as connection:
        connection.execute("DELETE FROM entry")


# -- many writers -----------------------------------------------------------------------------------------------------


def test_threads_share_groups_and_get_what_they_wrote(ledger: Ledger) -> None:
    written: dict[int, int] = {}

    def work(number: int) -> None:
        for step in range(40):
            written[ledger.append("n", {"v": 1000 * number + step}).index] = 1000 * number + step

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == list(range(320))
    assert all(ledger.fields(index) == {"v": value} for index, value in list(written.items())[::16])
    with ledger.reader() as connection:
        assert connection.execute("SELECT count(*) FROM checkpoint").fetchone()[0] < 321
    assert verify_ledger(ledger.folder, ledger.vkey).entries == 320


def _append_from_elsewhere(folder: Path, name: str) -> None:
    with Ledger.open(folder, SigningKey.from_bytes(bytes(range(32)))) as ledger:
        for _ in range(30):
            ledger.append("from-" + name, {"name": name})


def test_processes_share_one_ledger(ledger: Ledger, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_append_from_elsewhere, args=(folder, name)) for name in ("a", "b")]
    for other in others:
        other.start()
    while any(other.is_alive() for other in others):
        ledger.append("from-us", {})
    for other in others:
        other.join()
        assert other.exitcode == 0
    verdict = verify_ledger(folder, ledger.vkey)
    kinds = [entry.kind for entry in ledger.entries()]
    assert (kinds.count("from-a"), kinds.count("from-b"), len(kinds)) == (30, 30, verdict.entries)


# -- proofs and bundles -----------------------------------------------------------------------------------------------


def test_proofs_over_tiles(ledger: Ledger) -> None:
    futures = [ledger.submit("n", {}) for _ in range(700)]
    leaves = [one.result(30).leaf_hash for one in futures]
    root = open_checkpoint(ledger.checkpoint(), ledger.vkey).checkpoint.root
    for index in (0, 1, 255, 256, 511, 512, 699):
        verify_inclusion(leaves[index], index, 700, ledger.inclusion(index), root)
    with ledger.reader() as connection:
        notes = connection.execute("SELECT note FROM checkpoint WHERE size > 0").fetchall()
    for (note,) in notes:
        old = Checkpoint.parse(parse_note(note).text)
        verify_consistency(old.size, old.root, 700, root, ledger.consistency(old.size))
    with pytest.raises(ProofError):
        ledger.inclusion(0, 701)


def test_a_bundle_verifies_offline(history: Ledger) -> None:
    bundle = history.receipt_bundle(1)
    verified = verify_bundle(bundle, str(history.vkey))
    assert verified.entry.kind == "intent"
    assert verified.fields == {"plan": "plan-0", "request": b"\x00raw\xff"}
    assert verified.checkpoint.checkpoint.size == 12
    assert verify_bundle(history.receipt_bundle(1, ["plan"]), history.vkey).fields == {"plan": "plan-0"}


def test_a_changed_bundle_is_refused(history: Ledger) -> None:
    bundle = history.receipt_bundle(2)
    with pytest.raises(KeySubstitutionError):
        verify_bundle(bundle, VerifierKey(ORIGIN, SigningKey.generate().public))
    with pytest.raises(ProofError):
        verify_bundle(bundle.replace(b'outcome\\"', b'outcomf\\"', 1), history.vkey)
    with pytest.raises(ProofError):
        verify_bundle(bundle.replace(b'"index":2,"size"', b'"index":3,"size"'), history.vkey)
    with pytest.raises(FieldModifiedError):
        verify_bundle(bundle.replace(b'"form":"json"', b'"form":"raw"', 1), history.vkey)
    for broken in (b"", b"{}", b"[]", b"null", bundle[:-1], bundle.replace(b'"v":1}', b'"v":2}')):
        with pytest.raises(LedgerUnreadableError):
            verify_bundle(broken, history.vkey)


# -- witnesses --------------------------------------------------------------------------------------------------------


def test_cosignatures_are_kept_and_counted(history: Ledger) -> None:
    other = SigningKey.generate()
    witness = VerifierKey("keyong/test/foundry/witness", other.public, COSIGNATURE)
    ours = parse_note(history.checkpoint())
    line = cosign(Checkpoint.parse(ours.text), witness.name, other, 1_700_000_000)
    cosigned = Note(ours.text, (*ours.signatures, line)).encode()
    assert history.add_cosignatures(cosigned, [witness]) == (witness.name,)
    verdict = verify_ledger(history.folder, history.vkey, witnesses=[witness])
    assert (verdict.anchoring, verdict.witnesses, verdict.anchored_size) == ("witnessed", (witness.name,), 12)
    assert verify_ledger(history.folder, history.vkey, witnesses=[witness], hash_only=True).anchoring == "witnessed"
    assert verify_ledger(history.folder, history.vkey).anchoring == "unanchored"
    assert verify_bundle(history.receipt_bundle(3), history.vkey, [witness]).checkpoint.witnesses == (witness.name,)
    history.append("next", {})
    assert verify_ledger(history.folder, history.vkey, witnesses=[witness]).anchoring == "partly witnessed"


def test_a_cosignature_of_something_else_is_refused(history: Ledger, key: SigningKey) -> None:
    other = SigningKey.generate()
    witness = VerifierKey("keyong/test/foundry/witness", other.public, COSIGNATURE)
    ours = parse_note(history.checkpoint())
    wrong = cosign(Checkpoint(ORIGIN, 12, bytes(32)), witness.name, other, 1)
    with pytest.raises(NoteSignatureError):
        history.add_cosignatures(Note(ours.text, (*ours.signatures, wrong)).encode(), [witness])


# -- erasure ----------------------------------------------------------------------------------------------------------


def test_what_is_erased_is_gone_from_the_disk_and_on_record(ledger: Ledger, folder: Path) -> None:
    secret = "worker-7-of-line-3-" * 20
    ledger.append("intent", {"person": secret, "plan": "p"})
    assert any(secret.encode() in path.read_bytes() for path in folder.iterdir())
    ledger.erase(0, ["person"], "asked for by the person")
    assert not any(secret[:19].encode() in path.read_bytes() for path in folder.iterdir())
    assert ledger.fields(0) == {"plan": "p"}
    verdict = verify_ledger(folder, ledger.vkey)
    assert (verdict.entries, verdict.erased) == (2, 1)
    with pytest.raises(UsageError):
        ledger.erase(0, ["person"], "twice")
    with pytest.raises(UsageError):
        ledger.erase(1, ["reason"], "cover up")
    assert ledger.size == 2


def test_a_ledger_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    from federation.stores import StoreNewerError

    key = SigningKey.from_bytes(bytes(range(32)))
    with Ledger.create(tmp_path, "example.org/newer", key) as ledger:
        ledger.ensure_schema("mine", 1, ["CREATE TABLE mine (a TEXT) STRICT"])
        ledger.check_schema("mine", 1)
        ledger.ensure_schema("mine", 2, ["ALTER TABLE mine ADD COLUMN b TEXT"])
        with pytest.raises(StoreNewerError, match="mine"):
            ledger.check_schema("mine", 1)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
        connection.execute("ALTER TABLE checkpoint RENAME TO something_new")
    with pytest.raises(StoreNewerError) as refused:
        Ledger.open(tmp_path, key)
    assert refused.value.code == "store-newer" and "version 2" in str(refused.value) and "upgrade" in refused.value.hint


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 31, 32, 33])
def test_the_proof_of_an_entry_just_written_needs_no_reading(history: Any, count: int) -> None:
    """What is made of the tree's edge in memory is, byte for byte, what the store gives."""
    for number in range(count):
        appended = history.append("note", {"a": number, "b": b"raw"})
        assert appended.last is not None
        bundle = history.bundle_of(appended)
        assert bundle == history.receipt_bundle(appended.index)
        assert verify_bundle(bundle, history.vkey).fields == {"a": number, "b": b"raw"}


def test_entries_written_together_are_proved_from_the_store(history: Any) -> None:
    waiting = [history.submit("note", {"a": number}) for number in range(50)]
    written = [one.result() for one in waiting]
    assert any(one.last is None for one in written)
    for appended in written:
        assert verify_bundle(history.bundle_of(appended), history.vkey).entry.index == appended.index
