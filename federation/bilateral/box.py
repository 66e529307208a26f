"""A size on its way to the asker: HPKE (RFC 9180), base mode, X25519, HKDF-SHA256, AES-256-GCM, bound to its plan.

The node's signed receipt names the box's digest, which says who sealed it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from federation.bilateral.errors import BilateralPlanError, BilateralVoidError
from federation.bilateral.size import Told
from federation.crypto import canonical_json

_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_USE: Final = "keyong/intersection-size/v1"
_LENGTH: Final = 32
"""Bytes of every size, so that its length says nothing."""


@dataclass(frozen=True)
class Box:
    """The asker's key for one plan; in memory alone."""

    private: X25519PrivateKey = field(repr=False)

    @classmethod
    def fresh(cls) -> Self:
        """A new one."""
        return cls(X25519PrivateKey.generate())

    @property
    def public(self) -> str:
        """What the plan names."""
        return base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    def open(self, plan: str, sealed: bytes) -> Told:
        """What a node sealed for this plan.

        Raises:
            BilateralVoidError: it is for another, or something else.
        """
        try:
            said = json.loads(_SUITE.decrypt(sealed, self.private, _info(plan)))
            size = said["size"]
        except (InvalidTag, ValueError, KeyError, TypeError):
            raise BilateralVoidError("the size does not open, so it is not this plan's") from None
        if size is not None and (not isinstance(size, int) or size < 0):
            raise BilateralVoidError("the size does not open, so it is not this plan's")
        return Told(size)


def seal(box: str, plan: str, told: Told) -> bytes:
    """Seal a size to the asker's key.

    Args:
        plan: digest of the plan.

    Raises:
        BilateralPlanError: the key is one to which nothing can be sealed.
    """
    plain = canonical_json({"size": told.size}).ljust(_LENGTH)
    try:
        return _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(base64.b64decode(box)), _info(plan))
    except ValueError:
        raise BilateralPlanError("the plan's key is not one to seal to") from None


def _info(plan: str) -> bytes:
    return canonical_json({"use": _USE, "plan": plan})
