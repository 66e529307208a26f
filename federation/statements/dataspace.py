"""What stands in for a login where two members speak HTTP: each call and each answer, signed by who made it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from federation.statements._base import Digest, MemberId, Statement, Uuid


class DataspaceCall(Statement):
    """One member calls another's dataspace endpoint, with exactly this body; good for minutes, and once.

    A gateway between them can withhold a call. It cannot alter one, address it to somebody else or play it again: an
    ``id`` that was seen is answered from the record.
    """

    TYPE: ClassVar[str] = "application/vnd.keyong.dataspace-call.v1+json"

    id: Uuid
    by: MemberId
    to: MemberId
    method: Literal["GET", "POST"]
    path: Annotated[str, StringConstraints(max_length=300, pattern=r"^/[A-Za-z0-9:._~/-]*$")]
    """Below the member's own base address."""
    body: Digest
    """Of the bytes of the body; of no bytes where there is none."""


class DataspaceAnswer(Statement):
    """A member answers one call, with this status and exactly this body."""

    TYPE: ClassVar[str] = "application/vnd.keyong.dataspace-answer.v1+json"

    by: MemberId
    call: Digest
    status: Annotated[int, Field(ge=200, le=599)]
    body: Digest
