"""Files that lie on disk for a while and that the home's key alone opens: AES-256-GCM over chunks.

Form: ``KYHELD01 | 7-byte nonce prefix | chunks``; chunk ``i`` is sealed under ``prefix | u32be(i) | last`` (last is 1 for the
final one, else 0), so that a chunk cannot be left out, moved or taken for the end: the STREAM construction (Hoang, Reyhanitabar,
Rogaway, Vizár 2015). The first chunk is the head, JSON. An attacker who can modify a file can destroy it, no more.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from federation.crypto import read_private, write_private
from federation.errors import VerificationError

MAGIC = b"KYHELD01"
CHUNK = 2**20
KEY_BYTES = 32
_PREFIX_BYTES, _TAG_BYTES = 7, 16


class SealedFileError(VerificationError):
    """A sealed file was changed, cut short, or belongs to another home."""

    code = "sealed-file"


def seal_key(path: Path) -> bytes:
    """The key in a private file, made where there is none."""
    if not path.exists():
        write_private(path, secrets.token_bytes(KEY_BYTES))
    key = read_private(path)
    if len(key) != KEY_BYTES:
        raise SealedFileError("{path} holds no key", path=str(path))
    return key


def write_sealed(path: Path, key: bytes, head: dict[str, Any], body: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write head and body, readable to their owner alone; under its name only when it is whole and on disk."""
    partial = path.with_suffix(".partial")
    prefix, cipher = secrets.token_bytes(_PREFIX_BYTES), AESGCM(key)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + prefix)
            head_bytes = json.dumps(head, ensure_ascii=False).encode()
            file.write(len(head_bytes).to_bytes(4, "big"))
            waiting = head_bytes
            number = 0
            for piece in _pieces(body):
                file.write(cipher.encrypt(_nonce(prefix, number, last=False), waiting, None))
                waiting, number = piece, number + 1
            file.write(cipher.encrypt(_nonce(prefix, number, last=True), waiting, None))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_sealed(path: Path, key: bytes, *, body: bool = True) -> tuple[dict[str, Any], bytes]:
    """Head and body of a sealed file; without ``body`` the head alone, and of a file with a body only it is judged.

    Raises:
        SealedFileError: it is missing, changed, cut short, or sealed by another home.
    """
    try:
        with path.open("rb") as file:
            return _read(file, AESGCM(key), body)
    except (OSError, InvalidTag, ValueError):
        raise SealedFileError("the sealed file {name} is missing, or was changed", name=path.name[:80]) from None


def _read(file: BinaryIO, cipher: AESGCM, wanted: bool) -> tuple[dict[str, Any], bytes]:
    start = file.read(len(MAGIC) + _PREFIX_BYTES)
    if start[: len(MAGIC)] != MAGIC:
        raise ValueError("not a sealed file")
    prefix = start[len(MAGIC) :]
    size = int.from_bytes(file.read(4), "big") + _TAG_BYTES
    head: dict[str, Any] = {}
    body = bytearray()
    number, sealed = 0, file.read(size)
    while True:
        following = file.read(CHUNK + _TAG_BYTES)
        plain = cipher.decrypt(_nonce(prefix, number, last=not following), sealed, None)
        if number:
            body += plain
        else:
            head = dict(json.loads(plain))
            if not wanted:
                return head, b""
        if not following:
            return head, bytes(body)
        number, sealed = number + 1, following


def _pieces(body: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """The body in pieces of one size, the last one shorter; each is copied once."""
    held = bytearray()
    for buffer in body:
        view = memoryview(buffer).cast("B")
        for start in range(0, len(view), CHUNK):
            held += view[start : start + CHUNK]
            if len(held) >= CHUNK:
                yield bytes(held[:CHUNK])
                del held[:CHUNK]
    if held:
        yield bytes(held)


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])
