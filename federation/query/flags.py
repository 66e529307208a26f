"""Contributor flags: which cells enough companies contribute to, said to the nodes and to nobody else.

Each node's flags (0 or 1 for each cell, the constant 1 before them) are masked and added like anything else, so a sum is all
that ever opens. The coordinator takes the masks off the sum, and shall neither learn it nor change it. So each flag ``f`` is
sent as the pair ``(f + g, a * f + h)`` over Z_t, where ``g`` and ``h`` are a keystream and ``a`` a number that the nodes alone
know (from a secret that each of them sealed to all others). From the sum of ``v`` nodes' pairs a node takes ``v * g`` and
``v * h``, and refuses unless the second is ``a`` times the first: who adds anything without knowing ``a`` is found out but
once in t.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from federation.crypto import canonical_json
from federation.query.errors import QueryVoidError
from federation.query.ring import MODULUS, RING
from federation.secagg import MaskKey, add_masks

PROTOCOL = "keyong/query/v1"
Elements = NDArray[np.uint64]


def derived(common: bytes, plan: str, use: str, size: int = 16) -> bytes:
    """A key of the nodes' common secret for one use in one plan."""
    info = canonical_json({"protocol": PROTOCOL, "plan": plan, "use": use})
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=info).derive(common)


def seal_flags(flags: Sequence[bool], common: bytes, plan: str) -> Elements:
    """A node's flags as it masks them: pairs, the constant 1's first.

    Args:
        common: the nodes' secret.
        plan: digest of the plan.
    """
    values = np.array([1, *flags], dtype=np.uint64)
    factor = _factor(common, plan)
    tagged = np.array([factor * int(value) % MODULUS for value in values], dtype=np.uint64)
    vector: Elements = np.concatenate([values, tagged])
    add_masks([(vector, RING)], [MaskKey(derived(common, plan, "flags"), 1)])
    return vector


def open_flags(total: Elements, cells: int, common: bytes, plan: str, nodes: int) -> list[int]:
    """How many nodes contribute to each cell, from the sum of so many nodes' flags.

    Raises:
        QueryVoidError: it is not their sum.
    """
    if total.shape != (2 * (cells + 1),) or total.dtype != np.uint64 or int(total.max(initial=0)) >= MODULUS:
        raise QueryVoidError("the sum of the contributor flags has another form; the query is void")
    blind: Elements = np.zeros(len(total), dtype=np.uint64)
    add_masks([(blind, RING)], [MaskKey(derived(common, plan, "flags"), 1)])
    values = [(int(value) - nodes * int(mask)) % MODULUS for value, mask in zip(total, blind, strict=True)]
    factor = _factor(common, plan)
    counts, tags = values[: cells + 1], values[cells + 1 :]
    authentic = all(count * factor % MODULUS == tag for count, tag in zip(counts, tags, strict=True))
    if not authentic or counts[0] != nodes or max(counts) > nodes:
        raise QueryVoidError("the sum of the contributor flags is not the nodes' own; the query is void")
    return counts[1:]


def _factor(common: bytes, plan: str) -> int:
    # 256 bits reduced: the distance from uniform is below 2^-200
    return int.from_bytes(derived(common, plan, "tags", 32), "little") % (MODULUS - 1) + 1
