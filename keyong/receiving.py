"""A result taken over by its requester: every receipt verified, proved under what others cosigned, and acknowledged.

Order: files beside their place; the plan is our own; each receipt is signed by its node and in its ledger; the nodes whose
answers the last exchange rests on prove theirs under a checkpoint that as many vouch for as the plan demands; what was
received goes into our ledger, signed; only then do the files get their name. So nothing is used that could still be
rewritten unseen, unless the plan, or the person, said so.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from federation.errors import KeyongError, UnavailableError, UsageError
from federation.home import Home, now
from federation.ledger import Checkpoint, Fork, ForkError, parse_note
from federation.statements import (
    Anchoring,
    Envelope,
    JobPlan,
    ReceivedReceipts,
    ResultAcknowledgement,
    files_digest,
    receipts_digest,
)
from federation.wire import messages as m
from keyong.client import Client
from keyong.evidence import write_fork
from keyong.receipts import Receipts, ReceivedError, Standing, reaches, weakest
from keyong.rosters import Rosters

WAIT_SECONDS: Final = 60.0
"""How long a result waits for witnesses before it is refused; they are asked within a second of each entry."""
ACKNOWLEDGEMENT_VALIDITY: Final = timedelta(days=3650)
"""An acknowledgement is history, and no permission: it is judged as evidence for as long as ledgers are kept."""
RECORDED_AT_ONCE: Final = 4000
"""Receipts in one entry of our ledger: an entry takes a megabyte."""


class NotAnchoredError(UnavailableError):
    """Fewer vouch for the receipts than was demanded; nothing was handed over."""

    code = "not-anchored"


@dataclass(frozen=True)
class Received:
    """A result in its place, on record and acknowledged."""

    summary: dict[str, Any]
    plan: JobPlan
    anchoring: Anchoring
    demanded: Anchoring
    standings: tuple[Standing, ...]
    acknowledgement: Envelope
    told: bool
    """Whether the coordinator took the acknowledgement."""


def receive(
    client: Client,
    job: str,
    digest: str,
    folder: Path,
    *,
    accept: Anchoring | None = None,
    seconds: float = WAIT_SECONDS,
    waiting: Callable[[Sequence[Standing]], None] = lambda _: None,
) -> Received:
    """Fetch a job's result into ``folder`` (new or empty) once it is as anchored as demanded, and acknowledge it.

    Args:
        job: its id; ``digest``: of its plan.
        accept: be content with this instead of what the plan demands; it goes into the acknowledgement.
        seconds: how long to wait for witnesses.
        waiting: told, once, who is waited for.

    Raises:
        NotAnchoredError: too few vouch for it, still; ``folder`` is as it was.
        ReceivedError, VerificationError: a receipt or a proof does not hold.
        UsageError: ``folder`` holds something.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("{folder} is not empty", hint="choose another folder with -o", folder=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.receiving")
    shutil.rmtree(part, ignore_errors=True)
    try:
        summary = client.result(job, part)
        taking = _Taking(client, part, job, digest)
        demanded = accept or taking.plan.anchoring
        needed = demanded if summary.get("status") == "done" else "committed"
        standings = taking.receipts.anchor(needed, seconds, waiting)
        try:
            _demand(standings, needed)
        except NotAnchoredError as error:
            taking.refuse(error)
            raise
        anchoring = weakest(one.anchoring for one in standings if one.last)
        taking.receipts.write(standings)
        envelope = taking.record(standings, anchoring, str(summary.get("status", "")))
        (part / "acknowledgement.json").write_bytes(envelope.to_bytes())
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except ForkError as error:
        _keep_proof(client.home, error)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    told = _tell(client, envelope)
    return Received(summary, taking.plan, anchoring, demanded, standings, envelope, told)


def _keep_proof(home: Home, error: ForkError) -> None:
    """Keep the proof that a node signed two histories of one size, in ``evidence/`` of the home."""
    held, shown = error.evidence
    root = Checkpoint.parse(parse_note(shown).text).root
    name = f"fork-{hashlib.sha256(held + shown).hexdigest()[:12]}.json"
    write_fork(home.folder("evidence") / name, Fork(held, shown, root), home.history.envelopes)


def _demand(standings: Sequence[Standing], needed: Anchoring) -> None:
    short = [one for one in standings if one.last and not reaches(one.anchoring, needed)]
    if short:
        raise NotAnchoredError(
            "the receipts of {nodes} are not {needed} yet: {why}",
            hint="try again while these nodes and those of other companies are connected; or take it as it is with"
            " `--accept committed`, which goes on record",
            nodes=", ".join(one.node for one in short),
            needed=needed,
            why=", ".join(sorted({f"{one.anchoring}{f' ({one.why})' if one.why else ''}" for one in short})),
        )


class _Taking:
    """One result between its arrival and its place."""

    def __init__(self, client: Client, part: Path, job: str, digest: str) -> None:
        self._client = client
        self._home: Home = client.home
        self._part = part
        self._rosters = Rosters(self._home.history)
        self._me = self._home.identity.member
        self.digest = digest
        self.plan = self._read_plan(job)
        self.receipts = Receipts(client, part, self.plan, digest, self._rosters)

    # -- what came ----------------------------------------------------------------------------------------------------

    def _read_plan(self, job: str) -> JobPlan:
        path = self._part / "plan.json"
        if not path.is_file():
            raise ReceivedError("the result does not hold the plan that it is of")
        envelope = Envelope.from_bytes(path.read_bytes())
        plan = JobPlan.read(envelope)
        self._rosters.signed_by(envelope, self._me)
        if (plan.id, envelope.digest, plan.requester) != (job, self.digest, self._me):
            raise ReceivedError("the result is of another plan than was asked for")
        return plan

    # -- on record ----------------------------------------------------------------------------------------------------

    def record(self, standings: Sequence[Standing], anchoring: Anchoring, status: str) -> Envelope:
        """Put receipts and acknowledgement into our ledger; what was acknowledged like this before is not again."""
        at = now()
        said = ResultAcknowledgement(
            issued=at,
            expires=at + ACKNOWLEDGEMENT_VALIDITY,
            requester=self._me,
            coordinator=self.plan.coordinator,
            plan=self.digest,
            job=self.plan.id,
            status=status or "unknown",
            result=files_digest(self._files()),
            anchoring=anchoring,
            nodes=tuple(_summed(one) for one in standings),
        )
        ledger, asked = self._client.ledger, self._asked()
        for entry in ledger.find(kind="ack", ref=asked) if asked is not None else ():
            fields = ledger.fields(entry.index)
            if isinstance(fields.get("ack"), bytes):
                envelope = Envelope.from_bytes(fields["ack"])
                before = ResultAcknowledgement.read(envelope)
                if before.model_copy(update={"issued": said.issued, "expires": said.expires}) == said:
                    return envelope
        for one in standings:
            self._record_receipts(one, asked)
        envelope = said.seal(self._home.key("statement"))
        fields = {"ack": envelope.to_bytes(), "digest": envelope.digest, "plan": self.digest, "job": self.plan.id}
        ledger.append("ack", {**fields, "anchoring": anchoring, "status": said.status}, ref=asked)
        return envelope

    def refuse(self, error: NotAnchoredError) -> None:
        """Put on record that the result was given out to us, and not taken."""
        self._client.ledger.append("not-taken", {"plan": self.digest, "code": error.code}, ref=self._asked())

    def _asked(self) -> int | None:
        """Our entry that holds the plan."""
        ledger = self._client.ledger
        entries = (e.index for e in ledger.find(kind="plan") if ledger.fields(e.index).get("digest") == self.digest)
        return next(entries, None)

    def _record_receipts(self, standing: Standing, asked: int | None) -> None:
        rows = [[h.proved.entry.index if h.proved is not None else -1, h.envelope.digest] for h in standing.receipts]
        for at in range(0, len(rows), RECORDED_AT_ONCE):
            fields = {
                "plan": self.digest,
                "node": standing.node,
                "receipts": rows[at : at + RECORDED_AT_ONCE],
                "checkpoint": standing.signed.note.decode() if standing.signed is not None else "",
            }
            self._client.ledger.append("receipts", fields, ref=asked)

    def _files(self) -> list[tuple[str, int, str]]:
        """What of the result stays as the coordinator sent it: proofs are replaced by newer ones."""
        found = []
        for path in sorted(self._part.rglob("*")):
            name = path.relative_to(self._part).as_posix()
            if path.is_file() and not name.endswith(".proof.json"):
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                found.append((name, path.stat().st_size, sha256))
        return found


def _summed(standing: Standing) -> ReceivedReceipts:
    signed = standing.signed.checkpoint if standing.signed is not None else None
    return ReceivedReceipts(
        node=standing.node,
        count=len(standing.receipts),
        digest=receipts_digest(one.envelope.digest for one in standing.receipts),
        size=signed.size if signed is not None else 0,
        root=signed.root.hex() if signed is not None else "0" * 64,
        anchoring=standing.anchoring,
    )


def _tell(client: Client, envelope: Envelope) -> bool:
    """Hand the acknowledgement to the coordinator; False where it does not take it now (an older release, a lost link)."""
    header = m.Envelopes(envelopes=(m.pack(envelope),))
    try:
        client.call("job.acknowledge", header)
    except KeyongError:
        return False
    return True
