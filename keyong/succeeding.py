"""A ledger that was lost, followed by one of another origin: what is vouched for of the old one, approved by the root, begun.

The new ledger commits to the last checkpoint of the old one that others cosigned: it stands in the roster, signed by the old
key, and in the new ledger's first entry. What the old one held beyond that is in receipts that others keep, and nowhere else.

What the node's own tables said of uses and budgets is lost with it. So nothing that was agreed before is good for the new
ledger, and every dataset's privacy budget is nothing until its owner sets it anew. Sums that were opened with the node's help are
carried over as far as the old file knows them; beyond that, no sum without noise is opened on data from before but by the
owner's word.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from enterprise_node.budgets import Limits
from enterprise_node.record import Record
from federation.crypto import PublicKey, SigningKey, make_private_dir, read_private, write_private
from federation.errors import KeyongError, UsageError, VerificationError
from federation.home import Home, now
from federation.keyring import ledger_key, ledger_origin
from federation.ledger import Checkpoint, Ledger, LedgerError, Note, VerifierKey, open_checkpoint, parse_note
from federation.statements import Envelope, LedgerSuccession, Member, Roster
from federation.wire import messages as m
from federation.wire.member import connect, fetch_rosters
from federation.wire.patience import ANSWER_SECONDS
from federation.witnessing import Quorum, eligible
from keyong.registering import node_store

FOLDER: Final = "next-ledger"
REQUEST_VALIDITY = timedelta(days=30)
CONTINUED: Final = "continued"


class SuccessionError(VerificationError):
    """A ledger cannot follow another as it is said to."""

    code = "ledger-succession"


@dataclass(frozen=True)
class Succession:
    """A request for a new ledger, and the state of the old one that it rests on."""

    envelope: Envelope
    statement: LedgerSuccession
    checkpoint: Checkpoint
    witnesses: tuple[str, ...]


def prepare(home: Home, given: Iterable[bytes], reason: str) -> Succession:
    """Make the key of a new ledger, and the request for it: signed by this member's keys, for the holders of root keys.

    Args:
        given: signed checkpoints of the old ledger that somebody kept; the witnesses are asked for theirs, too.

    Raises:
        SuccessionError: none of them is cosigned by another company.
        AlreadyServingError: a process serves this home.
    """
    claims = [home.claim(role) for role in ("node", "coordinator")]
    try:
        home.check_keys()
        rosters, me = home.history.rosters, home.member
        vkey, quorum = ledger_key(rosters, me.id), Quorum.of(rosters, me.id)
        best = last_witnessed([*given, *asyncio.run(_of_witnesses(home, vkey))], vkey, quorum)
        folder = home.path / FOLDER
        if not (folder / "ledger.key").exists():
            make_private_dir(folder)
            SigningKey.generate().save(folder / "ledger.key")
        key, at = SigningKey.load(folder / "ledger.key"), now()
        statement = LedgerSuccession(
            issued=at,
            expires=at + REQUEST_VALIDITY,
            consortium=home.identity.consortium,
            member=me.id,
            number=me.ledger_number + 1,
            ledger_key=key.public.text,
            checkpoint=best.decode(),
            reason=reason,
        )
        envelope = statement.seal(home.key("statement"), home.key("ledger"), key)
        return check_request(rosters, envelope)
    finally:
        for claim in claims:
            claim.release()


async def _of_witnesses(home: Home, vkey: VerifierKey) -> list[bytes]:
    """The last checkpoint that each witness cosigned, as far as they can be reached; rosters are learnt by the way."""
    found: list[bytes] = []
    if home.identity.founded:
        return found
    try:
        async with connect(home) as peer:
            await fetch_rosters(peer, home, None)
            for witness in eligible(home.history.latest, home.identity.member):
                origin = base64.b64encode(vkey.name.encode()).decode()
                header = m.WitnessAsk(witness=witness.id, request=origin).to_bytes()
                try:
                    answer = await peer.call("witness.last", header, timeout=ANSWER_SECONDS)
                    found.append(base64.b64decode(m.WitnessAnswer.from_bytes(answer.header).body))
                except (KeyongError, ValueError):
                    continue
    except KeyongError:
        pass  # what was given has to do
    return found


def last_witnessed(notes: Sequence[bytes], vkey: VerifierKey, quorum: Quorum) -> bytes:
    """The longest state that another company cosigned, with all cosignatures that are known of it.

    Raises:
        SuccessionError: there is none.
    """
    states: dict[str, Note] = {}
    for data in notes:
        try:
            open_checkpoint(data, vkey, quorum.keys)
            note = parse_note(data)
        except LedgerError:
            continue
        before = states.get(note.text, Note(note.text, ()))
        states[note.text] = Note(note.text, tuple(dict.fromkeys((*before.signatures, *note.signatures))))
    for note in sorted(states.values(), key=lambda one: -Checkpoint.parse(one.text).size):
        if open_checkpoint(note.encode(), vkey, quorum.keys).witnesses:
            return note.encode()
    raise SuccessionError(
        "no checkpoint of this ledger that another company cosigned is known",
        hint="ask the other members for the file in `witnessed/` of their homes that names this ledger (--checkpoint FILE)",
    )


def check_request(rosters: Sequence[Roster], envelope: Envelope) -> Succession:
    """A request for a new ledger, every signature on it verified.

    Raises:
        SignatureError: not signed by the member's statement key, its ledger key and the new one.
        SuccessionError: it does not follow the member's ledger, or rests on a state that nobody else vouches for.
    """
    claimed = LedgerSuccession.read(envelope)
    member = rosters[-1].member(claimed.member)
    keys = (member.statement_key, member.ledger_key, claimed.ledger_key)
    statement = LedgerSuccession.open(envelope, [PublicKey.from_text(text) for text in keys], now())
    if statement.consortium != rosters[-1].consortium or statement.number != member.ledger_number + 1:
        raise SuccessionError("the request is not for the ledger that follows {member}'s", member=member.id)
    checkpoint, witnesses = vouched(rosters, member, statement.checkpoint)
    return Succession(envelope, statement, checkpoint, witnesses)


def vouched(rosters: Sequence[Roster], member: Member, note: str) -> tuple[Checkpoint, tuple[str, ...]]:
    """The state of a member's ledger (``member`` as it is before) that its successor commits to, and who cosigned it.

    Raises:
        SuccessionError: nobody that counts did.
        LedgerError: it is not signed by the ledger's key.
    """
    quorum = Quorum.of(rosters, member.id)
    signed = open_checkpoint(note.encode(), ledger_key(rosters, member.id, member.ledger_number), quorum.keys)
    if not signed.witnesses:
        raise SuccessionError(
            "the state that the new ledger of {member} rests on is vouched for by nobody", member=member.id
        )
    return signed.checkpoint, quorum.members(signed.witnesses)


def succeed(member: Member, succession: Succession) -> Member:
    """The member's entry with its new ledger."""
    said = succession.statement
    values = {"ledger_number": said.number, "ledger_key": said.ledger_key, "ledger_since": said.checkpoint}
    return Member.model_validate(member.model_dump() | values)


