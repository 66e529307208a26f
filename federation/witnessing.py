"""Members as witnesses of one another's ledgers: who may be one, how many it takes, and the asking.

A ledger's own organisation and the coordinator's are no witnesses of it: the one could cosign what it rewrote, the other
carries every request. What a quorum of the others cosigned is *final*: nobody rewrites it unseen without more than half of
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from federation.crypto import PublicKey
from federation.errors import KeyongError
from federation.home import Home
from federation.keyring import ledger_origin, witness_key, witness_keys, witness_name
from federation.ledger import (
    AddCheckpoint,
    Checkpoint,
    ForkError,
    Ledger,
    LedgerError,
    LedgerRolledBackError,
    Note,
    VerifierKey,
    open_checkpoint,
    parse_note,
    verify_note,
)
from federation.organisations import organisations
from federation.peer_times import PeerTimes
from federation.statements import Member, Roster

log = structlog.get_logger("keyong.witness")

Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""Takes a member and a request's body to that member's witness; gives the status and what was answered."""
Last = Callable[[str], Awaitable[bytes]]
"""Asks a member's witness for the last checkpoint of our ledger that it cosigned; empty where it has none."""
ATTEST_SECONDS: Final = 0.5
"""How soon a new state of the ledger is shown to the witnesses; what was written between goes with the next."""
BUSY_SECONDS: Final = 0.4
"""How much later at most, while the ledger is being written."""
QUIET_SECONDS: Final = 0.1
"""A ledger that was not written for so long is shown: entries of one step go together, and are signed after it, not beside it."""
RETRY_SECONDS: Final = 10.0
"""How soon a witness is asked again that could not be reached, or refused."""


_LAST_SECOND: Final = 253_402_300_799
"""Of the calendar: a witness may sign any number as its time."""
WITNESSED_SINCE: Final = 3
"""Version of the protocol that first carried requests to witnesses."""


def log_key(roster: Roster, origin: str) -> VerifierKey | None:
    """The key of the ledger with this origin; None where it is no member's."""
    for member in roster.members:
        if ledger_origin(roster.consortium, member.id, member.ledger_number) == origin:
            return VerifierKey(origin, PublicKey.from_text(member.ledger_key))
    return None


def eligible(roster: Roster, owner: str) -> tuple[Member, ...]:
    """The members whose cosignatures count for ``owner``'s ledger: neither of its own organisation nor the coordinator's."""
    outside = {roster.member(owner).entity, roster.coordinator.entity}
    return tuple(one for one in roster.members if "member" in one.roles and one.entity not in outside)


def quorum(entities: Iterable[str]) -> int:
    """How many of some organisations make a history final: more than half of them, and never none."""
    return len(set(entities)) // 2 + 1


@dataclass(frozen=True)
class Quorum:
    """Whose cosignatures count for one ledger, by all rosters of a chain, and how many organisations it takes.

    Attributes:
        keys: of every witness that ever was one, those that ended with their end.
        needed: organisations that make a history final, of those in the newest roster. An organisation counts once, under
            whatever names its members were entered (:func:`federation.organisations.organisations`).
        current: of the newest roster's witnesses; what makes the newest state final is signed with these.
    """

    keys: tuple[VerifierKey, ...]
    needed: int
    _members: Mapping[str, Member]
    _organisations: Mapping[str, str]
    current: tuple[VerifierKey, ...] = ()

    @classmethod
    def of(cls, rosters: Sequence[Roster], owner: str) -> Quorum:
        """The quorum for ``owner``'s ledger; ``rosters`` in order, the newest last."""
        belongs = organisations(rosters)
        members: dict[str, Member] = {}
        eligibly: dict[str, set[str]] = {}
        newest: tuple[Member, ...] = ()
        for roster in rosters:
            if all(one.id != owner for one in roster.members):
                continue
            outside = {belongs[owner], belongs[roster.coordinator.id]}
            newest = tuple(one for one in eligible(roster, owner) if belongs[one.id] not in outside)
            for member in newest:
                members[witness_name(roster.consortium, member.id)] = member
                eligibly.setdefault(member.id, set()).add(member.witness_key)
        known = [
            key for member, held in eligibly.items() for key in witness_keys(rosters, member) if key.public.text in held
        ]
        now = {one.witness_key for one in newest}
        return cls(
            tuple(known),
            quorum(belongs[one.id] for one in newest),
            members,
            belongs,
            tuple(key for key in known if key.until is None and key.public.text in now),
        )

    def members(self, names: Iterable[str]) -> tuple[str, ...]:
        """The members behind witnesses' names."""
        return tuple(sorted({self._members[name].id for name in names}))

    def final(self, note: bytes, vkey: VerifierKey) -> bool:
        """Whether enough organisations cosigned this checkpoint of the ledger ``vkey``, with keys that have not ended."""
        return self.reached(open_checkpoint(note, vkey, self.current).witnesses)

    def reached(self, names: Iterable[str]) -> bool:
        """Whether these witnesses are of enough organisations."""
        return len({self._organisations[self._members[name].id] for name in names}) >= self.needed


