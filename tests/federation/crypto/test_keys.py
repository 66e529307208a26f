"""Ed25519 keys: RFC 8032's vectors, one spelling, nothing malleable, nothing shown."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import KeyRefusedError, PublicKey, SignatureError, SigningKey, sha256_hex, write_private
from federation.errors import UsageError

# RFC 8032 section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.from_bytes(bytes(range(32)))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_rfc8032_vectors(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_bytes(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    PublicKey(bytes.fromhex(public)).verify(bytes.fromhex(signature), bytes.fromhex(message))


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64))
def test_what_is_signed_verifies_and_keys_survive_their_text(seed: bytes, data: bytes) -> None:
    key = SigningKey.from_bytes(seed)
    again = PublicKey.from_text(key.public.text)
    assert again == key.public
    assert hash(again) == hash(key.public)
    again.verify(key.sign(data), data)


@settings(deadline=None)
@given(st.integers(0, 511), st.binary(min_size=1, max_size=16))
def test_any_flipped_bit_is_refused(bit: int, data: bytes) -> None:
    key = SigningKey.from_bytes(bytes(range(32)))
    signature = bytearray(key.sign(data))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        key.public.verify(bytes(signature), data)
    with pytest.raises(SignatureError):
        key.public.verify(key.sign(data), data + b"\0")


def test_another_key_is_refused_and_named(key: SigningKey) -> None:
    other = SigningKey.generate().public
    with pytest.raises(SignatureError) as caught:
        other.verify(key.sign(b"x"), b"x")
    assert other.key_id in str(caught.value)
    assert caught.value.code == "signature"
    assert caught.value.exit_code == 4


def test_one_signature_cannot_be_turned_into_a_second(key: SigningKey) -> None:
    signature = key.sign(b"x")
    shifted = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(SignatureError, match=r"\(S\)"):
        key.public.verify(signature[:32] + shifted.to_bytes(32, "little"), b"x")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_64_bytes(key: SigningKey, length: int) -> None:
    with pytest.raises(SignatureError, match="64 bytes"):
        key.public.verify(bytes(length), b"x")


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), "x" * 32, bytearray(32), None])
def test_a_key_has_32_bytes(raw: Any) -> None:
    with pytest.raises((KeyRefusedError, TypeError)):
        PublicKey(raw)


def test_a_key_off_the_curve_is_refused() -> None:
    with pytest.raises(KeyRefusedError, match="point of the curve"):
        PublicKey((2).to_bytes(32, "little"))


def test_a_key_has_one_text(key: SigningKey) -> None:
    text = key.public.text
    assert text.startswith("ed25519:")
    spare_bits = text[:-2] + chr(ord(text[-2]) + 1) + "="
    for wrong in (
        text[8:],
        text.upper(),
        text + "\n",
        text[:-1],
        spare_bits,
        "ed25519:" + key.public.raw.hex(),
        "ed25519:" + "\u00e9" * 44,
        "ed25519:",
        None,
    ):
        with pytest.raises(KeyRefusedError):
            PublicKey.from_text(wrong)  # type: ignore[arg-type]


def test_the_key_id_is_a_prefix_of_the_hash(key: SigningKey) -> None:
    assert key.public.key_id == sha256_hex(key.public.raw)[:16]


def test_public_keys_are_frozen(key: SigningKey) -> None:
    with pytest.raises(AttributeError):
        key.public.raw = bytes(32)  # type: ignore[misc]


def test_a_private_key_does_not_show_itself(key: SigningKey) -> None:
    for shown in (repr(key), str(key), f"{key}"):
        assert "redacted" in shown
        assert key.raw.hex() not in shown
        assert repr(key.raw) not in shown
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            spread(key)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(UsageError):
        SigningKey.from_bytes(bytes(length))


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().raw != SigningKey.generate().raw


def test_a_key_survives_its_file(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "statements.key"
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).raw == key.raw
    with pytest.raises(UsageError, match="exists already"):
        SigningKey.generate().save(path)
    assert SigningKey.load(path).raw == key.raw
    other = SigningKey.generate()
    other.save(path, replace=True)
    assert SigningKey.load(path).raw == other.raw


def test_a_key_that_others_can_read_is_not_used(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "statements.key"
    key.save(path)
    path.chmod(0o640)
    with pytest.raises(UsageError) as caught:
        SigningKey.load(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_other_files_are_not_taken_for_keys(tmp_path: Path) -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    contents = [
        b"",
        os.urandom(32),
        p256.private_bytes(*pem, serialization.NoEncryption()),
        p256.private_bytes(*pem, serialization.BestAvailableEncryption(b"password")),
        p256.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.key"
        write_private(path, content)
        with pytest.raises(UsageError, match="not an Ed25519 private key"):
            SigningKey.load(path)
