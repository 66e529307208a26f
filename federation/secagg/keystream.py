"""Masks added to vectors: AES-128 in counter mode, a chunk at a time, over all cores.

Each key is used for one vector once (see `mask_keys`), so the counter begins at zero. The vectors of a reply share one
keystream: each begins at a multiple of 16 bytes, a block of the cipher, behind the one before.

A chunk of the vector stays in a core's cache while the keystream of every key is added to it; the cipher and numpy give up
the interpreter's lock, so threads work on parts of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
_ZEROS: Final = bytes(CHUNK_BYTES)


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
    """Elements ``start`` to ``stop`` of one vector, whose keystream begins at block ``block``."""

    vector: Vector
    ring: Ring
    block: int


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
    if threads == 1:
        _add(pieces, keys)
        return
    shares = [share for share in _shared_out(pieces, threads) if share]
    with ThreadPoolExecutor(len(shares)) as pool:
        for done in [pool.submit(_add, share, keys) for share in shares]:
            done.result()


def _pieces(vectors: Sequence[tuple[Vector, Ring]]) -> Iterator[_Piece]:
    """Cut the vectors into chunks, in the order of the keystream."""
    block = 0
    for vector, ring in vectors:
        step = CHUNK_BYTES // ring.stream_bytes
        for start in range(0, len(vector), step):
            yield _Piece(vector[start : start + step], ring, block + start * ring.stream_bytes // BLOCK)
        block += -(-len(vector) * ring.stream_bytes // BLOCK)


def _shared_out(pieces: list[_Piece], threads: int) -> list[list[_Piece]]:
    size = -(-len(pieces) // threads)
    return [pieces[at : at + size] for at in range(0, len(pieces), size)]


def _add(pieces: Sequence[_Piece], keys: Sequence[MaskKey]) -> None:
    buffer = np.empty(CHUNK_BYTES, dtype=np.uint8).data
    if not pieces:
        return
    streams = [_Keystream(key.key, pieces[0].block) for key in keys]
    for piece in pieces:
        size = len(piece.vector) * piece.ring.stream_bytes
        for key, stream in zip(keys, streams, strict=True):
            stream.read(piece.block, buffer[:size])
            piece.ring.combine(piece.vector, buffer[:size], key.sign)


class _Keystream:
    """The keystream of one key, read forwards."""

    def __init__(self, key: bytes, block: int) -> None:
        self._key = key
        self._at = -1
        self._context: CipherContext
        self._seek(block)

    def read(self, block: int, into: memoryview) -> None:
        if block != self._at:
            self._seek(block)
        self._context.update_into(_ZEROS if len(into) == CHUNK_BYTES else memoryview(_ZEROS)[: len(into)], into)
        self._at = block + len(into) // BLOCK if len(into) % BLOCK == 0 else -1

    def _seek(self, block: int) -> None:
        counter = block.to_bytes(BLOCK, "big")
        self._context = Cipher(algorithms.AES(self._key), modes.CTR(counter)).encryptor()
        self._at = block
