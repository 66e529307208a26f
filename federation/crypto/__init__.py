"""Primitives all parties agree on: canonical JSON, digests, strict Ed25519, private files and TLS identities.

>>> from federation.crypto import SigningKey, canonical_json, digest
>>> digest(canonical_json({"b": 1, "a": "0.1"}))
'sha256:f499afe2af03e8f0be2ac13e0cfd3c79241cdccbaa1f8b33e06a909535327e1a'
>>> key = SigningKey.generate()
>>> key.public.verify(key.sign(b"rolled"), b"rolled")  # raises SignatureError where it does not hold
"""

from __future__ import annotations

from federation.crypto.canonical import (
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    canonical_json,
    parse_json,
    restates,
    restates_plainly,
)
from federation.crypto.digests import DIGEST_PREFIX, check_digest_text, digest, keyed_digest, sha256, sha256_hex
from federation.crypto.errors import (
    CanonicalError,
    CertificateError,
    KeyRefusedError,
    MalformedError,
    SignatureError,
)
from federation.crypto.keys import KEY_BYTES, KEY_ID_CHARACTERS, SIGNATURE_BYTES, PublicKey, SigningKey
from federation.crypto.private_files import make_private_dir, read_private, remove_unfinished, write_private
from federation.crypto.tls import (
    CERTIFICATE_DAYS,
    GRPC_CIPHER_SUITES,
    Certificate,
    TlsIdentity,
    certificate_fingerprint,
    check_certificate,
    peer_fingerprint,
    server_name,
)

__all__ = [
    "CERTIFICATE_DAYS",
    "DIGEST_PREFIX",
    "GRPC_CIPHER_SUITES",
    "KEY_BYTES",
    "KEY_ID_CHARACTERS",
    "MAX_DEPTH",
    "MAX_SAFE_INTEGER",
    "SIGNATURE_BYTES",
    "CanonicalError",
    "Certificate",
    "CertificateError",
    "KeyRefusedError",
    "MalformedError",
    "PublicKey",
    "SignatureError",
    "SigningKey",
    "TlsIdentity",
    "canonical_json",
    "certificate_fingerprint",
    "check_certificate",
    "check_digest_text",
    "digest",
    "keyed_digest",
    "make_private_dir",
    "parse_json",
    "peer_fingerprint",
    "read_private",
    "remove_unfinished",
    "restates",
    "restates_plainly",
    "server_name",
    "sha256",
    "sha256_hex",
    "write_private",
]
