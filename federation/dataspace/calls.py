"""Signed calls and answers: who says something to whom over HTTP, judged by the roster and by nothing of the transport."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from federation.crypto import PublicKey, SigningKey, digest
from federation.dataspace.terms import CALL_VALIDITY
from federation.errors import VerificationError
from federation.statements import DataspaceAnswer, DataspaceCall, Envelope

TOKEN_BYTES = 8192
"""Of a call's or an answer's signature with what it signs, in base64: what a header may take."""
SCHEME = "Bearer "


class CallRefusedError(VerificationError):
    """A call or an answer is not signed by who it claims to be from, or not for this."""

    code = "call-refused"


@dataclass(frozen=True)
class Call:
    """A call that was verified."""

    statement: DataspaceCall
    envelope: Envelope


def sign_call(
    key: SigningKey, by: str, to: str, method: Literal["GET", "POST"], path: str, body: bytes, now: datetime
) -> tuple[Envelope, str]:
    """The signed call, and the ``Authorization`` header that carries it."""
    statement = DataspaceCall(
        issued=now,
        expires=now + CALL_VALIDITY,
        id=f"urn:uuid:{uuid.uuid4()}",
        by=by,
        to=to,
        method=method,
        path=path,
        body=digest(body),
    )
    envelope = statement.seal(key)
    return envelope, SCHEME + base64.urlsafe_b64encode(envelope.to_bytes()).decode()


def open_call(
    token: str, me: str, method: str, path: str, body: bytes, key_of: Callable[[str], PublicKey], now: datetime
) -> Call:
    """Verify who calls: a member of the roster, now, for us, with exactly this.

    Raises:
        VerificationError: not so.
    """
    if not token.startswith(SCHEME):
        raise CallRefusedError("the call is not signed", hint="send `Authorization: Bearer` with a signed call")
    envelope = _envelope(token.removeprefix(SCHEME))
    claimed = DataspaceCall.read(envelope)
    call = DataspaceCall.open(envelope, [key_of(claimed.by)], now)
    if (call.to, call.method, call.path, call.body) != (me, method, path, digest(body)):
        raise CallRefusedError("the call was signed for another member, another address or another body")
    if call.expires - call.issued > CALL_VALIDITY + timedelta(seconds=1):
        raise CallRefusedError("the call claims to be good for longer than any is")
    return Call(call, envelope)


def sign_answer(key: SigningKey, by: str, call: Envelope, status: int, body: bytes, now: datetime) -> str:
    """The header that carries the signature under an answer."""
    statement = DataspaceAnswer(
        issued=now, expires=now + CALL_VALIDITY, by=by, call=call.digest, status=status, body=digest(body)
    )
    return base64.urlsafe_b64encode(statement.seal(key).to_bytes()).decode()


def check_answer(
    token: str, by: str, call: Envelope, status: int, body: bytes, key_of: Callable[[str], PublicKey], now: datetime
) -> None:
    """Raise unless ``by`` signed this very answer to this very call."""
    answer = DataspaceAnswer.open(_envelope(token), [key_of(by)], now)
    if (answer.by, answer.call, answer.status, answer.body) != (by, call.digest, status, digest(body)):
        raise CallRefusedError("the answer was signed for another call, or is not what was signed")


def _envelope(token: str) -> Envelope:
    if len(token) > TOKEN_BYTES:
        raise CallRefusedError("the signature is larger than any ({limit} bytes)", limit=TOKEN_BYTES)
    try:
        return Envelope.from_bytes(base64.b64decode(token, altchars=b"-_", validate=True))
    except ValueError:
        raise CallRefusedError("the signature cannot be read") from None
