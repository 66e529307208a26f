"""Erasing what entries of one's own ledger say, where no rule rests on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from federation.errors import DeniedError, UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.ledger import Entry, Ledger
from federation.statements import Agreement, Envelope
from keyong.disclosing import KEPT, AgreementEntries

Chosen = list[tuple[int, tuple[str, ...]]]
"""Entries, with the fields of each that are still there and are to go."""


class NotErasableError(DeniedError):
    """Rules rest on it, or it says what was erased."""

    code = "not-erasable"


def choose(
    home: Home, ledger: Ledger, entries: Collection[int], fields: Collection[str], agreement: str | None
) -> Chosen:
    """What is to be erased, of some entries or of all that are of one agreement.

    Raises:
        UsageError: nothing is named, or there is no such entry, field or agreement.
        NotErasableError: an entry that was named is one that rules rest on; the agreement is in force.
    """
    if bool(entries) == (agreement is not None):
        raise UsageError("name entries, or an agreement", hint="for example: keyong ledger erase 17 --reason TEXT")
    if agreement is None:
        chosen = [(index, _fields(ledger, index, fields)) for index in dict.fromkeys(entries)]
        for index, _ in chosen:
            _check(ledger, ledger.entry(index))
        return chosen
    found = AgreementEntries.of(ledger, _ended(home, agreement))
    chosen = []
    for index in sorted(found.indices):
        entry = ledger.entry(index)
        if entry.kind in KEPT or entry.kind == "dataset":
            continue
        _check(ledger, entry)
        there = ledger.fields(index).keys()
        names = tuple(sorted(there & set(fields) if fields else there))
        if names:
            chosen.append((index, names))
    if not chosen:
        raise UsageError("nothing of this agreement is left to erase", code="nothing-to-erase")
    return chosen


def erase(ledger: Ledger, chosen: Chosen, reason: str, by: str) -> list[int]:
    """Erase fields and record it, entry by entry; returns the entries that record it."""
    return [ledger.erase(index, names, reason, by).index for index, names in chosen]


def decided_by(home: Home, person: str) -> str:
    """Who decided an erasure, as it goes on record."""
    return f"{home.identity.member}: {person}"[:200]


def _fields(ledger: Ledger, index: int, fields: Collection[str]) -> tuple[str, ...]:
    ledger.entry(index)  # raises where there is none
    there = ledger.fields(index).keys()
    missing = sorted(set(fields) - there)
    if not there:
        raise UsageError("entry {index} has no field left to erase", index=index)
    if missing:
        raise UsageError("entry {index} has no field {field} to erase", index=index, field=", ".join(missing))
    return tuple(sorted(fields or there))


def _check(ledger: Ledger, entry: Entry) -> None:
    if entry.kind in KEPT:
        raise NotErasableError(
            "entry {index} is of the kind {kind}, which rules rest on", index=entry.index, kind=entry.kind
        )
    if entry.kind == "intent" and not _closed(ledger, entry.index):
        raise NotErasableError(
            "entry {index} is a step without an outcome",
            hint="a node closes open steps at its next start",
            index=entry.index,
        )


def _closed(ledger: Ledger, index: int) -> bool:
    settling: Sequence[str] = ("outcome", "aborted")
    return any(entry.kind in settling for entry in ledger.find(ref=index))


def _ended(home: Home, name: str) -> str:
    """The digest of an agreement that is over."""
    holding = Holdings(open_engine(home.path / "store.db")).find(name)
    envelope = Envelope.from_bytes(holding.envelope)
    over = envelope.payload_type == Agreement.TYPE and Agreement.read(envelope).expires <= now()
    if holding.state == "in-force" and not over:
        raise NotErasableError(
            "the agreement {id} is in force: its permits rest on what is on record",
            hint="wait until it has expired, or end it (`keyong agreement revoke`)",
            id=holding.id,
        )
    return holding.digest
