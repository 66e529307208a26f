"""Shares on their way to the node that holds them: HPKE (RFC 9180), base mode, X25519, HKDF-SHA256, AES-256-GCM.

Base mode does not say who sealed: the statement around the box is signed by its sender. What the box belongs to stands in
``info``, so a box moved elsewhere does not open.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from federation.crypto import canonical_json
from federation.secagg.mask_keys import PROTOCOL
from federation.secagg.shamir import SECRET_BYTES, ShareError, from_bytes, to_bytes

_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def box_context(
    plan: str, roster: str, cohort: str, first: int, attempt: int, rounds: int, sender: str, receiver: str
) -> bytes:
    """The ``info`` of a box."""
    return canonical_json(
        {
            "protocol": PROTOCOL,
            "use": "shares",
            "plan": plan,
            "roster": roster,
            "cohort": cohort,
            "first": first,
            "attempt": attempt,
            "rounds": rounds,
            "sender": sender,
            "receiver": receiver,
        }
    )


def seal_shares(shares: Sequence[tuple[int, int]], public: bytes, context: bytes) -> str:
    """Seal the shares of some rounds: each its mask key's and its self-mask seed's.

    Raises:
        ShareError: the public key is one to which nothing can be sealed.
    """
    plain = b"".join(to_bytes(key) + to_bytes(seed) for key, seed in shares)
    try:
        box = _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(public), context)
    except ValueError:
        raise ShareError("an announced box key is not one to seal to") from None
    return base64.b64encode(box).decode()


def open_shares(box: str, private: X25519PrivateKey, context: bytes, rounds: int) -> list[tuple[int, int]]:
    """Open what `seal_shares` sealed.

    Raises:
        ShareError: it was sealed to another, belongs elsewhere, or holds something else.
    """
    try:
        plain = _SUITE.decrypt(base64.b64decode(box, validate=True), private, context)
    except (InvalidTag, ValueError):
        raise ShareError("sealed shares do not open here") from None
    if len(plain) != 2 * SECRET_BYTES * rounds:
        raise ShareError("sealed shares are not of the rounds that were announced")
    values = [from_bytes(plain[at : at + SECRET_BYTES]) for at in range(0, len(plain), SECRET_BYTES)]
    return list(zip(values[::2], values[1::2], strict=True))
