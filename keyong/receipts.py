"""The receipts that came with a result: verified, then proved anew under what other companies cosigned."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from federation.crypto import write_private
from federation.errors import KeyongError, VerificationError
from federation.home import Home
from federation.keyring import ledger_key
from federation.ledger import (
    ForkError,
    ProofError,
    SignedCheckpoint,
    VerifiedBundle,
    VerifierKey,
    open_checkpoint,
    prove_again,
    verify_bundle,
    verify_extension,
)
from federation.ledger.merkle import HASH_SIZE
from federation.statements import ANCHORINGS, Anchoring, Envelope, JobPlan, Receipt
from federation.wire import messages as m
from federation.witnessing import Quorum
from keyong.client import Client
from keyong.rosters import Rosters

POLL_SECONDS: Final = 0.5
ENTRIES_ASKED: Final = 2000


class ReceivedError(VerificationError):
    """What came as a result is not of the plan, or not what its receipts say."""

    code = "received"


@dataclass(frozen=True)
class Held:
    """One receipt as it came, and the proof beside it where there is one."""

    stem: str
    node: str
    receipt: Receipt
    envelope: Envelope
    bundle: bytes | None
    proved: VerifiedBundle | None


@dataclass(frozen=True)
class Standing:
    """What is known of one node's receipts.

    Attributes:
        why: why no more vouch for them; empty where nothing was in the way.
        last: the result rests on this node's answer to the last exchange.
    """

    node: str
    receipts: tuple[Held, ...]
    anchoring: Anchoring
    signed: SignedCheckpoint | None
    witnesses: tuple[str, ...]
    last: bool
    why: str = ""


def weakest(found: Iterable[Anchoring]) -> Anchoring:
    """The weakest of some; ``committed`` where there is none."""
    return min(found, key=ANCHORINGS.index, default="committed")


def reaches(found: Anchoring, needed: Anchoring) -> bool:
    """Whether this is as much as is needed."""
    return ANCHORINGS.index(found) >= ANCHORINGS.index(needed)


RECEIPT, PROOF = ".receipt.json", ".proof.json"


class Receipts:
    """The receipts of one result, between its arrival and its place.

    Args:
        folder: the result's.
        plan: of the job; ``digest``: of it.
        files: what lies in the folder's ``receipts``, by name, where that is known; else it is read.

    Raises:
        ReceivedError, VerificationError: one of them, or its proof, does not hold.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        plan: JobPlan,
        digest: str,
        rosters: Rosters,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._client = client
        self._home: Home = client.home
        self._part = folder
        self.plan = plan
        self.digest = digest
        self._rosters = rosters
        self._quorums: dict[str, Quorum] = {}
        self._keys: dict[str, VerifierKey] = {}
        self._held = self._read_receipts(_files(folder / "receipts") if files is None else files)

    @property
    def held(self) -> dict[str, list[Held]]:
        """Every receipt, by its node."""
        return {node: list(receipts) for node, receipts in self._held.items()}

    def _read_receipts(self, files: Mapping[str, bytes]) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = {}
        for name in sorted(name for name in files if name.endswith(RECEIPT)):
            envelope = Envelope.from_bytes(files[name])
            receipt = Receipt.read(envelope)
            self.plan.at(receipt.node)
            self._rosters.signed_by(envelope, receipt.node, since=self.plan.issued)
            if receipt.plan != self.digest:
                raise ReceivedError("{path} is a receipt of another plan", path=name)
            stem = name.removesuffix(RECEIPT)
            bundle = files.get(f"{stem}{PROOF}")
            proved = self._proved(bundle, receipt, envelope) if bundle is not None else None
            found.setdefault(receipt.node, []).append(Held(stem, receipt.node, receipt, envelope, bundle, proved))
        return found

    def _proved(self, bundle: bytes, receipt: Receipt, envelope: Envelope) -> VerifiedBundle:
        proved = verify_bundle(bundle, self._key(receipt.node), self._quorum(receipt.node).current)
        kind = "denied" if (receipt.outcome, receipt.intent) == ("denied", -1) else "outcome"
        if proved.entry.kind != kind or proved.fields.get("receipt") != envelope.to_bytes():
            raise ReceivedError("the proof of {node} is for another entry than its receipt", node=receipt.node)
        return proved

    def _key(self, node: str) -> VerifierKey:
        if node not in self._keys:
            self._keys[node] = ledger_key(self._rosters.chain, node)
        return self._keys[node]

    def _quorum(self, node: str) -> Quorum:
        if node not in self._quorums:
            self._quorums[node] = Quorum.of(self._rosters.chain, node)
        return self._quorums[node]

    # -- who vouches for it -------------------------------------------------------------------------------------------

    def anchor(
        self, needed: Anchoring, seconds: float, waiting: Callable[[Sequence[Standing]], None]
    ) -> tuple[Standing, ...]:
        """Have each node prove its receipts, and wait for those that the result rests on."""
        newest = max((h.receipt.round for held in self._held.values() for h in held if _ok(h)), default=0)
        last = {h.node for held in self._held.values() for h in held if _ok(h) and h.receipt.round == newest}
        standings = {node: self._ask(node, node in last) for node in sorted(self._held)}
        end, told = time.monotonic() + seconds, False
        while short := [one for one in standings.values() if one.last and not reaches(one.anchoring, needed)]:
            if time.monotonic() >= end:
                break
            if not told:
                waiting(short)
                told = True
            time.sleep(POLL_SECONDS)
            standings |= {one.node: self._ask(one.node, last=True) for one in short}
        return tuple(standings.values())

    def _ask(self, node: str, last: bool) -> Standing:
        held = tuple(self._held[node])
        provable = [one for one in held if one.proved is not None]
        if not provable:
            return Standing(node, held, "committed", None, (), last, "no-proof")
        best = self._standing(node, held, _newest(provable), last)
        if reaches(best.anchoring, "final"):
            return best
        try:
            again = [
                self._prove(node, provable[at : at + ENTRIES_ASKED]) for at in range(0, len(provable), ENTRIES_ASKED)
            ]
        except VerificationError:
            raise
        except KeyongError as error:
            return self._standing(node, held, _newest(provable), last, error.code)
        proved = {one.stem: one for part in again for one in part}
        return self._standing(
            node, tuple(proved.get(one.stem, one) for one in held), _newest(list(proved.values())), last
        )

    def _standing(
        self, node: str, held: tuple[Held, ...], signed: SignedCheckpoint, last: bool, why: str = ""
    ) -> Standing:
        quorum = self._quorum(node)
        levels: list[Anchoring] = [
            _level(quorum, one.proved.checkpoint.witnesses) for one in held if one.proved is not None
        ]
        if any(one.proved is None for one in held):
            levels.append("committed")
        return Standing(node, held, weakest(levels), signed, quorum.members(signed.witnesses), last, why)

    def _prove(self, node: str, held: Sequence[Held]) -> list[Held]:
        """The same receipts, each proved under one checkpoint that extends what we hold of this ledger."""
        key, quorum = self._key(node), self._quorum(node)
        known = [one for one in (self._seen(key), _newest(held)) if one is not None and one.checkpoint.size]
        entries = [one.proved.entry.index for one in held if one.proved is not None]
        request = m.ProveReceipts(
            node=node,
            job=self.plan.id,
            plan=self.digest,
            entries=tuple(entries),
            since=tuple(one.checkpoint.size for one in known),
        )
        answer = self._client.call("receipts.prove", request)
        header = m.ReceiptProofs.from_bytes(answer.header)
        if len(header.lengths) != len(entries) or len(header.extends) != len(known):
            raise ReceivedError("{node} proved something else than was asked", node=node)
        proofs = _split(bytes(answer.body), (*header.lengths, *header.extends), node)
        try:
            note = base64.b64decode(header.checkpoint, validate=True)
        except ValueError:
            raise ReceivedError("{node} proved something else than was asked", node=node) from None
        signed = open_checkpoint(note, key, quorum.current)
        for before, proof in zip(known, proofs[len(entries) :], strict=True):
            _check_extends(node, before, signed, proof)
        size = signed.checkpoint.size
        found = []
        for one, proof in zip(held, proofs, strict=False):
            assert one.bundle is not None
            bundle = prove_again(one.bundle, size, proof, note)
            proved = self._proved(bundle, one.receipt, one.envelope)
            found.append(Held(one.stem, node, one.receipt, one.envelope, bundle, proved))
        return found

    def _seen(self, key: VerifierKey) -> SignedCheckpoint | None:
        """The newest checkpoint of this ledger that came with an earlier result."""
        path = self._seen_path(key)
        return open_checkpoint(path.read_bytes(), key) if path.is_file() else None

    def _seen_path(self, key: VerifierKey) -> Path:
        # By the ledger's first key: what was seen of it outlives an exchange of its key.
        first = VerifierKey(key.name, key.former[0].public) if key.former else key
        return self._home.folder("seen") / hashlib.sha256(str(first).encode()).hexdigest()

    def write(self, standings: Sequence[Standing]) -> None:
        """Put the newer proofs beside the receipts, and remember how far each node's ledger was seen."""
        for standing in standings:
            for held in standing.receipts:
                if held.bundle is not None:
                    (self._part / "receipts" / f"{held.stem}{PROOF}").write_bytes(held.bundle)
            if standing.signed is not None:
                key = self._key(standing.node)
                before = self._seen(key)
                if before is None or before.checkpoint.size < standing.signed.checkpoint.size:
                    write_private(self._seen_path(key), standing.signed.note, replace=True)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json") if path.is_file()}


