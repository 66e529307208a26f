"""Masks added to vectors: the keystream of AES-128 in counter mode, a chunk at a time, over all cores.

Each key is used for one vector once (see `mask_keys`), so the counter begins at zero. The vectors of a reply share one
keystream: each begins at a multiple of 16 bytes, a block of the cipher, behind the one before.

A chunk stays in a core's cache while the keystreams of a thread's keys are added up, and is then added to the vector; the
cipher and numpy give up the interpreter's lock.

OpenSSL makes the same blocks faster for GCM than for CTR where the processor has the wide AES instructions (1.7 times here),
though it computes a tag beside them that nobody asks for. So GCM with a nonce of zeros, whose first block is number 2 (NIST SP
800-38D, 7.1), gives what follows the first two. It reads forwards only: threads share out the keys, not the vector.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from federation.secagg.rings import Ring, Vector

KEY_BYTES: Final = 16
BLOCK: Final = 16
CHUNK_BYTES: Final = 256 * 1024
"""Of keystream made at once: it and the part of the vector it goes to fit into a core's second-level cache."""
THREADED_BYTES: Final = 1024 * 1024
"""Keystream in all below which threads would cost more than they save."""
GCM_BLOCKS: Final = 1 << 32
"""Where GCM's counter of 32 bits would begin anew."""
_GCM_BEGIN: Final = 2
_ZEROS: Final = memoryview(bytes(CHUNK_BYTES))


@dataclass(frozen=True)
class MaskKey:
    """A key, and whether its mask is added or taken away.

    Attributes:
        sign: 1 or -1.
    """

    key: bytes = field(repr=False)
    sign: int


@dataclass(frozen=True)
class _Piece:
    """Some elements of one vector, whose keystream begins at block ``block``; the lock is for who changes them."""

    vector: Vector
    ring: Ring
    block: int
    lock: Lock = field(default_factory=Lock)


def add_masks(vectors: Sequence[tuple[Vector, Ring]], keys: Sequence[MaskKey], threads: int | None = None) -> None:
    """Add the masks of all keys to the vectors, in place.

    Args:
        vectors: each with the ring of its elements; one-dimensional, contiguous, of the ring's type.
        keys: each with its sign; a key must never be used for other vectors, or twice.
        threads: as many as there are cores by default; one where there is little to do.
    """
    total = sum(len(vector) * ring.stream_bytes for vector, ring in vectors) * len(keys)
    if threads is None:
        threads = 1 if total < THREADED_BYTES else len(os.sched_getaffinity(0))
    pieces = list(_pieces(vectors))
    shares = [keys[at::threads] for at in range(min(threads, len(keys)))]
    if len(shares) == 1:
        _add(pieces, keys)
    elif pieces and shares:
        with ThreadPoolExecutor(len(shares)) as pool:
            for done in [pool.submit(_add_up, pieces, share) for share in shares]:
                done.result()


def _pieces(vectors: Sequence[tuple[Vector, Ring]]) -> Iterator[_Piece]:
    """Cut the vectors into chunks, in the order of the keystream."""
    block = 0
    for vector, ring in vectors:
        step = CHUNK_BYTES // ring.stream_bytes
        for start in range(0, len(vector), step):
            yield _Piece(vector[start : start + step], ring, block + start * ring.stream_bytes // BLOCK)
        block += -(-len(vector) * ring.stream_bytes // BLOCK)


def _add(pieces: Sequence[_Piece], keys: Sequence[MaskKey]) -> None:
    """Add the masks of all keys to the pieces, which nobody else changes meanwhile."""
    streams = _Streams(keys, pieces)
    for piece in pieces:
        streams.add(piece, piece.vector)


def _add_up(pieces: Sequence[_Piece], keys: Sequence[MaskKey]) -> None:
    """The same beside other threads with other keys: added up apart first, so that a piece is nobody's for long."""
    streams = _Streams(keys, pieces)
    apart = np.empty(CHUNK_BYTES, dtype=np.uint8)
    for piece in pieces:
        total = apart[: piece.vector.nbytes].view(piece.vector.dtype)
        total.fill(0)
        streams.add(piece, total)
        with piece.lock:
            piece.ring.add(piece.vector, total)


class _Streams:
    """The keystreams of some keys, read piece by piece."""

    def __init__(self, keys: Sequence[MaskKey], pieces: Sequence[_Piece]) -> None:
        self._buffer = np.empty(CHUNK_BYTES, dtype=np.uint8).data
        wide = bool(pieces) and pieces[-1].block + CHUNK_BYTES // BLOCK <= GCM_BLOCKS and _gcm_is_faster()
        self._streams = [(key.sign, _Keystream(key.key, wide)) for key in keys]

    def add(self, piece: _Piece, to: Vector) -> None:
        """Add the masks of a piece to a vector of its length."""
        into = self._buffer[: len(piece.vector) * piece.ring.stream_bytes]
        for sign, stream in self._streams:
            stream.read(piece.block, into)
            piece.ring.combine(to, into, sign)


class _Keystream:
    """The keystream of one key, read forwards from its first block.

    Args:
        wide: made by GCM, as far as its counter goes.
    """

    def __init__(self, key: bytes, wide: bool) -> None:
        self._key, self._wide = key, wide
        self._at = 0  # in bytes
        self._context = _counting(key, 0)

    def read(self, block: int, into: memoryview) -> None:
        """Fill ``into`` with what begins at ``block``, which is at most the rest of a block further than was read."""
        self._skip(block * BLOCK - self._at)
        begin = _GCM_BEGIN * BLOCK - self._at
        if self._wide and 0 <= begin <= len(into):
            self._make(into[:begin])
            self._context = _from_second_block(self._key)
            into = into[begin:]
        self._make(into)

    def _skip(self, size: int) -> None:
        if size:
            self._make(memoryview(bytearray(size)))

    def _make(self, into: memoryview) -> None:
        self._context.update_into(_ZEROS[: len(into)], into)
        self._at += len(into)


def _counting(key: bytes, block: int) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(BLOCK, "big"))).encryptor()


def _from_second_block(key: bytes) -> CipherContext:
    """The keystream from block 2 on: the nonce is the upper 96 bits of the counter, and 1 is kept for the tag."""
    return Cipher(algorithms.AES(key), modes.GCM(bytes(12))).encryptor()


@cache
def _gcm_is_faster() -> bool:
    """Whether this processor and library make keystream faster by GCM; a matter of speed alone."""
    key, into = bytes(KEY_BYTES), memoryview(bytearray(CHUNK_BYTES))
    contexts = _counting(key, _GCM_BEGIN), _from_second_block(key)

    def seconds(context: CipherContext) -> float:
        began = time.thread_time()
        context.update_into(_ZEROS, into)
        return time.thread_time() - began

    plain, wide = (min(seconds(context) for _ in range(5)) for context in contexts)
    return wide < plain
