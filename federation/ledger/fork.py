"""The proof that one ledger signed two histories, as a file: whoever has the ledger's key verifies it, and needs nothing else.

::

    {"format": "keyong-fork", "v": 1, "held": "<signed note>", "shown": "<signed note>",
     "root": "<base64>", "proof": ["<base64>", ...]}

``held`` says which root the first ``a`` entries have; ``shown`` is of ``b`` >= ``a`` entries. ``root`` is what the first ``a``
entries have in the tree of ``shown``, which the consistency proof shows: a tree has one root at each size. Where that is
another root than ``held`` says, the key signed both, and no honest ledger does.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from federation.crypto import MalformedError, canonical_json, parse_json
from federation.ledger._rows import Row, stored_rows
from federation.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from federation.ledger.errors import LedgerUnreadableError, ProofError
from federation.ledger.export import ExportReader
from federation.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeSource,
    consistency_proof,
    leaf_hash,
    node_hash,
    range_root,
    verify_consistency,
)
from federation.ledger.note import MAX_NOTE_BYTES, VerifierKey, parse_note
from federation.ledger.store import DATABASE, node_source, reading

FORMAT: Final = "keyong-fork"
VERSION: Final = 1
MAX_FORK_BYTES: Final = 4 * MAX_NOTE_BYTES + 64 * 1024


@dataclass(frozen=True)
class Fork:
    """Two signed states of one ledger that cannot both be true, and what shows it.

    Args:
        held: the note of the smaller state; ``shown``: of the larger one.
        root: of the first entries of ``shown``, as many as ``held`` has; ``proof``: that it is.
    """

    held: bytes
    shown: bytes
    root: bytes
    proof: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The file's bytes."""
        return canonical_json(
            {
                "format": FORMAT,
                "v": VERSION,
                "held": self.held.decode(),
                "shown": self.shown.decode(),
                "root": base64.b64encode(self.root).decode(),
                "proof": [base64.b64encode(one).decode() for one in self.proof],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Fork:
        """Read what :meth:`encode` wrote; raises ``LedgerUnreadableError``."""
        try:
            document = parse_json(data, limit=MAX_FORK_BYTES)
            if (document["format"], document["v"]) != (FORMAT, VERSION) or len(document) != 6:
                raise ValueError
            return cls(
                document["held"].encode(),
                document["shown"].encode(),
                base64.b64decode(document["root"], validate=True),
                tuple(base64.b64decode(one, validate=True) for one in document["proof"]),
            )
        except (MalformedError, KeyError, TypeError, AttributeError, ValueError, binascii.Error):
            raise LedgerUnreadableError("this is not a proof of a fork of this version") from None

    @property
    def origin(self) -> str:
        """Whose ledger it claims to be of."""
        return Checkpoint.parse(parse_note(self.held).text).origin


def is_fork(data: bytes) -> bool:
    """Whether this looks like the file of a fork's proof."""
    return data[:4096].lstrip()[:1] == b"{" and f'"format":"{FORMAT}"'.encode() in data.replace(b" ", b"")


def verify_fork(fork: Fork, vkey: VerifierKey) -> tuple[SignedCheckpoint, SignedCheckpoint]:
    """Return both signed states if they prove that ``vkey`` signed two histories.

    Raises:
        LedgerError: a note is not signed by this key.
        ProofError: both can be true, or what should show that they cannot does not hold.
    """
    held, shown = open_checkpoint(fork.held, vkey), open_checkpoint(fork.shown, vkey)
    old, new = held.checkpoint, shown.checkpoint
    verify_consistency(old.size, fork.root, new.size, new.root, fork.proof)
    if fork.root == old.root:
        raise ProofError("both checkpoints are of one history: there is no fork")
    return held, shown


def prove_fork(path: Path, held: bytes, shown: bytes) -> Fork:
    """Return the proof that the history at ``path`` (a folder or an export), signed as ``shown``, is not the one of ``held``.

    Raises:
        ProofError: the history there is not that of ``shown``, or extends ``held``.
    """
    old, new = (Checkpoint.parse(parse_note(one).text) for one in (held, shown))
    if path.is_dir():
        with reading(path / DATABASE) as connection:
            return _prove(node_source(connection), held, shown, old, new)
    with ExportReader(path) as reader:
        leaves = [leaf_hash(row.data) for row in reader.rows()]
    return _prove(source_of(leaves), held, shown, old, new)


def roots_at(path: Path, sizes: Iterable[int]) -> dict[int, bytes]:
    """The roots that the history at ``path`` has after so many entries each; sizes beyond its end are left out.

    Recomputed from the entries' bytes, which are not judged here.
    """
    wanted, frontier, found = set(sizes), Frontier(), {}
    if 0 in wanted:
        found[0] = EMPTY_ROOT
    with contextlib.ExitStack() as stack:
        rows: Iterator[Row]
        if path.is_dir():
            rows = stored_rows(stack.enter_context(reading(path / DATABASE)))
        else:
            rows = stack.enter_context(ExportReader(path)).rows()
        for row in rows:
            frontier.append(leaf_hash(row.data))
            if frontier.size in wanted:
                found[frontier.size] = frontier.root()
    return found


def source_of(leaves: Sequence[bytes]) -> NodeSource:
    """The complete subtrees over leaf hashes that are held in memory."""

    def node(level: int, index: int) -> bytes:
        if level == 0:
            if index >= len(leaves):
                raise ProofError("the history ends before what was signed of it")
            return leaves[index]
        return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return node


def _prove(node: NodeSource, held: bytes, shown: bytes, old: Checkpoint, new: Checkpoint) -> Fork:
    if old.size > new.size:
        raise ProofError("the history ends before what was signed of it")
    root = range_root(0, old.size, node)
    proof = tuple(consistency_proof(old.size, new.size, node))
    verify_consistency(old.size, root, new.size, new.root, proof)
    if root == old.root:
        raise ProofError("both checkpoints are of one history: there is no fork")
    return Fork(held, shown, root, proof)
