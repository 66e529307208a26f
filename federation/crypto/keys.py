"""Ed25519 keys (RFC 8032) with strict verification: one signature, one meaning, one holder.

Libraries differ on which malformed signatures they accept, and pyca accepts keys of low order, under which a signature
holds for messages nobody signed. So the rules of `ed25519-dalek`'s ``verify_strict`` are applied here, on top of pyca:

1. a key's encoding is canonical, a point of the curve, and not of low order (checked once per key, when it is made);
2. a signature's S is below the group order, so that nobody can turn one valid signature into another;
3. a signature's R is canonical and not of low order;
4. the equation is checked without the cofactor: ``[S]B = R + [k]A``.

The equation is asked of libsodium (PyNaCl) first, in half of OpenSSL's time. What it accepts holds; what it does not, pyca
judges: libsodium has rules of its own for points, and they are not what decides here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NoReturn, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.crypto import _edwards
from federation.crypto.errors import KeyRefusedError, SignatureError
from federation.crypto.private_files import read_private, write_private
from federation.errors import UsageError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_ID_CHARACTERS = 16
_TEXT_PREFIX = "ed25519:"


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key that has passed every check; holding one means it is fit to verify with.

    Args:
        raw: the 32 bytes of RFC 8032's encoding.

    Raises:
        KeyRefusedError: wrong length, not canonical, not on the curve, or of low order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        _checked(self.raw)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key that ``text`` (see `text`) names; the one canonical spelling only.

        Raises:
            KeyRefusedError: not this spelling, or not an acceptable key.
        """
        if not isinstance(text, str) or not text.startswith(_TEXT_PREFIX):
            raise KeyRefusedError("a public key is written as 'ed25519:' and base64")
        try:
            raw = base64.b64decode(text[len(_TEXT_PREFIX) :].encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise KeyRefusedError("the public key is not valid base64") from None
        key = cls(raw)
        if key.text != text:
            raise KeyRefusedError("the public key's base64 is not in its canonical form")
        return key

    @cached_property
    def text(self) -> str:
        """``ed25519:`` and the standard base64 of the raw key: how statements name a key."""
        return _TEXT_PREFIX + base64.b64encode(self.raw).decode("ascii")

    @cached_property
    def key_id(self) -> str:
        """The first 16 hex digits of SHA-256 over the raw key: a hint for finding a key, never a proof of it."""
        return hashlib.sha256(self.raw).hexdigest()[:KEY_ID_CHARACTERS]

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return if ``signature`` is this key's over ``data``; raise otherwise.

        Raises:
            SignatureError: wrong length, malleable S, an R of low order or not canonical, or not over this data.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError("a signature by key {key_id} has not 64 bytes", key_id=self.key_id)
        r = signature[:32]
        if int.from_bytes(signature[32:], "little") >= _edwards.L:
            raise SignatureError("a signature by key {key_id} is not in its canonical form (S)", key_id=self.key_id)
        if r in _edwards.LOW_ORDER_ENCODINGS or not _edwards.is_canonical_y(r):
            raise SignatureError("a signature by key {key_id} has an unacceptable point (R)", key_id=self.key_id)
        key = _checked(self.raw)
        if _holds_at_once(self.raw, signature, data):
            return
        try:
            key.verify(signature, data)
        except InvalidSignature:
            raise SignatureError("the signature by key {key_id} does not hold", key_id=self.key_id) from None

    def __repr__(self) -> str:
        return f"PublicKey({self.text!r})"


class SigningKey:
    """An Ed25519 private key that does not show itself: not in `repr`, not through pickle or copy.

    The public half is computed here, never taken from a caller, so that no signature can leak the key through a
    mismatched pair.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The key of RFC 8032's 32-byte seed.

        Raises:
            UsageError: not 32 bytes.
        """
        if len(raw) != KEY_BYTES:
            raise UsageError("an Ed25519 private key has 32 bytes")
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key that `save` wrote, from a file that only its owner can read.

        Raises:
            UsageError: absent, open to others (see `read_private`), or not an unencrypted Ed25519 key in PEM.
        """
        data = read_private(path)
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("{path} is not an Ed25519 private key in PEM", path=path)
        return cls(key)

    def save(self, path: Path, *, replace: bool = False) -> None:
        """Write the key as PKCS #8 PEM, mode 0600, atomically; an existing file stays unless ``replace``.

        Raises:
            UsageError: the file exists.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem, replace=replace)

    @property
    def raw(self) -> bytes:
        """The 32-byte seed. Secret."""
        return self._key.private_bytes_raw()

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    def derive(self, purpose: str) -> bytes:
        """32 secret bytes for one purpose, always the same for this key, from which neither the key nor those of another
        purpose can be told (HKDF-SHA256, RFC 5869)."""
        return HKDF(hashes.SHA256(), KEY_BYTES, None, b"keyong " + purpose.encode()).derive(self.raw)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over ``data`` (pure Ed25519, deterministic)."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey(<redacted>, public={self._public.text!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key cannot be pickled or copied")


def _holds_at_once(raw: bytes, signature: bytes, data: bytes) -> bool:
    """Whether libsodium accepts; where it does not, nothing is decided."""
    opened, refused = _sodium()
    try:
        opened(signature + data, raw)
    except refused:
        return False
    return True


@cache
def _sodium() -> tuple[Callable[[bytes, bytes], bytes], type[Exception]]:
    # Imported when it is first needed: it loads a library, and most commands verify nothing.
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    return crypto_sign_open, BadSignatureError


@lru_cache(maxsize=4096)
def _checked(raw: bytes) -> Ed25519PublicKey:
    """pyca's key for these bytes, after our checks; remembered, because verification is hot."""
    if not isinstance(raw, bytes) or len(raw) != KEY_BYTES:
        raise KeyRefusedError("an Ed25519 public key has 32 bytes")
    point = _edwards.decompress(raw)
    if point is None:
        raise KeyRefusedError("the public key is not the canonical encoding of a point of the curve")
    if _edwards.is_low_order(point):
        raise KeyRefusedError("the public key is a point of low order: signatures under it bind nobody")
    return Ed25519PublicKey.from_public_bytes(raw)
