"""inv3: digests of data that others see tell nothing to who tries guesses of the data against them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from enterprise_node.datasets import data_secret, inspect_source
from enterprise_node.materialise import Grant, Snapshot, materialise_here
from enterprise_node.stages import grant_of
from keyong import registering


def taken(folder: Path, bits: tuple[bool, ...], secret: bytes) -> Snapshot:
    """The snapshot of one column of few values."""
    file = folder / "guess.csv"
    file.write_text("defect\n" + "".join(f"{str(bit).lower()}\n" for bit in bits))
    source = inspect_source(file)
    return materialise_here(
        Grant(str(file), source.reading, source.fingerprint, source.columns, secret=secret), folder / "out"
    )


def guessed(folder: Path, wanted: str) -> tuple[bool, ...] | None:
    """The rows that give this digest, found by trying all of them without the owner's secret."""
    for bits in itertools.product((False, True), repeat=3):
        found = taken(folder, bits, b"")
        found.discard()
        if found.digest == wanted:
            return bits
    return None


def test_a_receipts_digest_cannot_be_guessed_and_one_without_secret_is(tmp_path: Path) -> None:
    truth = (True, False, True)
    for secret, found in ((b"owner's", None), (b"", truth)):
        one = taken(tmp_path, truth, secret)
        one.discard()
        again = taken(tmp_path, truth, secret)
        again.discard()
        assert again.digest == one.digest  # the owner can show what it was of
        assert guessed(tmp_path, one.digest) == found


async def test_a_registered_dataset_goes_by_keyed_digests(world: Any) -> None:
    row = world.store.dataset("passes")
    source = inspect_source(Path(row.path))
    again = registering.describe_dataset(world.home, source, dataset="passes", title="Passes", simulated=True)
    assert again.data_version != source.data_version
    assert grant_of(world.home, row, {"x"}, "").secret == data_secret(world.home)
    assert data_secret(world.home) not in (world.home.key("statement").raw, b"")
    assert "secret" not in repr(grant_of(world.home, row, {"x"}, ""))
