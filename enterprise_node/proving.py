"""Receipts proved anew under a checkpoint that others cosigned: what a requester asks for before it uses a result."""

from __future__ import annotations

import asyncio
import base64
from typing import Final

from federation.errors import UsageError
from federation.ledger import Ledger, parse_note
from federation.wire.messages import ProveReceipts, ReceiptProofs
from federation.wire.peer import Incoming, Outgoing, Peer

LOOKED_AT: Final = 256
"""Newest checkpoints among which the one with the most cosignatures is chosen."""
KINDS: Final = ("outcome", "denied")


class ReceiptProver:
    """Proves entries of this node's ledger that hold receipts of a plan.

    An answer holds hashes and a checkpoint, nothing of what entries say. Which entries are of a plan is checked all the
    same, so that nobody learns where another job's lie.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def prove(self, peer: Peer, message: Incoming) -> Outgoing:
        """Answer a request that the coordinator carried here."""
        header, hashes = await asyncio.to_thread(self._answer, ProveReceipts.from_bytes(message.header))
        return Outgoing(header.to_bytes(), [hashes])

    def _answer(self, request: ProveReceipts) -> tuple[ReceiptProofs, bytes]:
        for index in request.entries:
            self._check(index, request.plan)
        note, size = self._checkpoint(max(max(request.entries) + 1, *request.since, 1))
        proofs = [self._ledger.inclusion(index, size) for index in request.entries]
        extensions = [self._ledger.consistency(since, size) if since < size else [] for since in request.since]
        header = ReceiptProofs(
            checkpoint=base64.b64encode(note).decode(),
            lengths=tuple(map(len, proofs)),
            extends=tuple(map(len, extensions)),
        )
        return header, b"".join(one for proof in (*proofs, *extensions) for one in proof)

    def _check(self, index: int, plan: str) -> None:
        with self._ledger.reader() as connection:
            row = connection.execute("SELECT kind FROM entry WHERE idx = ?", (index,)).fetchone()
        if row is None or row[0] not in KINDS or self._ledger.fields(index).get("plan") != plan:
            raise UsageError("entry {index} holds no receipt of this plan", code="no-such-receipt", index=index)

    def _checkpoint(self, least: int) -> tuple[bytes, int]:
        """The checkpoint of at least this size that most witnesses cosigned, of these the smallest."""
        with self._ledger.reader() as connection:
            rows: list[tuple[int, bytes]] = connection.execute(
                "SELECT size, note FROM checkpoint WHERE size >= ? ORDER BY size DESC LIMIT ?", (least, LOOKED_AT)
            ).fetchall()
        if not rows:
            raise UsageError("the ledger has no entry {index}", index=least - 1)
        size, note = max(rows, key=_worth)
        return note, size


def _worth(row: tuple[int, bytes]) -> tuple[int, int]:
    size, note = row
    return len(parse_note(note).signatures), -size