class Witnessing:
    """Has one ledger's newest state cosigned by other members' witnesses.

    Args:
        ask: carries a request.
        accepted: the members that the owner accepted; None for all of the roster.
        clock: seconds that only rise.
        last: asks a witness that says it saw more of our ledger than there is; None where nothing carries that.
        times: where the times that witnesses sign with are noted.
    """

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        ask: Ask,
        accepted: Callable[[], frozenset[str]] | None,
        clock: Callable[[], float],
        last: Last | None = None,
        times: PeerTimes | None = None,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._ask = ask
        self._accepted = accepted
        self._clock = clock
        self._last = last
        self._times = times
        self._settled = 0
        """The size that every witness cosigned. Whom the owner accepts, and who joins, is an entry: then it is another."""
        self._cosigned: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Show each new state to the witnesses, for ever: nobody waits for this, so it outlives a full disk.

        Raises:
            LedgerRolledBackError, ForkError: a witness showed that we signed another history; this one must not go on.
        """
        while True:
            try:
                await self.advance()
            except (LedgerRolledBackError, ForkError):
                raise
            except (KeyongError, OSError) as error:
                log.warning("attestation-put-off", error=type(error).__name__)
            await self.pause()

    async def pause(self) -> None:
        """Wait until the ledger's newest state should be shown: not while it is being written, but within a second."""
        await asyncio.sleep(ATTEST_SECONDS)
        latest = self._clock() + BUSY_SECONDS
        while (left := latest - self._clock()) > 0 and self._ledger.idle_seconds() < QUIET_SECONDS:
            await asyncio.sleep(min(left, QUIET_SECONDS))

    async def advance(self) -> int:
        """Ask every witness that has not cosigned the newest state; returns how many did now. Never raises for a witness.

        Raises:
            LedgerUnavailableError: our own ledger cannot be read or written.
            LedgerRolledBackError, ForkError: a witness showed a checkpoint of ours that is not of this history.
        """
        note = await asyncio.to_thread(self._ledger.checkpoint)
        checkpoint = Checkpoint.parse(parse_note(note).text)
        if checkpoint.size == self._settled:
            return 0
        now = self._clock()
        witnesses = await asyncio.to_thread(self._witnesses)
        wanted = [
            member
            for member in witnesses
            if self._cosigned.get(member.id, -1) < checkpoint.size and self._not_before.get(member.id, now) <= now
        ]
        lines = await asyncio.gather(*(self._one(member, checkpoint, note) for member in wanted))
        given = [(member, line) for member, line in zip(wanted, lines, strict=True) if line]
        if not given:
            return 0
        merged = parse_note(note + b"".join(line for _, line in given))
        keys = [witness_key(self._home.history.latest, member) for member, _ in given]
        try:
            await asyncio.to_thread(self._ledger.add_cosignatures, merged.encode(), keys)
        except LedgerError as error:
            log.warning("cosignature-refused", code=error.code)
            self._put_off(member for member, _ in given)
            return 0
        self._cosigned.update({member.id: checkpoint.size for member, _ in given})
        if all(self._cosigned.get(member.id) == checkpoint.size for member in witnesses):
            self._settled = checkpoint.size
        return len(given)

    def _witnesses(self) -> list[Member]:
        me = self._home.identity.member
        accepted = self._accepted() if self._accepted is not None else None
        found = eligible(self._home.history.latest, me)
        return [one for one in found if accepted is None or one.id in accepted]

    async def _one(self, member: Member, checkpoint: Checkpoint, note: bytes) -> bytes:
        """One witness's signature line; empty where it gives none."""
        try:
            return await self._cosignature(member, checkpoint, note)
        except (LedgerRolledBackError, ForkError):
            raise
        except KeyongError as error:
            self._put_off([member])
            log.info("witness-not-reached", witness=member.id, code=error.code[:64])
            return b""

    async def _cosignature(self, member: Member, checkpoint: Checkpoint, note: bytes) -> bytes:
        old = max(0, self._cosigned.get(member.id, 0))
        status, answer = await self._ask(member.id, await asyncio.to_thread(self._request, old, checkpoint, note))
        if status == 409 and (seen := _size(answer)) is not None and seen != old and seen <= checkpoint.size:
            # It knows another state than we remember: our memory is this process's, its memory is its disk's.
            request = await asyncio.to_thread(self._request, seen, checkpoint, note)
            status, answer = await self._ask(member.id, request)
        if status == 409 and (_size(answer) or 0) >= checkpoint.size and self._last is not None:
            # Either another process of this home wrote meanwhile, or this ledger was put back to an older state.
            await asyncio.to_thread(self._heed, await self._last(member.id))
        if status != 200:
            self._put_off([member])
            log.warning("witness-refused", witness=member.id, status=status)
            return b""
        # Each answer by itself, and of it this witness's line alone: none may spoil, or speak for, the others'.
        answered = parse_note(Note(checkpoint.text(), ()).encode() + answer)
        key = witness_key(self._home.history.latest, member)
        verify_note(answered, [key])
        own = next(one for one in answered.signatures if (one.name, one.key_id) == (key.name, key.key_id))
        if self._times is not None:
            seconds = min(int.from_bytes(own.value[:8], "big"), _LAST_SECOND)
            self._times.heard(member.id, datetime.fromtimestamp(seconds, UTC))
        return own.line().encode()

    def _request(self, old: int, checkpoint: Checkpoint, note: bytes) -> bytes:
        proof = self._ledger.consistency(old, checkpoint.size) if 0 < old < checkpoint.size else []
        return AddCheckpoint(old, tuple(proof), note).encode()

    def _heed(self, note: bytes) -> None:
        """Compare with what a witness says that we signed; what we did not sign says nothing."""
        try:
            self._ledger.heed(note)
        except (LedgerRolledBackError, ForkError):
            log.error("ledger-not-ours", folder=str(self._ledger.folder))
            raise
        except LedgerError as error:
            log.warning("witness-shows-no-checkpoint-of-ours", code=error.code)

    def _put_off(self, members: Iterable[Member]) -> None:
        for member in members:
            self._not_before[member.id] = self._clock() + RETRY_SECONDS


def _size(answer: bytes) -> int | None:
    text = answer.decode("ascii", "replace").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
