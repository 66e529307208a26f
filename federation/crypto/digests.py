"""SHA-256 in the three forms the protocol uses: raw, hex, and the self-describing text ``sha256:<hex>``."""

from __future__ import annotations

import hashlib
import hmac
import re

from federation.crypto.errors import MalformedError

DIGEST_PREFIX = "sha256:"
_DIGEST_TEXT = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def sha256(data: bytes) -> bytes:
    """The 32 bytes of SHA-256 (FIPS 180-4) over ``data``."""
    return hashlib.sha256(data).digest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 over ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest(data: bytes) -> str:
    """SHA-256 over ``data`` as the text ``sha256:<64 lower-case hex digits>``."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def keyed_digest(secret: bytes, data: bytes) -> str:
    """HMAC-SHA-256 (RFC 2104) over ``data``, as a digest: who lacks ``secret`` cannot try guesses of the data against it."""
    return DIGEST_PREFIX + hmac.digest(secret, data, "sha256").hex()


def check_digest_text(text: str) -> str:
    """Return ``text`` if it is a digest's one spelling, else raise.

    One digest has one text, so that digests can be compared as strings: no upper case, no other algorithm.

    Raises:
        MalformedError: the text is anything but ``sha256:`` and 64 lower-case hex digits.
    """
    if not isinstance(text, str) or _DIGEST_TEXT.fullmatch(text) is None:
        raise MalformedError("not a digest: expected 'sha256:' and 64 lower-case hex digits")
    return text