def begin(home: Home) -> Ledger:
    """Put the new ledger in the place of the old one, which is kept as evidence; an earlier run is gone on with.

    Raises:
        SuccessionError: no roster names the new ledger yet.
        AlreadyServingError: a process serves this home.
    """
    claims = [home.claim(role) for role in ("node", "coordinator")]
    try:
        if not home.identity.founded:
            asyncio.run(_learn(home))
        folder, me = home.path / FOLDER, home.history.latest.member(home.identity.member)
        if not (folder / "ledger.key").exists():
            raise SuccessionError("no new ledger was asked for here", hint="begin with `keyong ledger succeed FILE`")
        key = SigningKey.load(folder / "ledger.key")
        if me.ledger_key != key.public.text:
            raise SuccessionError(
                "the roster does not name the new ledger yet",
                hint="holders of root keys approve it: keyong consortium propose OUT --new-ledger FILE",
            )
        _put_in_place(home, me, key)
        return home.open_ledger()
    finally:
        for claim in claims:
            claim.release()


async def _learn(home: Home) -> None:
    try:
        async with connect(home) as peer:
            await fetch_rosters(peer, home, None)
    except KeyongError:
        pass  # it may have come another way


def _put_in_place(home: Home, me: Member, key: SigningKey) -> None:
    new, place = home.path / FOLDER / "ledger", home.path / "ledger"
    origin = ledger_origin(home.identity.consortium, me.id, me.ledger_number)
    if not _is(place, origin):
        if not _is(new, origin):
            shutil.rmtree(new, ignore_errors=True)
            make_private_dir(new)
            _create(home, new, origin, me, key)
        if place.exists():
            place.rename(home.path / f"ledger-{me.ledger_number - 1}")
        new.rename(place)
    key.save(home.path / "keys" / "ledger.key", replace=True)
    home.mark_renewed()
    home.mark_restored()
    with home.open_ledger() as ledger:
        record, rows = Record(ledger), node_store(home).datasets()
        for row in rows:
            record.set_limits(row.id, Limits(0, 0))
        lost = home.path / f"ledger-{me.ledger_number - 1}" / "ledger.db"
        record.carry_openings(lost, [row.data_version for row in rows])
    shutil.rmtree(home.path / FOLDER)


def _create(home: Home, folder: Path, origin: str, me: Member, key: SigningKey) -> None:
    before = ledger_origin(home.identity.consortium, me.id, me.ledger_number - 1)
    with Ledger.create(folder, origin, key) as ledger:
        ledger.append(
            CONTINUED,
            {"origin": before, "checkpoint": me.ledger_since, "roster": home.history.digest},
        )


def _is(folder: Path, origin: str) -> bool:
    """Whether a folder holds a ledger of this origin that has its first entry."""
    path = folder / "ledger.checkpoint"
    if not path.exists():
        return False
    found = Checkpoint.parse(parse_note(read_private(path)).text)
    return found.origin == origin and found.size > 0


def write_request(path: Path, envelope: Envelope) -> None:
    """Write a request, for the holders of root keys."""
    write_private(path.expanduser(), envelope.to_bytes(), replace=True)


def read_request(path: Path) -> Envelope:
    """Read what :func:`write_request` wrote."""
    try:
        return Envelope.from_bytes(path.expanduser().read_bytes())
    except OSError as error:
        raise UsageError("{path} cannot be read: {reason}", path=path, reason=error.strerror or "") from None
