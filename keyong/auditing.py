"""Several parties' exports judged together: each one's integrity and anchoring, then whether they tell one story."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from federation.errors import VerificationError
from federation.keyring import ledger_of
from federation.ledger import (
    Checkpoint,
    Entry,
    Fork,
    ForkError,
    LedgerError,
    Verdict,
    VerifierKey,
    open_checkpoint,
    parse_note,
    prove_fork,
    roots_at,
    verify_ledger,
)
from federation.statements import Member
from federation.witnessing import Quorum
from keyong.embedded import StatementCheck
from keyong.evidence import Evidence, open_evidence
from keyong.facts import Facts
from keyong.reconciling import Discrepancy, Place, Reconciliation, reconcile
from keyong.rosters import EvidenceError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Audited:
    """One export, judged by itself.

    Attributes:
        origin: the ledger that it is of; several exports may be of one.
        verdict: None where its integrity does not hold; ``error`` then says why.
        state: ``unanchored``, ``partly witnessed``, ``witnessed`` or ``final``; empty without a verdict.
    """

    path: Path
    member: Member
    quorum: Quorum
    verdict: Verdict | None
    state: str
    origin: str
    error: VerificationError | None = None


@dataclass(frozen=True)
class ForkFound:
    """Two signed states of one ledger that cannot both be true; ``held_by`` had the one, the export shows the other."""

    member: str
    held_by: Place
    fork: Fork


@dataclass(frozen=True)
class Audit:
    """What came of an audit. It holds where every export has its integrity, and nothing was found."""

    ledgers: tuple[Audited, ...]
    forks: tuple[ForkFound, ...]
    reconciliation: Reconciliation

    @property
    def holds(self) -> bool:
        """Whether there is nothing to report."""
        intact = all(one.verdict is not None for one in self.ledgers)
        return intact and not self.forks and not self.reconciliation.findings

    @property
    def origins(self) -> frozenset[str]:
        """The ledgers that the exports are of, each once."""
        return frozenset(one.origin for one in self.ledgers)

    @property
    def intact(self) -> frozenset[str]:
        """The ledgers of which every export holds."""
        return self.origins - {one.origin for one in self.ledgers if one.verdict is None}

    @property
    def final(self) -> frozenset[str]:
        """The ledgers of which every export is final."""
        return self.origins - {one.origin for one in self.ledgers if one.state != "final"}


@dataclass
class _Export:
    """One export between its own verdict and the reconciliation."""

    path: Path
    audited: Audited
    facts: Facts
    vkey: VerifierKey
    number: int
    """Which of the member's ledgers it is."""
    held: list[tuple[bytes, Place]] = field(default_factory=list)


def audit(paths: Sequence[Path], fingerprint: str, progress: Callable[[Path], Progress] | None = None) -> Audit:
    """Judge exports (or homes) of one consortium, each by itself and all together.

    Args:
        fingerprint: of the consortium's root, from a source that is trusted.
        progress: gives, for each export, what is told entries done and in all.

    Raises:
        UsageError: there is no ledger at a path.
        EvidenceError: an export is of another consortium, or no export.
    """
    exports, coordinators, forks = [], set[str](), list[ForkFound]()
    for path in paths:
        with open_evidence(path, fingerprint) as evidence:
            coordinators |= evidence.rosters.coordinators
            exports.append(_judge(path, evidence, forks, progress(path) if progress is not None else None))
    newest = _one_each(exports)
    more, cut = _compare(exports, newest, fingerprint)
    by_member = {one.audited.member.id: one for one in sorted(newest.values(), key=_number)}
    found = reconcile([one.facts for one in by_member.values()], frozenset(coordinators))
    found = _leave_lost(found, {name for name, one in by_member.items() if _number(one) > 1})
    found = replace(found, findings=(*cut, *found.findings))
    return Audit(tuple(one.audited for one in exports), tuple((*forks, *more)), found)


