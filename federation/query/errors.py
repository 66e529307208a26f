"""Why a question is not asked, or not answered."""

from __future__ import annotations

from federation.errors import DeniedError, KeyongError, UsageError, VerificationError


class QueryTextError(UsageError):
    """The SQL holds something that is not answered here; the sentence says where."""

    code = "query-text"


class QuerySchemaError(DeniedError):
    """A query asks for what a dataset's schema, or what is granted of it, does not hold."""

    code = "query-schema"


class QueryFailedError(KeyongError):
    """A node could not compute its part: a value does not fit what the plan can carry."""

    code = "query-failed"


class QueryVoidError(VerificationError):
    """An opened sum is not one that so many honest nodes can add up to."""

    code = "query-void"


class HintNotice(str):
    """A hint that is chosen before the error it goes with is made; a sentence of the catalogue."""

    __slots__ = ()
