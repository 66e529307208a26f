"""One party's endpoints: a request as bytes in, an answer as bytes out; no socket, so that a gateway may carry both.

1. Every request but one for the versions is signed by a member of the roster for exactly this, and not older than
   minutes; anything else is 401 and learns nothing.
2. The same call again is answered from the record: a gateway that plays it twice changes nothing.
3. What is refused is 4xx with the protocol's own error and its reason; what is not the caller's is 404.
4. Every answer is signed, refusals too, so that a gateway cannot make one up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import structlog

from federation.crypto import canonical_json
from federation.dataspace.calls import Call, open_call, sign_answer
from federation.dataspace.catalog import CatalogDesk, versions
from federation.dataspace.messages import error_document
from federation.dataspace.negotiation import NegotiationDesk, echoed
from federation.dataspace.party import Party
from federation.dataspace.states import Reply
from federation.dataspace.store import NoSuchProcessError
from federation.dataspace.terms import BODY_BYTES, CALL_VALIDITY, PID, WELL_KNOWN
from federation.dataspace.transfer import MESSAGES, TransferDesk
from federation.errors import KeyongError, UnavailableError, VerificationError
from federation.ledger import LedgerError
from federation.statements import CLOCK_SKEW

log = structlog.get_logger("keyong.dataspace")

Handle = Callable[[str, tuple[str, ...], bytes], Reply]
"""Takes who calls, the ids in the path, and the body."""
_PID = f"({PID[1:-1]})"
_CATALOG, _NEGOTIATION, _TRANSFER = "CatalogError", "ContractNegotiationError", "TransferError"


@dataclass(frozen=True)
class Request:
    """What arrived: ``path`` below the member's base, ``token`` the ``Authorization`` header, empty where none."""

    method: str
    path: str
    token: str
    body: bytes


@dataclass(frozen=True)
class Response:
    """What goes back; ``token`` is the signature under it."""

    status: int
    body: bytes
    token: str = ""


class Connector:
    """Answers the Dataspace Protocol for one party. Blocking: a service calls :meth:`answer` in a thread."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._routes = _routes(party)

    def answer(self, request: Request) -> Response:
        """Answer one request; never raises for what is in it."""
        if (request.method, request.path) == ("GET", WELL_KNOWN):
            return Response(200, canonical_json(versions([self._party.me])))
        try:
            call = self._verified(request)
        except VerificationError as error:
            log.info("dataspace-call-refused", code=error.code)
            return Response(401, canonical_json(error_document("CatalogError", error.code, "the call is not signed")))
        status, document = self._dispatched(call, request)
        body = canonical_json(document)
        now = self._party.clock()
        return Response(
            status,
            body,
            sign_answer(self._party.home.key("statement"), self._party.me, call.envelope, status, body, now),
        )

    def _verified(self, request: Request) -> Call:
        if len(request.body) > BODY_BYTES:
            raise VerificationError("the body is larger than any message", code="message-size")
        party = self._party
        return open_call(
            request.token, party.me, request.method, request.path, request.body, party.home.public_key, party.clock()
        )

    def _dispatched(self, call: Call, request: Request) -> Reply:
        found = self._route(request)
        if found is None:
            return 404, error_document("CatalogError", "no-such-endpoint", "there is no such endpoint")
        kind, ids, handle = found
        if request.method == "GET":
            return self._handled(kind, lambda: handle(call.statement.by, ids, request.body), request.body)
        store, statement = self._party.store, call.statement
        until = statement.issued + CALL_VALIDITY + CLOCK_SKEW
        known = store.first_time(statement.id, statement.by, call.envelope.digest, until, self._party.clock())
        if known is not None:
            return self._again(kind, known.digest == call.envelope.digest, known.status, known.body)
        status, document = self._handled(kind, lambda: handle(statement.by, ids, request.body), request.body)
        store.answered(statement.id, status, canonical_json(document))
        return status, document

    def _again(self, kind: str, same: bool, status: int, body: bytes) -> Reply:
        if not same:
            return 400, error_document(kind, "replay", "another call bore this id")
        if status == 0:
            return 503, error_document(kind, "busy", "this call is being answered")
        document: dict[str, Any] = json.loads(body)
        return status, document

    def _route(self, request: Request) -> tuple[str, tuple[str, ...], Handle] | None:
        path = unquote(request.path)
        for method, pattern, kind, handle in self._routes:
            if method == request.method and (found := pattern.fullmatch(path)) is not None:
                return kind, found.groups(), handle
        return None

    def _handled(self, kind: str, handle: Callable[[], Reply], body: bytes) -> Reply:
        consumer, provider = echoed(body)
        try:
            return handle()
        except NoSuchProcessError as error:
            return 404, error_document(kind, error.code, error.message, consumer, provider)
        except UnavailableError as error:
            log.error("dataspace-unavailable", code=error.code)
            return 503, error_document(kind, "unavailable", "not now; try again", consumer, provider)
        except LedgerError as error:
            log.error("dataspace-not-recorded", code=error.code)
            return 503, error_document(kind, "unavailable", "not now; try again", consumer, provider)
        except KeyongError as error:
            log.info("dataspace-refused", code=error.code)
            return 400, error_document(kind, error.code, error.message, consumer, provider)
        except Exception as error:
            log.error("dataspace-failed", error=type(error).__name__, exc_info=True)
            return 500, error_document(kind, "internal", "internal error", consumer, provider)


def _routes(party: Party) -> list[tuple[str, re.Pattern[str], str, Handle]]:
    talk, grants, shelf = NegotiationDesk(party), TransferDesk(party), CatalogDesk(party)
    routes: list[tuple[str, re.Pattern[str], str, Handle]] = []

    def on(method: str, path: str, kind: str, handle: Handle) -> None:
        routes.append((method, re.compile(path), kind, handle))

    def on_one(path: str, kind: str, handle: Callable[[str, str, bytes], Reply]) -> None:
        on("POST", path, kind, lambda peer, ids, body: handle(peer, ids[0], body))

    on("POST", "/catalog/request", _CATALOG, lambda peer, ids, body: shelf.catalog(body))
    on("GET", f"/catalog/datasets/{_PID}", _CATALOG, lambda peer, ids, body: shelf.dataset(ids[0]))
    on("POST", "/negotiations/request", _NEGOTIATION, lambda peer, ids, body: talk.begin(peer, body))
    on("POST", "/negotiations/offers", _NEGOTIATION, lambda peer, ids, body: talk.offered(peer, body))
    on("GET", f"/negotiations/{_PID}", _NEGOTIATION, lambda peer, ids, body: talk.show(peer, ids[0]))
    ends = {
        "request": talk.counter,
        "offers": talk.offered_again,
        "agreement": talk.agreed,
        "agreement/verification": talk.verified,
        "events": talk.event,
        "termination": talk.terminated,
    }
    for end, handle in ends.items():
        on_one(f"/negotiations/{_PID}/{end}", _NEGOTIATION, handle)
    on("POST", "/transfers/request", _TRANSFER, lambda peer, ids, body: grants.begin(peer, body))
    on("GET", f"/transfers/{_PID}", _TRANSFER, lambda peer, ids, body: grants.show(peer, ids[0]))
    for target, (end, _) in MESSAGES.items():
        on_one(f"/transfers/{_PID}/{end}", _TRANSFER, partial(grants.told, target=target))
    return routes
