"""What encoding and adding replies may refuse."""

from __future__ import annotations

from federation.errors import DeniedError, VerificationError


class EncodingError(DeniedError):
    """A reply does not fit the plan's encoding; it is not sent rather than bent until it fits."""

    code = "encoding"


class WeightError(EncodingError):
    """A node's weight lies outside the plan's bounds, for which ring and precision were chosen."""

    code = "encoding-weight"


class ReplyFormatError(VerificationError):
    """An encoded reply is not, byte for byte, of the form that plan and broadcast content fix."""

    code = "reply-format"


class AggregateVoidError(VerificationError):
    """The sum does not open to what it must: the round counts for nothing and nothing of it is shown."""

    code = "aggregate-void"
