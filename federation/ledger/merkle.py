"""The Merkle tree of RFC 6962: hashing, an appendable frontier, and proofs with their verification.

Pure: bytes in, bytes out, or ``ProofError``. Hashes are 32 bytes (SHA-256); leaves and nodes are separated by a prefix
byte, so that no entry can pass for a subtree. Two entry points exist for consistency because two specifications
disagree on an old size of 0: ``verify_consistency`` (RFC 6962 vectors: an error) and ``verify_extension`` (C2SP
tlog-witness: an empty proof is right).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from federation.ledger.errors import ProofError

HASH_SIZE = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()
# A proof in a tree of fewer than 2**63 leaves never needs more.
MAX_PROOF_HASHES = 64

NodeSource = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree ``(level, index)``: the ``2**level`` leaves from ``index * 2**level`` on."""

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """Return SHA256(0x00 | data)."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA256(0x01 | left | right)."""
    return _sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power-of-two number of hashes of one level."""
    row = list(hashes)
    while len(row) > 1:
        row = [_sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row), 2)]
    return row[0]


@dataclass(frozen=True, slots=True)
class TileHash:
    """The root of a complete subtree of ``256**level`` leaves; ``number`` counts such subtrees from the left."""

    level: int
    number: int
    hash: bytes


@dataclass(slots=True)
class Frontier:
    """The right edge of a growing tree: one hash for each set bit of ``size``, largest subtree first."""

    size: int = 0
    stack: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> list[TileHash]:
        """Add one leaf hash and return the tile-level subtrees that it completed (usually none)."""
        done: list[TileHash] = []
        rest = self.size
        level = 0
        stack = self.stack
        node = leaf
        while rest & 1:
            node = _sha256(b"\x01" + stack.pop() + node).digest()
            level += 1
            rest >>= 1
            if not level % TILE_HEIGHT:
                done.append(TileHash(level // TILE_HEIGHT, rest, node))
        stack.append(node)
        self.size += 1
        return done

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        if not self.stack:
            return EMPTY_ROOT
        root = self.stack[-1]
        for left in reversed(self.stack[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent copy, to go back to."""
        return Frontier(self.size, list(self.stack))


def frontier_at(size: int, node: NodeSource) -> Frontier:
    """Rebuild the frontier of a tree of ``size`` leaves from its complete subtrees."""
    stack = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            stack.append(node(level, start >> level))
            start += 1 << level
    return Frontier(size, stack)


def _split(count: int) -> int:
    """Return the largest power of two below ``count`` (RFC 6962, section 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def range_root(start: int, stop: int, node: NodeSource) -> bytes:
    """Return the hash of leaves ``start:stop``, where ``start`` is aligned as RFC 6962 splits it."""
    count = stop - start
    if count <= 0:
        return EMPTY_ROOT
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(range_root(start, middle, node), range_root(middle, stop, node))


def inclusion_proof(index: int, size: int, node: NodeSource) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962, section 2.1.1)."""
    if not 0 <= index < size:
        raise ProofError("no entry {index} in a tree of {size}", index=index, size=size)
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(range_root(middle, stop, node))
            stop = middle
        else:
            path.append(range_root(start, middle, node))
            start = middle
    path.reverse()
    return path


def consistency_proof(old: int, new: int, node: NodeSource) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is a prefix of the tree of ``new`` (RFC 6962, section 2.1.2)."""
    if not 0 <= old <= new:
        raise ProofError("no consistency from {old} to {new}", old=old, new=new)
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, stop = 0, new
    whole = True  # the old tree is, so far, a complete subtree that the verifier already knows
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(range_root(middle, stop, node))
            stop = middle
        else:
            path.append(range_root(start, middle, node))
            start = middle
            whole = False
    if not whole:
        path.append(range_root(start, stop, node))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ``ProofError`` unless ``leaf`` is leaf ``index`` of the tree with ``root`` (RFC 9162, section 2.1.3.2)."""
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size:
        raise ProofError("no entry {index} in a tree of {size}", index=index, size=size)
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofError("the inclusion proof of entry {index} is too long", index=index)
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            node = node_hash(node, sibling)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("the inclusion proof of entry {index} is too short", index=index)
    if node != root:
        raise ProofError("entry {index} is not in the tree of {size} entries with this root", index=index, size=size)


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ``ProofError`` unless the new tree extends the old one; old size 0 is an error (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        raise ProofError("no consistency from {old} to {new}", old=old, new=new)
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("two roots for one size of {new}", new=new)
        return
    _check_hashes([old_root, new_root, *proof])
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is empty")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("the consistency proof is too long")
        if fn & 1 or fn == sn:
            first = node_hash(sibling, first)
            second = node_hash(sibling, second)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            second = node_hash(second, sibling)
        fn >>= 1
        sn >>= 1
    if sn:
        raise ProofError("the consistency proof is too short")
    if first != old_root or second != new_root:
        raise ProofError("the tree of {new} entries does not extend the tree of {old}", old=old, new=new)


def verify_extension(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """As ``verify_consistency``, but from size 0 an empty proof is right (C2SP tlog-witness)."""
    if old == 0:
        _check_hashes([new_root])
        if proof or old_root != EMPTY_ROOT or new < 0 or (new == 0 and new_root != EMPTY_ROOT):
            raise ProofError("from size 0 the proof and the old tree are empty")
        return
    verify_consistency(old, old_root, new, new_root, proof)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > MAX_PROOF_HASHES + 2 or any(len(one) != HASH_SIZE for one in hashes):
        raise ProofError("a proof is made of at most {limit} hashes of 32 bytes", limit=MAX_PROOF_HASHES)
