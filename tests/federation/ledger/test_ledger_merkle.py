"""The tree against RFC 6962's vectors and against itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.ledger.errors import ProofError
from federation.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeSource,
    complete_root,
    consistency_proof,
    frontier_at,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_root,
    verify_consistency,
    verify_extension,
    verify_inclusion,
)
from tests.shared import SHARED

VECTORS = SHARED / "vectors" / "rfc6962" / "testdata"


def vectors(kind: str) -> list[Any]:
    paths = sorted((VECTORS / kind).rglob("*.json"))
    if not paths:
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no RFC 6962 vectors at {VECTORS}"))]
    return [pytest.param(json.loads(path.read_text()), id=str(path.relative_to(VECTORS))) for path in paths]


def decoded(case: dict[str, Any]) -> Iterator[bytes]:
    yield from (base64.b64decode(one) for one in case["proof"] or [])


@pytest.mark.parametrize("case", vectors("inclusion"))
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    leaf, root = base64.b64decode(case["leafHash"]), base64.b64decode(case["root"])

    def verify() -> None:
        verify_inclusion(leaf, case["leafIdx"], case["treeSize"], list(decoded(case)), root)

    if case["wantErr"]:
        with pytest.raises(ProofError):
            verify()
    else:
        verify()


@pytest.mark.parametrize("case", vectors("consistency"))
def test_consistency_vectors(case: dict[str, Any]) -> None:
    roots = base64.b64decode(case["root1"]), base64.b64decode(case["root2"])

    def verify() -> None:
        verify_consistency(case["size1"], roots[0], case["size2"], roots[1], list(decoded(case)))

    if case["wantErr"]:
        with pytest.raises(ProofError):
            verify()
    else:
        verify()


def test_all_vectors_are_there() -> None:
    if not VECTORS.is_dir():
        pytest.skip(f"no RFC 6962 vectors at {VECTORS}")
    assert [len(list((VECTORS / kind).rglob("*.json"))) for kind in ("inclusion", "consistency")] == [98, 98]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


def source(hashes: list[bytes]) -> NodeSource:
    return lambda level, index: complete_root(hashes[index << level : (index + 1) << level])


def reference_root(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(reference_root(hashes[:split]), reference_root(hashes[split:]))


@given(st.integers(0, 600))
def test_frontier_equals_the_definition(size: int) -> None:
    hashes = leaves(size)
    frontier = Frontier()
    tiles = [tile for one in hashes for tile in frontier.append(one)]
    assert frontier.root() == reference_root(hashes) == range_root(0, size, source(hashes))
    assert [(tile.level, tile.number) for tile in tiles] == [(1, number) for number in range(size // 256)]
    assert [tile.hash for tile in tiles] == [
        reference_root(hashes[256 * number : 256 * number + 256]) for number in range(size // 256)
    ]
    again = frontier_at(size, source(hashes))
    assert (again.size, again.stack) == (frontier.size, frontier.stack)


@given(st.data())
def test_every_proof_holds_and_no_other_statement_does(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    node = source(hashes)
    root, old_root = reference_root(hashes), reference_root(hashes[:old])
    path = inclusion_proof(index, size, node)
    verify_inclusion(hashes[index], index, size, path, root)
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(b"other"), index, size, path, root)
    proof = consistency_proof(old, size, node)
    verify_consistency(old, old_root, size, root, proof)
    with pytest.raises(ProofError):
        verify_consistency(old, leaf_hash(b"other"), size, root, proof)


def test_the_two_entry_points_differ_on_size_zero() -> None:
    root = reference_root(leaves(3))
    with pytest.raises(ProofError):
        verify_consistency(0, EMPTY_ROOT, 3, root, [])
    verify_extension(0, EMPTY_ROOT, 3, root, [])
    with pytest.raises(ProofError):
        verify_extension(0, EMPTY_ROOT, 3, root, [root])
    with pytest.raises(ProofError):
        verify_extension(0, root, 3, root, [])
    with pytest.raises(ProofError):
        verify_extension(2, reference_root(leaves(2)), 3, root, [])


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)


def test_no_proof_outside_the_tree() -> None:
    node = source(leaves(3))
    for wrong in (-1, 3):
        with pytest.raises(ProofError):
            inclusion_proof(wrong, 3, node)
    with pytest.raises(ProofError):
        consistency_proof(4, 3, node)
