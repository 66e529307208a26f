"""The ledger as C2SP tiles, read back by nothing but the specification: files, SHA-256 and the note's key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.errors import UsageError
from federation.ledger import Ledger, LedgerUnavailableError, open_checkpoint
from federation.ledger.tiles import tile_path, tiles_of

SIZES = (0, 1, 255, 256, 257, 600)


def fill(ledger: Ledger, size: int) -> None:
    pending = [ledger.submit("note", {"number": number}) for number in range(ledger.size, size)]
    for one in pending:
        one.result()


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def root(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it stands there."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + root(hashes[:split]) + root(hashes[split:])).digest()


def read_log(folder: Path, size: int) -> list[bytes]:
    """Every entry, from the entry bundles."""
    found: list[bytes] = []
    for start in range(0, size, 256):
        width = min(256, size - start)
        data = (folder / tile_path("entries", start // 256, width)).read_bytes()
        while data:
            length = int.from_bytes(data[:2], "big")
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
    return found


@pytest.mark.parametrize("size", SIZES)
def test_what_the_checkpoint_signs_is_recomputed_from_the_files(ledger: Ledger, tmp_path: Path, size: int) -> None:
    fill(ledger, size)
    out = tmp_path / "out"
    ledger.write_tiles(out)
    signed = open_checkpoint((out / "checkpoint").read_bytes(), ledger.vkey).checkpoint
    entries = read_log(out, size)
    leaves = [leaf(data) for data in entries]
    assert (signed.size, len(entries), signed.root) == (size, size, root(leaves))
    for start in range(0, size, 256):
        part = leaves[start : start + 256]
        assert (out / tile_path(0, start // 256, len(part))).read_bytes() == b"".join(part)
    if whole := size // 256:
        tops = [root(leaves[256 * number : 256 * number + 256]) for number in range(whole)]
        assert (out / tile_path(1, 0, whole)).read_bytes() == b"".join(tops)


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(1, 5, 3) == "tile/1/005.p/3"
    assert tile_path("entries", 1000) == "tile/entries/x001/000"
    assert list(tiles_of(70_000))[-3:] == [(1, 0, 256), (1, 1, 17), (2, 0, 1)]


def test_a_growing_ledger_adds_what_is_new(ledger: Ledger, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(ledger, 300)
    ledger.write_tiles(out)
    whole = out / tile_path(0, 0)
    before = whole.stat().st_mtime_ns
    assert ledger.write_tiles(out) == 0
    fill(ledger, 520)
    assert ledger.write_tiles(out) == 5  # two tiles and two bundles of entries, and the level above
    assert whole.stat().st_mtime_ns == before
    assert open_checkpoint((out / "checkpoint").read_bytes(), ledger.vkey).checkpoint.size == 520


def test_no_field_is_in_the_files(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("note", {"purpose": "a value of the mill"})
    ledger.write_tiles(tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert not any(b"a value of the mill" in path.read_bytes() for path in files)


def test_another_ledgers_folder_is_refused_and_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ledger.append("note", {})
    ledger.write_tiles(out)
    before = (out / "checkpoint").read_bytes()
    (tmp_path / "other").mkdir()
    with Ledger.create(tmp_path / "other", "keyong/test/other", SigningKey.generate()) as other:
        with pytest.raises(UsageError, match="another ledger"):
            other.write_tiles(out)
    assert (out / "checkpoint").read_bytes() == before


def test_a_folder_that_cannot_be_written_says_so(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ledger.append("note", {})
    with pytest.raises(LedgerUnavailableError, match="tiles cannot be written"):
        ledger.write_tiles(tmp_path / "out")
