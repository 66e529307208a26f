"""C2SP's 914 edge cases of Ed25519 verification: every outcome is fixed, and the checks of ours are shown to matter.

Refused, as by ed25519-dalek's ``verify_strict``: any vector flagged ``low_order_A``, ``low_order_R``,
``non_canonical_A``, ``non_canonical_R`` or ``low_order_residue`` (and with them all that are flagged ``reencoded_k``).
Accepted: the 43 others, whose points have a prime-order component and whose torsion, if any, cancels out.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.crypto import KeyRefusedError, PublicKey, SignatureError, _edwards
from tests.shared import SHARED

PATH = SHARED / "vectors" / "ed25519" / "ed25519vectors.json"
REFUSED = frozenset({"low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R", "low_order_residue"})

pytestmark = pytest.mark.skipif(not PATH.is_file(), reason="the shared Ed25519 vectors are absent (KEYONG_SHARED)")


class Case(NamedTuple):
    number: int
    key: bytes
    signature: bytes
    message: bytes
    flags: frozenset[str]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [
        Case(
            item["number"],
            bytes.fromhex(item["key"]),
            bytes.fromhex(item["sig"]),
            item["msg"].encode(),
            frozenset(item["flags"] or ()),
        )
        for item in json.loads(PATH.read_text())
    ]


def pyca_accepts(case: Case) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(case.key).verify(case.signature, case.message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_every_outcome(cases: list[Case]) -> None:
    assert len(cases) == 914
    accepted = 0
    for case in cases:
        if case.flags & {"low_order_A", "non_canonical_A"}:
            with pytest.raises(KeyRefusedError):
                PublicKey(case.key)
        elif case.flags & {"low_order_R", "non_canonical_R"}:
            with pytest.raises(SignatureError, match=r"\(R\)"):  # by our check, whatever the library would say
                PublicKey(case.key).verify(case.signature, case.message)
        elif case.flags & REFUSED:
            with pytest.raises(SignatureError):
                PublicKey(case.key).verify(case.signature, case.message)
        else:
            PublicKey(case.key).verify(case.signature, case.message)
            accepted += 1
    assert accepted == 43


def test_pyca_alone_accepts_what_we_refuse(cases: list[Case]) -> None:
    """Without our checks on keys, signatures under keys that nobody holds would pass; without that on R, more."""
    low_order_keys = [case for case in cases if "low_order_A" in case.flags and pyca_accepts(case)]
    low_order_points = [
        case for case in cases if "low_order_R" in case.flags and "low_order_A" not in case.flags and pyca_accepts(case)
    ]
    assert len(low_order_keys) > 100
    assert low_order_points
    for case in low_order_keys:
        with pytest.raises(KeyRefusedError):
            PublicKey(case.key)
    for case in low_order_points:
        with pytest.raises(SignatureError, match=r"\(R\)"):
            PublicKey(case.key).verify(case.signature, case.message)


def test_one_signature_under_a_low_order_key_holds_for_every_message() -> None:
    """The attack itself: under the identity as key, R = [S]B holds whatever is said, with S chosen freely (here 1)."""
    identity = (1).to_bytes(32, "little")
    base = bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666")
    signature = base + (1).to_bytes(32, "little")
    for message in (b"pay 1", b"pay 1000000"):
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, message)
    with pytest.raises(KeyRefusedError, match="low order"):
        PublicKey(identity)


def test_the_table_of_low_order_points_is_complete() -> None:
    """The subgroup has eight points; the table holds all eight, and two spellings with a superfluous sign."""
    points = {code: _edwards.decompress(code) for code in _edwards.LOW_ORDER_ENCODINGS}
    found = {code for code, point in points.items() if point is not None and _edwards.is_low_order(point)}
    assert len(found) == 8
    assert points.keys() - found == {
        (1 | 1 << 255).to_bytes(32, "little"),
        (_edwards.P - 1 | 1 << 255).to_bytes(32, "little"),
    }


def test_arithmetic_agrees_with_the_flags(cases: list[Case]) -> None:
    for case in cases:
        for code, suffix in ((case.key, "A"), (case.signature[:32], "R")):
            point = _edwards.decompress(code)
            assert (point is None) == (f"non_canonical_{suffix}" in case.flags)
            if point is not None:
                assert _edwards.is_low_order(point) == (f"low_order_{suffix}" in case.flags)