def _ok(held: Held) -> bool:
    return held.receipt.outcome == "ok"


def _newest(held: Sequence[Held]) -> SignedCheckpoint:
    return max(
        (one.proved.checkpoint for one in held if one.proved is not None), key=lambda signed: signed.checkpoint.size
    )


def _level(quorum: Quorum, witnesses: Sequence[str]) -> Anchoring:
    if witnesses and quorum.reached(witnesses):
        return "final"
    return "witnessed" if witnesses else "committed"


def _split(body: bytes, lengths: Sequence[int], node: str) -> list[list[bytes]]:
    if len(body) != HASH_SIZE * sum(lengths):
        raise ReceivedError("{node} proved something else than was asked", node=node)
    found, at = [], 0
    for length in lengths:
        found.append([body[at + HASH_SIZE * one : at + HASH_SIZE * (one + 1)] for one in range(length)])
        at += HASH_SIZE * length
    return found


def _check_extends(node: str, known: SignedCheckpoint, signed: SignedCheckpoint, proof: list[bytes]) -> None:
    """Raise where what a node shows now does not extend what it showed before: it signed two histories."""
    old, new = known.checkpoint, signed.checkpoint
    try:
        verify_extension(old.size, old.root, new.size, new.root, proof)
    except ProofError:
        if old.size != new.size:
            raise
        raise ForkError(
            "{node} signed two histories of {size} entries",
            hint="hand the proof on to the other members (`keyong verify FILE --root FINGERPRINT`)",
            node=node,
            size=old.size,
            evidence=(known.note, signed.note),
        ) from None
