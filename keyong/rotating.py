"""Keys exchanged: new ones made here, entered in the roster under old and new ones, and put in the place of the old.

In this order, each step on disk before the next, so that a run that was broken off is gone on with by the next:

1. new keys and ``exchange.json`` in ``next-keys/`` of the home;
2. what this witness cosigned last is cosigned with the new key too;
3. the ledger's last entry under the old key, ``key-handover``, and its checkpoint signed by both;
4. the request, signed by every old and every new key, becomes this member's entry in the next roster;
5. new keys over the old ones, which are gone then;
6. the rosters learnt and the exchange on record, under the new key; descriptions of datasets signed anew.

Between 3 and 5 nothing else is written into the ledger: where the roster's answer is lost, nobody here can know which key is
in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from coordinator import rekeying
from coordinator.enrolment import RootAbsentError
from federation.crypto import SigningKey, TlsIdentity, make_private_dir, read_private, write_private
from federation.errors import KeyongError, UnavailableError, UsageError
from federation.home import KEY_ROLES, Home, now
from federation.keyring import witness_name
from federation.ledger import countersign
from federation.statements import Envelope, KeyChange, Roster
from federation.wire import messages as m
from federation.wire.dial import LinkRefusedError, UnreachableError
from federation.wire.member import connect, fetch_rosters
from federation.wire.patience import ANSWER_SECONDS
from federation.wire.peer import LinkLostError, NoAnswerError
from keyong.registering import sign_descriptions

ROLES: Final = (*KEY_ROLES, "tls")
FOLDER: Final = "next-keys"
REQUEST_VALIDITY = timedelta(hours=1)
_PLAN = "exchange.json"
_NO_ANSWER = (UnreachableError, LinkLostError, NoAnswerError, LinkRefusedError)


class ExchangeUnansweredError(UnavailableError):
    """The request is out and its answer is not here: either key may be in force."""

    code = "keys-unanswered"


@dataclass(frozen=True)
class Exchanged:
    """Keys that were exchanged, and the roster that names the new ones."""

    roles: tuple[str, ...]
    roster: Roster


def rotate(home: Home, roles: Collection[str] = ROLES) -> Exchanged:
    """Exchange the keys of these roles, or finish the exchange that was begun before, whichever roles that was of.

    Raises:
        AlreadyServingError: a node or a coordinator serves this home, and holds the old keys.
        ExchangeUnansweredError: whether the roster names the new keys is not known; run it again.
        KeyongError: the coordinator refused, for its reason; the old keys stay.
    """
    with _nobody_serves(home):
        exchange = _Exchange.begun(home) or _Exchange.begin(home, roles)
        if not exchange.entered():
            try:
                exchange.enter()
            except _NO_ANSWER as error:
                raise ExchangeUnansweredError(
                    "the coordinator did not answer, and may have entered the new keys: {reason}",
                    hint="run `keyong keys rotate` again when it can be reached; until then this ledger takes no entry",
                    reason=error.message,
                ) from None
            except KeyongError as error:
                exchange.give_up(error.code)
                raise
        return exchange.finish()


def _check_one_signature(roster: Roster) -> None:
    """Raise before anything is begun where the next roster takes several root holders: the coordinator cannot sign it at once,
    and a ledger whose key is being exchanged takes no entry until the roster is there."""
    if roster.root.threshold == 1:
        return
    raise RootAbsentError(
        "keys are exchanged with a roster that the coordinator signs at once, and this one takes {count} root signatures",
        hint="holders of root keys lower the threshold for that time: keyong consortium propose FILE --threshold 1, then approve"
        " and adopt; after `keyong keys rotate` they propose --threshold {count}",
        count=roster.root.threshold,
    )


@contextlib.contextmanager
def _nobody_serves(home: Home) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for role in ("node", "coordinator"):
            held.callback(home.claim(role).release)
        yield


class _Exchange:
    """One exchange of a home's keys, as far as it has come."""

    def __init__(self, home: Home, roles: tuple[str, ...], before: int) -> None:
        self._home = home
        self._folder = home.path / FOLDER
        self.roles = roles
        self._before = before
        """The roster's version when it began."""

    @classmethod
    def begin(cls, home: Home, roles: Collection[str]) -> _Exchange:
        """Make new keys; the old ones are in force."""
        home.member  # who is not in the roster has nothing to exchange  # noqa: B018
        home.check_keys()
        _check_one_signature(home.history.latest)
        chosen = tuple(role for role in ROLES if role in roles)
        if not chosen:
            raise UsageError("no key is named to be exchanged", hint="name roles: {roles}", roles=", ".join(ROLES))
        folder = home.path / FOLDER
        if folder.exists():
            shutil.rmtree(folder)  # without its plan, nothing rests on what is in it
        make_private_dir(folder)
        for role in chosen:
            if role == "tls":
                tls = TlsIdentity.generate(home.identity.member)
                write_private(folder / "tls.key", tls.key_pem)
                write_private(folder / "tls.crt", tls.certificate_pem)
            else:
                SigningKey.generate().save(folder / f"{role}.key")
        exchange = cls(home, chosen, home.history.latest.version)
        me = home.member
        plan = {
            "roles": list(chosen),
            "before": exchange._before,
            "keys": {
                role: exchange._new(role).public.text if role in chosen else getattr(me, f"{role}_key")
                for role in KEY_ROLES
            },
            "certificate": exchange._tls().certificate_pem.decode(),
        }
        write_private(folder / _PLAN, json.dumps(plan).encode())
        return exchange

    @classmethod
    def begun(cls, home: Home) -> _Exchange | None:
        """The exchange that an earlier run began, if it was not finished."""
        path = home.path / FOLDER / _PLAN
        if not path.exists():
            return None
        plan = json.loads(read_private(path))
        return cls(home, tuple(plan["roles"]), int(plan["before"]))

    def _plan(self) -> dict[str, Any]:
        return dict(json.loads(read_private(self._folder / _PLAN)))

    def _new(self, role: str) -> SigningKey:
        """The key of a role from now on, the old one where it stays."""
        return SigningKey.load(self._folder / f"{role}.key") if role in self.roles else self._home.key(role)

    def _tls(self) -> TlsIdentity:
        if "tls" not in self.roles:
            return self._home.tls
        return TlsIdentity(read_private(self._folder / "tls.key"), read_private(self._folder / "tls.crt"))

    def entered(self) -> bool:
        """Whether the newest roster known here names the new keys."""
        plan, me = self._plan(), self._home.history.latest.member(self._home.identity.member)
        named = {role: getattr(me, f"{role}_key") for role in KEY_ROLES}
        return bool(named == plan["keys"] and me.tls_certificate == plan["certificate"])

    def enter(self) -> None:
        """Have the new keys entered in the roster."""
        if self._home.identity.founded:
            request = self._request(self._hand_over())
            rekeying.change_keys(self._home, self._home.identity.member, request, now())
            return
        asyncio.run(self._ask())

    async def _ask(self) -> None:
        home = self._home
        try:
            await self._ask_as(home.tls)
        except UnreachableError:
            if "tls" not in self.roles:
                raise
            await self._ask_as(
                self._tls()
            )  # entered before, and the answer was lost: the old certificate is nobody's now

    async def _ask_as(self, tls: TlsIdentity) -> None:
        # Rosters go on record with the new key, after it all: the old one has perhaps written its last entry.
        async with connect(self._home, tls=tls) as peer:
            await fetch_rosters(peer, self._home, None)
            if self.entered():
                return
            request = await asyncio.to_thread(lambda: self._request(self._hand_over()))
            header = m.Envelopes(envelopes=(m.pack(request),)).to_bytes()
            answer = await peer.call("roster.keys", header, timeout=ANSWER_SECONDS)
            del answer  # the roster is fetched whole: others may have changed it meanwhile
            await fetch_rosters(peer, self._home, None)
        if not self.entered():
            raise UnavailableError("the coordinator entered other keys than ours", code="enrolment")

    def _hand_over(self) -> str:
        """The checkpoint at which the ledger's new key takes over; empty where it keeps its key."""
        if "witness" in self.roles:
            name = witness_name(self._home.identity.consortium, self._home.identity.member)
            countersign(self._home.folder("witnessed"), name, self._home.key("witness"), self._new("witness"), now())
        if "ledger" not in self.roles:
            return ""
        with self._home.open_ledger() as ledger:
            fields = {"event": "handed-over", "successor": self._new("ledger").public.text}
            return ledger.hand_over(self._new("ledger"), fields).decode()

    def _request(self, handover: str) -> Envelope:
        at = now()
        request = KeyChange(
            issued=at,
            expires=at + REQUEST_VALIDITY,
            consortium=self._home.identity.consortium,
            member=self._home.identity.member,
            statement_key=self._new("statement").public.text,
            ledger_key=self._new("ledger").public.text,
            witness_key=self._new("witness").public.text,
            tls_certificate=self._tls().certificate_pem.decode(),
            ledger_since=handover,
        )
        signers = [self._home.key(role) for role in KEY_ROLES]
        return request.seal(*signers, *(self._new(role) for role in KEY_ROLES if role in self.roles))

    def give_up(self, code: str) -> None:
        """Keep the old keys: the coordinator refused the new ones."""
        with self._home.open_ledger() as ledger:
            last = next(ledger.entries(ledger.size - 1), None) if ledger.size else None
            if last is not None and last.kind == "key-handover":
                ledger.keep_key({"event": "kept", "code": code})
        shutil.rmtree(self._folder)

    def finish(self) -> Exchanged:
        """Put the new keys in place, and all of it on record."""
        for role in self.roles:
            for name in ("tls.key", "tls.crt") if role == "tls" else (f"{role}.key",):
                if (self._folder / name).exists():
                    (self._folder / name).replace(self._home.path / "keys" / name)
        history = self._home.history
        with self._home.open_ledger() as ledger:
            known = {ledger.fields(entry.index).get("version") for entry in ledger.find(kind="roster")}
            for envelope, roster in zip(history.envelopes, history.rosters, strict=True):
                if roster.version > self._before and roster.version not in known:
                    ledger.append("roster", {"roster": envelope.digest, "version": roster.version})
            fields = {"event": "exchanged", "roles": list(self.roles), "roster": history.digest}
            ledger.append("keys", fields)
        if "statement" in self.roles:
            sign_descriptions(self._home)
        shutil.rmtree(self._folder)
        return Exchanged(self.roles, history.latest)
