"""Digests: FIPS 180-4's example, one spelling."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.crypto import MalformedError, check_digest_text, digest, sha256, sha256_hex

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fips_180_4_example() -> None:
    assert sha256_hex(b"abc") == ABC
    assert sha256(b"abc") == bytes.fromhex(ABC)
    assert digest(b"abc") == "sha256:" + ABC


@settings(deadline=None)
@given(st.binary())
def test_a_digest_is_accepted_as_it_is(data: bytes) -> None:
    assert check_digest_text(digest(data)) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ABC,
        "sha256:" + ABC.upper(),
        "SHA256:" + ABC,
        "sha512:" + ABC,
        "sha256:" + ABC[:-1],
        "sha256:" + ABC + "0",
        "sha256:" + ABC + "\n",
        " sha256:" + ABC,
        "sha256:" + "\u0661" * 64,
        None,
        b"sha256:" + ABC.encode(),
    ],
)
def test_every_other_spelling_is_refused(text: Any) -> None:
    with pytest.raises(MalformedError):
        check_digest_text(text)