def _judge(path: Path, evidence: Evidence, forks: list[ForkFound], progress: Progress | None) -> _Export:
    check, facts = StatementCheck(evidence.rosters, evidence.continues), Facts(evidence.member.id)

    def on_entry(entry: Entry, fields: Mapping[str, object]) -> int:
        checked = check.on_entry(entry, fields)
        facts.on_entry(entry, fields)
        return checked

    verdict, error = None, None
    try:
        verdict = verify_ledger(
            evidence.ledger,
            evidence.vkey,
            witnesses=evidence.quorum.keys,
            checkpoints=evidence.checkpoints,
            on_entry=on_entry,
            progress=progress,
        )
    except VerificationError as raised:
        error = raised
        if isinstance(raised, ForkError) and raised.evidence:
            fork = prove_fork(evidence.ledger, *raised.evidence)
            forks.append(ForkFound(evidence.member.id, Place(evidence.member.id, _size(fork.held)), fork))
    state = ""
    if verdict is not None:
        final = verdict.anchoring == "witnessed" and evidence.quorum.final(verdict.checkpoint, evidence.vkey)
        state = "final" if final else verdict.anchoring
    audited = Audited(path, evidence.member, evidence.quorum, verdict, state, evidence.vkey.name, error)
    number = ledger_of(evidence.history.latest.consortium, evidence.vkey.name)[1]
    return _Export(path, audited, facts, evidence.vkey, number)


def _number(export: _Export) -> int:
    return export.number


def _leave_lost(found: Reconciliation, renewed: set[str]) -> Reconciliation:
    """Of a member whose ledger was lost, what its new one lacks is no finding: the loss is on record with everybody."""
    accused = [one for one in found.findings if renewed.intersection(one.parties)]
    kept = tuple(one for one in found.findings if one not in accused)
    lost = {(name, "continued") for one in accused for name in renewed.intersection(one.parties)}
    return replace(found, findings=kept, unjudged=tuple(sorted({*found.unjudged, *lost})))


def _one_each(exports: Sequence[_Export]) -> dict[str, _Export]:
    """Of each ledger, by its origin, the longest history that holds; the others are compared with it."""
    found: dict[str, _Export] = {}
    for one in exports:
        origin = one.vkey.name
        if one.audited.verdict is not None and (origin not in found or found[origin].facts.size < one.facts.size):
            found[origin] = one
    return found


def _compare(
    exports: Sequence[_Export], newest: Mapping[str, _Export], fingerprint: str
) -> tuple[list[ForkFound], list[Discrepancy]]:
    """Hold each history against the checkpoints of it that other exports have."""
    newest_of = {one.audited.member.id: one for one in sorted(newest.values(), key=_number)}
    for one in exports:
        verdict, member = one.audited.verdict, one.audited.member.id
        if verdict is not None and newest[one.vkey.name] is not one:
            newest[one.vkey.name].held.append((verdict.checkpoint, Place(member, verdict.entries)))
        if verdict is not None:
            for node, note, entry in one.facts.notes:
                # Of a ledger that its owner lost, and that nobody brought, there is nothing to compare with.
                about = newest.get(_origin(note)) or (newest_of.get(node) if _number_in(newest_of, node) == 1 else None)
                if about is not None:
                    about.held.append((note, Place(member, entry)))
    forks, cut = list[ForkFound](), list[Discrepancy]()
    for one in newest.values():
        if one.held:
            with open_evidence(one.path, fingerprint) as evidence:
                found = _against(evidence, one)
            forks += found[0]
            cut += found[1]
    return forks, cut


def _against(evidence: Evidence, export: _Export) -> tuple[list[ForkFound], list[Discrepancy]]:
    """What others hold of one ledger and its export does not have: another history (one fork a state), or a longer one."""
    forks, cut = list[ForkFound](), list[Discrepancy]()
    verdict, member = export.audited.verdict, export.audited.member.id
    assert verdict is not None
    held = {_opened(export, note, place): (note, place) for note, place in export.held}
    roots = roots_at(evidence.ledger, [one.size for one in held])
    for checkpoint, (note, place) in held.items():
        if checkpoint.size > verdict.entries:
            cut.append(Discrepancy("cut-short", "", (member,), (place, Place(member, verdict.entries)), member))
        elif roots[checkpoint.size] != checkpoint.root:
            forks.append(ForkFound(member, place, prove_fork(evidence.ledger, note, verdict.checkpoint)))
    return forks, cut[:1]


def _opened(export: _Export, note: bytes, place: Place) -> Checkpoint:
    try:
        return open_checkpoint(note, export.vkey).checkpoint
    except LedgerError as error:
        raise EvidenceError(
            "{member} holds, at its entry {entry}, a checkpoint of {node} that does not hold: {why}",
            member=place.member,
            entry=place.entry,
            node=export.audited.member.id,
            why=str(error),
        ) from None


def _number_in(newest_of: Mapping[str, _Export], member: str) -> int:
    return newest_of[member].number if member in newest_of else 0


def _origin(note: bytes) -> str:
    return Checkpoint.parse(parse_note(note).text).origin


def _size(note: bytes) -> int:
    return Checkpoint.parse(parse_note(note).text).size


__all__ = ["Audit", "Audited", "Discrepancy", "ForkFound", "audit"]
