"""Statements inside a ledger's entries: each is verified by its author's key, as the rosters have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.crypto import SignatureError
from federation.errors import KeyongError, UsageError, VerificationError
from federation.ledger import Checkpoint, Entry, LedgerError, VerifierKey, parse_note, verify_bundle
from federation.statements import (
    Agreement,
    DatasetDescription,
    Envelope,
    Fulfilment,
    Invocation,
    JobPlan,
    Receipt,
    ResultAcknowledgement,
    Revocation,
    Suspension,
)
from federation.statements.masking import (
    Acknowledgement,
    KeyAnnouncement,
    MaskedInput,
    ReleasedShares,
    SealedShares,
    SurvivorSet,
    Withdrawal,
)
from keyong.rosters import Rosters
from keyong.text import explain

PROOF_SUFFIX, RECEIPT_SUFFIX = ".proof.json", ".receipt.json"


class EmbeddedStatementError(VerificationError):
    """An entry holds a statement that its author did not sign; ``index`` is the entry's."""

    code = "embedded-statement"

    def __init__(self, template: str, *, index: int, field: str, why: str) -> None:
        self.index = index
        super().__init__(template, index=index, field=field, why=why)


class ContinuationError(LedgerError):
    """A ledger that follows a lost one does not begin with what the roster says of that."""

    code = "ledger-continuation"


class StatementCheck:
    """Verifies the statements of each entry; hand :meth:`on_entry` to ``verify_ledger``.

    Args:
        continues: the checkpoint that the ledger's first entry has to commit to, where it follows another one.
    """

    def __init__(self, rosters: Rosters, continues: str = "") -> None:
        self._rosters = rosters
        self._continues = continues

    @property
    def entities(self) -> dict[str, str]:
        """The legal entity of each member that ever was one, as the newest roster with it names it."""
        return {member.id: member.entity for roster in self._rosters.chain for member in roster.members}

    def on_entry(self, entry: Entry, fields: Mapping[str, Any]) -> int:
        """Verify every statement that the entry holds; returns how many that were.

        Raises:
            EmbeddedStatementError: one is malformed, or not signed by whom it names.
        """
        said = (entry.kind, fields.get("checkpoint", self._continues))  # a field that is not disclosed says nothing
        if self._continues and entry.index == 0 and said != ("continued", self._continues):
            raise ContinuationError(
                "the ledger follows one that was lost, and its first entry does not commit to the state that others vouch for",
                index=0,
            )
        count = 0
        for name, value in fields.items():
            if not isinstance(value, bytes):
                continue
            try:
                self.check(Envelope.from_bytes(value), offer=name == "offer", since=entry.time)
            except KeyongError as error:
                raise EmbeddedStatementError(
                    "entry {index} holds a statement ({field}) that does not hold: {why}",
                    index=entry.index,
                    field=name,
                    why=explain(error)[0],
                ) from None
            count += 1
        return count

    def check(self, envelope: Envelope, *, offer: bool = False, since: str = "") -> None:
        """Verify one statement by the keys that its authors had when it was put on record; other times are not judged, for
        this is history.

        Args:
            since: time of the entry that holds it.
        """
        for one in (Invocation, SurvivorSet):
            if envelope.payload_type == one.TYPE:
                one.texts(envelope)
                self._by_a_coordinator(envelope, since)
                return
        for member in self._authors(envelope, offer):
            self._rosters.signed_by(envelope, member, since=since)

    def _authors(self, envelope: Envelope, offer: bool) -> Sequence[str]:
        kind = envelope.payload_type
        if kind == Agreement.TYPE:
            agreement = Agreement.read(envelope)
            return [agreement.provider] if offer else [agreement.provider, agreement.consumer]
        if kind == Receipt.TYPE:
            return Receipt.texts(envelope, "node")
        for notice in (Revocation, Suspension, Fulfilment):
            if kind == notice.TYPE:
                return notice.texts(envelope, "by")
        if kind == ResultAcknowledgement.TYPE:
            return ResultAcknowledgement.texts(envelope, "requester")
        if kind == JobPlan.TYPE:
            return [JobPlan.read(envelope).requester]
        if kind == DatasetDescription.TYPE:
            return [DatasetDescription.read(envelope).provider]
        for masking in (KeyAnnouncement, MaskedInput, Acknowledgement, ReleasedShares, Withdrawal):
            if kind == masking.TYPE:
                return masking.texts(envelope, "node")
        if kind == SealedShares.TYPE:
            return SealedShares.texts(envelope, "sender")
        raise EvidenceTypeError("a statement of the unknown type {type}", type=kind[:80])

    def _by_a_coordinator(self, envelope: Envelope, since: str) -> None:
        for member in sorted(self._rosters.coordinators):
            try:
                self._rosters.signed_by(envelope, member, since=since)
                return
            except SignatureError:
                continue
        raise SignatureError("no coordinator of the rosters signed it")


class EvidenceTypeError(VerificationError):
    """An entry holds a statement of a type that this release does not know."""

    code = "statement-type"


def read_proofs(folder: Path, vkey: VerifierKey, check: StatementCheck) -> list[bytes]:
    """The receipts of this ledger in a folder, as ``keyong job result`` fetches them: bundles, each proved and signed.

    Raises:
        VerificationError: a proof does not hold, or the receipt beside it is another one than the entry holds.
        UsageError: there is no such folder, or it holds no receipt of this ledger.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(
            "{path} is not a folder" if folder.exists() else "the folder {path} does not exist",
            hint="give the folder that `keyong job result` made",
            path=folder,
        )
    if (folder / "receipts").is_dir():
        folder = folder / "receipts"
    found = []
    for path in sorted(folder.glob(f"*{PROOF_SUFFIX}")):
        data = path.read_bytes()
        if _origin(data) != vkey.name:
            continue
        bundle = verify_bundle(data, vkey)
        receipt = bundle.fields.get("receipt")
        beside = path.with_name(path.name.removesuffix(PROOF_SUFFIX) + RECEIPT_SUFFIX)
        if not isinstance(receipt, bytes):
            raise EvidenceTypeError("{path} proves an entry that holds no receipt", path=path)
        if beside.is_file() and beside.read_bytes() != receipt:
            raise EvidenceTypeError("{path} is not the receipt that the ledger's entry holds", path=beside)
        check.check(Envelope.from_bytes(receipt), since=bundle.entry.time)
        found.append(data)
    if not found:
        raise UsageError(
            "{path} holds no receipt of the ledger {origin}",
            hint="give the folder that `keyong job result` made",
            path=folder,
            origin=vkey.name,
        )
    return found


def _origin(data: bytes) -> str:
    import json

    try:
        return Checkpoint.parse(parse_note(json.loads(data)["checkpoint"].encode()).text).origin
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EvidenceTypeError("a receipt's proof cannot be read") from None
