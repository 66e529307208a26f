"""The requester's word that a result reached it: which files, resting on which receipts of which nodes, anchored how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from federation.crypto import canonical_json, digest
from federation.statements._base import Count, Digest, MemberId, Part, Statement, Uuid

Anchoring = Literal["committed", "witnessed", "final"]
"""Who vouches for a history beside its owner: nobody yet, another company, or a quorum of them."""
ANCHORINGS: tuple[Anchoring, ...] = ("committed", "witnessed", "final")
_SET_DOMAIN = b"keyong/receipts/v1\x00"


class ReceivedReceipts(Part):
    """One node's receipts of a job, as the requester holds them."""

    node: MemberId
    count: Count
    digest: Digest
    """See :func:`receipts_digest`."""
    size: Count
    """Entries of the node's ledger under the newest checkpoint that proves them."""
    root: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    anchoring: Anchoring


class ResultAcknowledgement(Statement):
    """A result reached its requester, who verified the receipts it rests on; signed by the requester.

    With it, neither can the requester deny what it got, nor a node or the coordinator what was delivered.
    """

    TYPE: ClassVar[str] = "application/vnd.keyong.result-acknowledgement.v1+json"

    requester: MemberId
    coordinator: MemberId
    plan: Digest
    job: Uuid
    status: Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,40}$")]
    """What the job ended as, in the coordinator's words."""
    result: Digest
    """See :func:`files_digest`."""
    anchoring: Anchoring
    """The weakest among the nodes whose last answer is in the result."""
    nodes: Annotated[tuple[ReceivedReceipts, ...], Field(max_length=500)]


def receipts_digest(digests: Iterable[str]) -> str:
    """The digest of a set of statements: SHA-256 over a domain and their digests in ascending order."""
    texts = sorted(set(digests))
    return f"sha256:{hashlib.sha256(_SET_DOMAIN + ''.join(texts).encode('ascii')).hexdigest()}"


def files_digest(files: Iterable[tuple[str, int, str]]) -> str:
    """The digest of a result: of the canonical JSON of its files' paths, sizes and SHA-256 digests, ordered by path."""
    listed = [{"path": path, "size": size, "sha256": sha256} for path, size, sha256 in sorted(files)]
    return digest(canonical_json(listed))
