"""What tests of tampering share: how an attacker with the file changes it, and what has to come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from federation.ledger import (
    Ledger,
    LedgerError,
    verify_ledger,
)
from federation.ledger.entry import decode, encode
from federation.ledger.merkle import leaf_hash
from tests.federation.ledger.parts import in_pages_of, in_parts_of

ORIGIN = "keyong/test/steelworks"
Tamper = Callable[..., list[tuple[Any, ...]]]


def fails(
    ledger: Ledger, error: type[LedgerError], index: int | None, *, fast: bool = True, **options: Any
) -> LedgerError:
    """The named error at the named entry: from the full rules in one go, in pages and in parts, and, where they see it, the
    fast ones."""
    for mode in ("whole", "pages", "parts", "hashes") if fast else ("whole", "pages", "parts"):
        with pytest.raises(error) as caught, in_parts_of(4), in_pages_of(256 if mode == "whole" else 2):
            verify_ledger(
                ledger.folder,
                ledger.vkey,
                hash_only=mode == "hashes",
                processes=2 if mode == "parts" else 1,
                **options,
            )
        assert type(caught.value) is error
        assert caught.value.index == index
    return caught.value


def data_of(tamper: Tamper, index: int) -> bytes:
    return bytes(tamper("SELECT data FROM entry WHERE idx = ?", index)[0][0])


def altered(data: bytes) -> bytes:
    """The same envelope with another nonce: well formed, and not what was written."""
    entry = decode(data, 0)
    return encode(dataclasses.replace(entry, nonce="f" * 32))


def put(tamper: Tamper, index: int, data: bytes) -> None:
    tamper("UPDATE entry SET data = ?, leaf = ? WHERE idx = ?", data, leaf_hash(data), index)


def shift(tamper: Tamper, start: int, by: int) -> None:
    """Renumber all rows from ``start`` on."""
    for table in ("entry", "field"):
        tamper(f"UPDATE {table} SET idx = -idx - 1 WHERE idx >= ?", start)
        tamper(f"UPDATE {table} SET idx = -idx - 1 + ? WHERE idx < 0", by)
