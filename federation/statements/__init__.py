"""Signed statements: the chain of authority from roster to receipt.

Each statement is canonical JSON in a DSSE envelope with its own payload type, and names the one before it by digest:
roster, agreement, job plan, invocation, receipt.

    >>> from federation.crypto import SigningKey
    >>> Envelope.__name__
    'Envelope'
"""

from federation.statements._base import (
    CLOCK_SKEW,
    MAX_STATEMENT_BYTES,
    ExpiredError,
    NotYetValidError,
    ReplayError,
    Statement,
    StatementError,
    instant_text,
    parse_instant,
)
from federation.statements.agreement import (
    Agreement,
    AgreementRequest,
    Fulfilment,
    Revocation,
    Suspension,
    open_agreement,
    open_offer,
)
from federation.statements.dataset import Column, DatasetDescription, row_bucket
from federation.statements.dataspace import DataspaceAnswer, DataspaceCall
from federation.statements.delivery import (
    ANCHORINGS,
    Anchoring,
    ReceivedReceipts,
    ResultAcknowledgement,
    files_digest,
    receipts_digest,
)
from federation.statements.dsse import Envelope, add_signature, sign, verify
from federation.statements.enrolment import EnrolmentRequest, Invitation, InvitationError, KeyChange, LedgerSuccession
from federation.statements.masking import (
    MASKED_COHORT,
    SETUP_ROUNDS,
    Acknowledgement,
    KeyAnnouncement,
    MaskedInput,
    ReleasedShares,
    RoundKeys,
    SealedShares,
    SurvivorSet,
    Withdrawal,
)
from federation.statements.plan import (
    ArraySpec,
    Encoding,
    Invocation,
    JobPlan,
    MetricSpec,
    OutputSchema,
    PlannedDataset,
    StageOutput,
)
from federation.statements.receipt import DecisionRecord, Isolation, Judged, Metered, Receipt
from federation.statements.roster import (
    Member,
    Root,
    RootMismatchError,
    Roster,
    RosterChainError,
    RosterHistory,
    RosterRolledBackError,
    UnknownMemberError,
    root_fingerprint,
)

__all__ = [
    "ANCHORINGS",
    "CLOCK_SKEW",
    "MASKED_COHORT",
    "MAX_STATEMENT_BYTES",
    "SETUP_ROUNDS",
    "Acknowledgement",
    "Agreement",
    "AgreementRequest",
    "Anchoring",
    "ArraySpec",
    "Column",
    "DatasetDescription",
    "DataspaceAnswer",
    "DataspaceCall",
    "DecisionRecord",
    "Encoding",
    "EnrolmentRequest",
    "Envelope",
    "ExpiredError",
    "Fulfilment",
    "Invitation",
    "InvitationError",
    "Invocation",
    "Isolation",
    "JobPlan",
    "Judged",
    "KeyAnnouncement",
    "KeyChange",
    "LedgerSuccession",
    "MaskedInput",
    "Member",
    "Metered",
    "MetricSpec",
    "NotYetValidError",
    "OutputSchema",
    "PlannedDataset",
    "Receipt",
    "ReceivedReceipts",
    "ReleasedShares",
    "ReplayError",
    "ResultAcknowledgement",
    "Revocation",
    "Root",
    "RootMismatchError",
    "Roster",
    "RosterChainError",
    "RosterHistory",
    "RosterRolledBackError",
    "RoundKeys",
    "SealedShares",
    "StageOutput",
    "Statement",
    "StatementError",
    "SurvivorSet",
    "Suspension",
    "UnknownMemberError",
    "Withdrawal",
    "add_signature",
    "files_digest",
    "instant_text",
    "open_agreement",
    "open_offer",
    "parse_instant",
    "receipts_digest",
    "root_fingerprint",
    "row_bucket",
    "sign",
    "verify",
]
