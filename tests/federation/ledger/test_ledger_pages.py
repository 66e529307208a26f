"""inv6: a page that is accepted at once is one that the rules accept entry by entry, with the same findings.

The rules are the measure: whatever is done to a history, both ways end in the same findings or the same error.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import SigningKey
from federation.ledger import Checkpoint, Ledger, LedgerError, VerifierKey, cosign, parse_note, verify, verify_ledger
from federation.ledger._findings import Position
from federation.ledger._pages import Terms, accept
from federation.ledger._rows import Columns, Page, Row, stored_rows
from federation.ledger.entry import Entry, Field, decode, encode, seal
from federation.ledger.merkle import leaf_hash
from federation.ledger.note import COSIGNATURE, Note
from federation.ledger.replay import Replay
from federation.ledger.store import DATABASE, reading
from tests.federation.ledger.parts import in_pages_of

Tamper = Callable[..., list[tuple[Any, ...]]]


def rows_of(ledger: Ledger) -> list[Row]:
    with reading(ledger.folder / DATABASE) as connection:
        return list(stored_rows(connection))


def outcome(replay: Replay, rows: list[Row], size: int) -> object:
    """What ``replay`` makes of the rows, in pages of ``size``: findings, or the error with its words and place."""
    seen: list[object] = []
    replay.on_entry = lambda entry, fields: seen.append((entry, dict(fields))) or len(fields)
    try:
        done = list(replay.run([rows[at : at + size] for at in range(0, len(rows), size)]))
    except LedgerError as error:
        return type(error), error.index, error.message, seen
    return done[-1], replay.position(), replay.findings(), seen


class ByRules(Replay):
    """The same, with every page judged entry by entry."""

    def _accepted(self, page: Page) -> bool:
        return False


class Noting(Replay):
    """The same; ``taken`` says which pages were accepted at once."""

    taken: ClassVar[list[bool]] = []

    def _accepted(self, page: Page) -> bool:
        self.taken.append(super()._accepted(page))
        return self.taken[-1]


def terms(vkey: VerifierKey, **changes: Any) -> Terms:
    return dataclasses.replace(Terms(vkey, (), lambda _: True, all_fields=True), **changes)


def test_honest_pages_are_accepted_with_what_the_rules_find(history: Ledger) -> None:
    rows = rows_of(history)
    for size in (1, 2, 3, 5, 12):
        Noting.taken.clear()
        found = outcome(Noting(history.vkey, all_fields=True), rows, size)
        assert len(Noting.taken) == -(-12 // size) and all(Noting.taken)
        whole = outcome(ByRules(history.vkey, all_fields=True), rows, 12)
        assert found[1:] == whole[1:]  # type: ignore[index]


def test_an_export_that_discloses_some_is_accepted_too(history: Ledger) -> None:
    rows = [row._replace(columns=None, fields=dict(list(row.fields.items())[1:])) for row in rows_of(history)]
    page = accept(rows, Position(), terms(history.vkey, all_fields=False))
    assert page is not None and page.findings.withheld == 12
    assert accept(rows, Position(), terms(history.vkey)) is None  # in a store, they would be gone
    for size in (3, 12):
        plain = outcome(Replay(history.vkey), rows, size)
        assert plain[1:] == outcome(ByRules(history.vkey), rows, 12)[1:]  # type: ignore[index]


def test_cosignatures_in_a_page_count(history: Ledger) -> None:
    key = SigningKey.generate()
    witness = VerifierKey("witness.example", key.public, COSIGNATURE)
    note = parse_note(history.checkpoint())
    signed = Note(note.text, (*note.signatures, cosign(Checkpoint.parse(note.text), "witness.example", key, 1)))
    history.add_cosignatures(signed.encode(), [witness])
    page = accept(rows_of(history), Position(), terms(history.vkey, witnesses=[witness]))
    assert page is not None and (page.findings.anchored, page.findings.anchors) == (12, ("witness.example",))
    other = SigningKey.generate()
    stranger = VerifierKey("witness.example", other.public, COSIGNATURE)
    page = accept(rows_of(history), Position(), terms(history.vkey, witnesses=[stranger]))
    assert page is not None and page.findings.anchors == ()


def test_a_tile_that_does_not_hold_is_not_accepted(ledger: Ledger) -> None:
    for one in [ledger.submit("n", {}) for _ in range(256)]:
        one.result(30)
    rows = rows_of(ledger)
    assert accept(rows, Position(), terms(ledger.vkey)) is not None
    assert accept(rows, Position(), terms(ledger.vkey, tiles_hold=lambda _: False)) is None
    assert accept(rows[:255], Position(), terms(ledger.vkey, tiles_hold=lambda _: False)) is not None


def test_what_others_hold_is_compared_by_the_rules(history: Ledger) -> None:
    """The last page is never taken at once: the last signed checkpoint is held beside the store."""
    with pytest.MonkeyPatch.context() as patch, in_pages_of(4):
        patch.setattr(verify, "Replay", Noting)
        for held, taken in (((), [True, True, False]), ((history.receipt_bundle(5),), [True, False, False])):
            Noting.taken.clear()
            verify_ledger(history.folder, history.vkey, receipts=held)
            assert Noting.taken == taken


# -- whatever is done to it ------------------------------------------------------------------------------------------


def _resealed(row: Row, **changes: object) -> Row:
    """An entry that says something else, in itself sound: columns and stored hash agree with it."""
    data = encode(dataclasses.replace(decode(row.data, row.place), **changes))
    entry = decode(data, row.place)
    return row._replace(data=data, columns=Columns(entry.kind, entry.ref, entry.time, leaf_hash(data)))


def _field(row: Row, change: Callable[[Field], Field]) -> Row:
    name, one = next(iter(row.fields.items()))
    return row._replace(fields={**row.fields, name: change(one)})


def _flipped(data: bytes, at: int) -> bytes:
    return data[: at % len(data)] + bytes([data[at % len(data)] ^ 1]) + data[at % len(data) + 1 :]


CHANGES: dict[str, Callable[[Row, int], Row]] = {
    "a bit of the entry": lambda row, at: row._replace(data=_flipped(row.data, at)),
    "a bit of the entry, hash renewed": lambda row, at: row._replace(
        data=_flipped(row.data, at),
        columns=row.columns and row.columns._replace(leaf=leaf_hash(_flipped(row.data, at))),
    ),
    "a bit of a payload": lambda row, at: _field(row, lambda one: one._replace(payload=_flipped(one.payload, at))),
    "a bit of a salt": lambda row, at: _field(row, lambda one: one._replace(salt=_flipped(one.salt, at))),
    "a salt cut": lambda row, at: _field(
        row, lambda one: one._replace(salt=one.salt[: at % 32], payload=one.salt[at % 32 :] + one.payload)
    ),
    "another form": lambda row, _: _field(row, lambda one: one._replace(form="raw" if one.form == "json" else "json")),
    "a field gone": lambda row, _: row._replace(fields=dict(list(row.fields.items())[1:])),
    "a field more": lambda row, _: row._replace(fields={**row.fields, "zz": seal("more")}),
    "a field of no name": lambda row, _: row._replace(fields={**row.fields, 'zz":"': seal("more")}),
    "another place": lambda row, at: row._replace(place=row.place + at % 3 - 1),
    "stated elsewhere": lambda row, at: _resealed(row, index=row.place + at % 3 - 1),
    "another nonce": lambda row, _: _resealed(row, nonce="f" * 32),
    "another time": lambda row, _: _resealed(row, time="2020-01-01T00:00:00.000Z"),
    "another kind": lambda row, _: _resealed(row, kind="intent"),
    "settles another": lambda row, at: _resealed(row, ref=at % max(1, row.place), kind="outcome"),
    "another kind beside": lambda row, _: row._replace(columns=row.columns and row.columns._replace(kind="owner")),
    "another ref beside": lambda row, _: row._replace(columns=row.columns and row.columns._replace(ref=0)),
    "another time beside": lambda row, _: row._replace(columns=row.columns and row.columns._replace(time="later")),
    "another hash beside": lambda row, _: row._replace(columns=row.columns and row.columns._replace(leaf=bytes(32))),
    "no checkpoint": lambda row, _: row._replace(note=None),
    "a bit of the checkpoint": lambda row, at: row._replace(note=row.note and _flipped(row.note, at)),
    "too long": lambda row, _: row._replace(data=row.data + b" " * 20_000),
    "spelled otherwise": lambda row, _: row._replace(data=row.data.replace(b'"v":1', b'"v": 1')),
}


def _entries_of(key: SigningKey, seed: int, *, note: bool) -> tuple[VerifierKey, list[Row]]:
    """Nine entries in one signed history, made here: intents, outcomes, and one that stands alone."""
    from federation.ledger import sign_checkpoint
    from federation.ledger.merkle import Frontier

    chance, frontier, rows, prev = random.Random(seed), Frontier(), [], bytes(32).hex()
    for index in range(9):
        kind = chance.choice(["intent", "outcome", "note"]) if index else "intent"
        ref = chance.randrange(index) if kind == "outcome" else None
        fields = {name: seal(chance.choice([1, "text", b"raw", {"a": ["b"]}])) for name in "abc"[: index % 4]}
        time = f"2026-03-01T12:00:0{index // 2}.000Z"
        entry = Entry(index, kind, prev, time, "0" * 32, ref, {name: one.commitment() for name, one in fields.items()})
        data = encode(entry)
        leaf = leaf_hash(data)
        frontier.append(leaf)
        prev = leaf.hex()
        signed = sign_checkpoint(Checkpoint("keyong/test/pages", index + 1, frontier.root()), key)
        last = note or index == 8 or chance.random() < 0.3
        rows.append(Row(index, data, fields, signed if last else None, Columns(kind, ref, time, leaf)))
    return VerifierKey("keyong/test/pages", key.public), rows


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 40),
    changes=st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 8), st.integers(0, 5000)), max_size=2),
    order=st.sampled_from(["kept", "swapped", "one gone", "one twice"]),
    size=st.integers(1, 9),
    all_fields=st.booleans(),
    note=st.booleans(),
)
def test_both_ways_end_the_same(
    key: SigningKey,
    seed: int,
    changes: list[tuple[str, int, int]],
    order: str,
    size: int,
    all_fields: bool,
    note: bool,
) -> None:
    vkey, rows = _entries_of(key, seed, note=note)
    for name, index, at in changes:
        with suppress(StopIteration, LedgerError):  # an entry without fields, one that says nothing
            rows[index] = CHANGES[name](rows[index], at)
    if order == "swapped":
        rows[3], rows[6] = rows[6]._replace(place=3), rows[3]._replace(place=6)
    elif order == "one gone":
        del rows[4]
    elif order == "one twice":
        rows.insert(4, rows[4])
    quick = outcome(Replay(vkey, all_fields=all_fields), rows, size)
    slow = outcome(ByRules(vkey, all_fields=all_fields), rows, size)
    assert quick == slow


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_change_is_seen_by_acceptance_itself(key: SigningKey, name: str) -> None:
    """Not only by the rules after it: taken at once, a changed page would never reach them."""
    vkey, rows = _entries_of(key, 3, note=False)
    assert accept(rows, Position(), terms(vkey)) is not None
    index = next(row.place for row in rows if row.fields and row.note is not None and row.place)
    changed = CHANGES[name](rows[index], 4)
    if changed == rows[index]:
        changed = CHANGES[name](rows[index], 5)
    assert changed != rows[index]
    found = accept([*rows[:index], changed, *rows[index + 1 :]], Position(), terms(vkey))
    if name == "no checkpoint":  # that one was not signed on the way is no fault
        assert found is not None and found.findings.signed == 9
    else:
        assert found is None


def test_a_hostile_store_that_lists_fields_twice_is_left_to_the_rules(history: Ledger, tamper: Tamper) -> None:
    tamper("ALTER TABLE field RENAME TO kept")
    tamper("CREATE TABLE field (idx, name, form, salt, payload)")
    tamper("INSERT INTO field SELECT * FROM kept")
    tamper("INSERT INTO field SELECT * FROM kept WHERE idx = 4")
    tamper("UPDATE field SET payload = CAST('7' AS BLOB) WHERE rowid = (SELECT max(rowid) FROM field)")
    with in_pages_of(2), pytest.raises(LedgerError) as caught:
        verify_ledger(history.folder, history.vkey)
    assert caught.value.index == 4
