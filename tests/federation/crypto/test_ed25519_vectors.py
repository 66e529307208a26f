"""C2SP's 914 edge cases of Ed25519 verification: every outcome is fixed, and the checks of ours are shown to matter.

Refused, as by ed25519-dalek's ``verify_strict``: any vector flagged ``low_order_A``, ``low_order_R``,
``non_canonical_A``, ``non_canonical_R`` or ``low_order_residue`` (and with them all that are flagged ``reencoded_k``).
Accepted: the 43 others, whose points have a prime-order component and whose torsion, if any, cancels out.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation.crypto import KeyRefusedError, PublicKey, SignatureError, SigningKey, _edwards, keys
from tests.shared import SHARED

PATH = SHARED / "vectors" / "ed25519" / "ed25519vectors.json"
REFUSED = frozenset({"low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R", "low_order_residue"})
EIGHTH = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order eight."""

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


def test_libsodium_accepts_nothing_that_we_refuse(cases: list[Case]) -> None:
    """It is asked first and believed: so its "yes" must imply pyca's and every rule of ours, also where nobody asks it."""
    accepted = 0
    for case in cases:
        if keys._holds_at_once(case.key, case.signature, case.message):
            assert not case.flags & REFUSED, case.number
            assert pyca_accepts(case), case.number
            accepted += 1
    assert accepted == 43


def test_torsion_in_a_signature_is_refused_by_both() -> None:
    """The equation is checked without the cofactor: R plus a point of order eight is another R, though 8R is the same."""
    plain = _made_with(bytes([1, *bytes(31)]), b"pay 1")
    PublicKey(plain[0]).verify(*plain[1:])
    twisted = _made_with(EIGHTH, b"pay 1")
    assert not keys._holds_at_once(*twisted)
    with pytest.raises(SignatureError, match="does not hold"):
        PublicKey(twisted[0]).verify(*twisted[1:])


def _made_with(torsion: bytes, message: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, signature, message: S fits R but for that point, which only the key's holder can bring in."""
    secret, nonce = 2**200 + 12345, 2**199 + 6789
    base = _edwards.decompress(bytes.fromhex("58" + "66" * 31))
    point = _edwards.decompress(torsion)
    assert base is not None and point is not None
    key, r = _code(_times(secret, base)), _code(_add(_times(nonce, base), point))
    challenge = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % _edwards.L
    return key, r + ((nonce + challenge * secret) % _edwards.L).to_bytes(32, "little"), message


def _add(one: _edwards.Point, other: _edwards.Point) -> _edwards.Point:
    p = _edwards.P
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % p, (one[1] + one[0]) * (other[1] + other[0]) % p
    c, d = 2 * one[3] * other[3] * _edwards.D % p, 2 * one[2] * other[2] % p
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % p, g * h % p, f * g % p, e * h % p


def _times(factor: int, point: _edwards.Point) -> _edwards.Point:
    result = (0, 1, 1, 0)
    for bit in bin(factor)[2:]:
        result = _edwards.double(result)
        result = _add(result, point) if bit == "1" else result
    return result


def _code(point: _edwards.Point) -> bytes:
    inverse = pow(point[2], -1, _edwards.P)
    x, y = point[0] * inverse % _edwards.P, point[1] * inverse % _edwards.P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def test_an_honest_signature_needs_libsodium_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate()
    signature = key.sign(b"plan")
    asked: list[bytes] = []
    held = keys._holds_at_once
    monkeypatch.setattr(keys, "_holds_at_once", lambda raw, sig, data: asked.append(data) or held(raw, sig, data))
    monkeypatch.setattr(keys, "_checked", lambda raw: None)  # no key of pyca's that could be asked
    key.public.verify(signature, b"plan")
    assert asked == [b"plan"]
    with pytest.raises(AttributeError):
        key.public.verify(signature, b"plans")


def test_what_libsodium_does_not_accept_is_for_pyca_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate()
    signature = key.sign(b"plan")
    monkeypatch.setattr(keys, "_holds_at_once", lambda raw, sig, data: False)
    key.public.verify(signature, b"plan")
    with pytest.raises(SignatureError, match="does not hold"):
        key.public.verify(signature, b"plans")
