"""What the primitives refuse: each class is one kind of thing that does not hold."""

from __future__ import annotations

from federation.errors import UsageError, VerificationError


class CanonicalError(UsageError):
    """A value of ours has no canonical JSON form; the fault is in the caller, nothing was signed."""

    code = "canonical-json"


class MalformedError(VerificationError):
    """Bytes that came from outside do not have the form their reader demands."""

    code = "malformed"


class KeyRefusedError(VerificationError):
    """The bytes are not a public key that can bind its holder to what was signed."""

    code = "key"


class SignatureError(VerificationError):
    """A signature is missing or does not hold."""

    code = "signature"


class CertificateError(VerificationError):
    """A TLS certificate is not of the one form that links accept."""

    code = "certificate"
