"""Replies whose step has its OUTCOME but that may not have arrived: one file a job, found again after a restart.

A file holds what the gate let out and nothing else. What its answer is made of beside it, receipt and proof, comes from
the ledger, and a file whose bytes are not those that the receipt names is no answer: torn by a crash, or changed.

Small replies are kept before their OUTCOME is written, so that not even a killed process loses them; large ones are held
in memory, and written down when the node stops in order. Nothing is flushed: a cut of power may lose a file.

Under ``fed:none`` a reply is what one company contributed, as it is. So it goes with what it rests on, whether its job
is open or not: once the plan or the agreement has expired, or the agreement has ended.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from federation.errors import VerificationError
from federation.jobs.codec import content_digest
from federation.secagg import reply_digest
from federation.statements import instant_text, parse_instant
from federation.wire.body import Buffer, total_bytes

log = structlog.get_logger("keyong.node")

SMALL_BYTES = 4 * 2**20
"""Written with its step; more would cost each round the time to write a model down."""
KEPT_BYTES = 4 * 2**30
"""All kept replies together; beyond it the oldest go. A coordinator that never comes back must not fill the disk."""
_HEAD_BYTES = 2**24
_PARTIAL = ".partial"


class KeptReplyError(VerificationError):
    """A kept reply is not the one that the receipt names."""

    code = "kept-reply"


@dataclass(frozen=True)
class KeptReply:
    """A reply as it left the gate: the content's header (empty for an encoded reply) and the body."""

    header: str
    body: Sequence[Buffer]

    def check(self, output: str) -> None:
        """Raise KeptReplyError unless a receipt that names ``output`` is this reply's."""
        digest = content_digest(self.header.encode(), self.body) if self.header else reply_digest(self.body)
        if digest != output:
            raise KeptReplyError("the kept reply is not the one that the receipt names")


@dataclass(frozen=True)
class RestsOn:
    """What a kept reply rests on, and must not outlive."""

    agreement: str
    expires: datetime


class KeptReplies:
    """The kept replies of a node, by plan; each job has one, that of its newest step. Every method blocks on the disk.

    No error of the disk leaves here: what cannot be kept is lost with the process, as a reply in memory is.
    """

    def __init__(self, folder: Path, limit: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._limit = limit
        self._plans: dict[str, RestsOn] = {}
        for path in folder.iterdir():
            rests = _rests_on(path)
            if rests is None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            else:
                self._plans[path.name] = rests

    def keep(self, plan: str, invocation: str, reply: KeptReply, rests: RestsOn) -> None:
        """Keep a reply in place of the job's one before."""
        name = _name(plan)
        ground = {"agreement": rests.agreement, "expires": instant_text(rests.expires)}
        head = json.dumps({"invocation": invocation, "header": reply.header, **ground}).encode()
        size = total_bytes(reply.body)
        if size > self._limit:
            self.drop(plan)
            return
        partial = self._folder / f"{name}{_PARTIAL}"
        try:
            self._make_room(size, name)
            with partial.open("wb") as file:
                file.write(len(head).to_bytes(4, "big") + head)
                for buffer in reply.body:
                    file.write(buffer)
            partial.replace(self._folder / name)
            self._plans[name] = rests
        except OSError as error:
            log.warning("reply-not-kept", plan=plan, error=type(error).__name__)
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            self.drop(plan)

    def find(self, plan: str, invocation: str) -> KeptReply | None:
        """The reply to that invocation, as the file has it; None where none is kept."""
        if _name(plan) not in self._plans:
            return None
        try:
            with (self._folder / _name(plan)).open("rb") as file:
                length, head = _head(file)
                start, size = 4 + length, os.fstat(file.fileno()).st_size
                if head["invocation"] != invocation:
                    return None
                if size <= start:
                    return KeptReply(str(head["header"]), ())
                view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))[start:]
                return KeptReply(str(head["header"]), (view,))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("kept-reply-unreadable", plan=plan, error=type(error).__name__)
            return None

    def drop(self, plan: str) -> None:
        """Forget the job's reply."""
        name = _name(plan)
        if name in self._plans:
            self._plans.pop(name, None)
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def sweep(self, now: datetime, ended: Callable[[str], bool]) -> None:
        """Forget the replies whose plan has expired, or whose agreement ``ended``."""
        for name, rests in list(self._plans.items()):
            if rests.expires <= now or ended(rests.agreement):
                self.drop(name)

    def _make_room(self, size: int, name: str) -> None:
        found = [(path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.iterdir()]
        found = [one for one in found if one[2].name != name]
        total = sum(one[1] for one in found)
        for _, old, path in sorted(found):
            if total + size <= self._limit:
                return
            path.unlink(missing_ok=True)
            self._plans.pop(path.name, None)
            total -= old


def _head(file: BinaryIO) -> tuple[int, dict[str, Any]]:
    length = int.from_bytes(file.read(4), "big")
    return length, dict(json.loads(file.read(min(length, _HEAD_BYTES))))


def _rests_on(path: Path) -> RestsOn | None:
    """What the reply in a file rests on; None where the file is no whole one."""
    if path.suffix == _PARTIAL:
        return None
    try:
        with path.open("rb") as file:
            _, head = _head(file)
        return RestsOn(str(head["agreement"]), parse_instant(str(head["expires"])))
    except (OSError, ValueError, KeyError, TypeError, VerificationError):
        return None


def _name(plan: str) -> str:
    return plan.removeprefix("sha256:")
