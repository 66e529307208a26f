"""From secrets to mask keys: X25519, then HKDF over all that two nodes must agree on for their masks to cancel.

A key is bound to plan, roster, cohort, round, attempt, stage, the digest of the whole broadcast content, and its role: nodes
that were shown different models or configs hold different keys, and what does not cancel opens to nothing (arXiv
2111.07380).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.crypto import canonical_json, digest
from federation.secagg.keystream import KEY_BYTES
from federation.secagg.shamir import ShareError, to_bytes

PROTOCOL: Final = "keyong/masks/v1"
"""In every context, so that no key of one version is one of another."""


@dataclass(frozen=True)
class MaskContext:
    """What the masks of one round are bound to.

    Attributes:
        plan: digest of the plan.
        roster: digest of the roster that the plan names.
        cohort: see `cohort_digest`.
        round: counts the exchanges of the job.
        attempt: of the round.
        stage: of the plan, ``train`` or ``evaluate``.
        content: digest of the whole broadcast content.
    """

    plan: str
    roster: str
    cohort: str
    round: int
    attempt: int
    stage: str
    content: str

    def bind(self, role: str, *nodes: str) -> bytes:
        """The context of one key: ``pair`` with its two nodes, or ``self`` with its one."""
        return canonical_json(
            {
                "protocol": PROTOCOL,
                "plan": self.plan,
                "roster": self.roster,
                "cohort": self.cohort,
                "round": self.round,
                "attempt": self.attempt,
                "stage": self.stage,
                "content": self.content,
                "role": role,
                "nodes": sorted(nodes),
            }
        )


def cohort_digest(announcements: Mapping[str, str]) -> str:
    """The digest of a cohort: of who is in it, and of the very announcement of each.

    Args:
        announcements: digest of each node's announcement.
    """
    return digest(canonical_json({"protocol": PROTOCOL, "announcements": dict(sorted(announcements.items()))}))


def pair_key(private: int, public: bytes, context: MaskContext, own: str, other: str) -> bytes:
    """The mask key of two nodes, the same from either side.

    Args:
        private: one's secret, below the prime of `shamir`.
        public: the other's announced key.

    Raises:
        ShareError: the public key is one with which no secret can be agreed.
    """
    try:
        agreed = X25519PrivateKey.from_private_bytes(to_bytes(private)).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise ShareError("an announced mask key is not one to agree a secret with") from None
    return _derive(agreed, context.bind("pair", own, other))


def self_key(seed: int, context: MaskContext, node: str) -> bytes:
    """The key of the mask that covers a node's vector alone."""
    return _derive(to_bytes(seed), context.bind("self", node))


def public_of(private: int) -> bytes:
    """The public half of a mask key."""
    return X25519PrivateKey.from_private_bytes(to_bytes(private)).public_key().public_bytes_raw()


def commitment_to(seed: int) -> bytes:
    """What a node announces of its self-mask seed; it hides it, for a seed has 255 uniform bits."""
    return hashlib.sha256(b"keyong/self-mask-seed/v1\x00" + to_bytes(seed)).digest()


def encode_key(data: bytes) -> str:
    """32 bytes as statements hold them."""
    return base64.b64encode(data).decode()


def decode_key(text: str) -> bytes:
    """Read what `encode_key` wrote; spare bits set are another key's spelling, and refused.

    Raises:
        ShareError: not 32 bytes in their one spelling.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        data = b""
    if len(data) != 32 or encode_key(data) != text:
        raise ShareError("a key or share is not 32 bytes in base64")
    return data


def _derive(secret: bytes, context: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=context).derive(secret)
