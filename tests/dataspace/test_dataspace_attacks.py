"""What a member, a gateway or a stranger might try on the endpoints; each is refused, and changes nothing."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation.crypto import TlsIdentity
from federation.dataspace import (
    COMPUTE,
    GatewayAddressError,
    GatewayUnreachableError,
    HttpsCourier,
    NegotiationRow,
    Request,
    TransferRow,
)
from federation.dataspace import connector as connector_module
from federation.dataspace.calls import SCHEME, sign_call
from federation.dataspace.https import check_gateway
from federation.dataspace.messages import pack
from federation.dataspace.terms import BODY_BYTES, OPEN_PER_MEMBER, STATEMENT
from federation.statements import Agreement, Suspension, add_signature
from tests.dataspace.world import CONSUMER, DATASET, OFFER, PROVIDER, USE, Kit, World, in_force, said, terms


def asked(kit: Kit, **changes: Any) -> tuple[int, dict[str, Any]]:
    """A first request, or one that is off in one place."""
    values = {
        "consumerPid": f"urn:uuid:{uuid.uuid4()}",
        "offer": {**OFFER, "permission": USE},
        "callbackAddress": kit.courier.base(kit.name),
        **changes,
    }
    body = json.dumps(said("ContractRequestMessage", **{k: v for k, v in values.items() if v is not None}))
    return kit.post("/negotiations/request", body.encode())


@pytest.fixture
def kit(world: World) -> Kit:
    return world.kit(CONSUMER, PROVIDER)


@pytest.fixture
def begun(world: World, kit: Kit) -> str:
    """A negotiation that the lab began at the mill; its id there."""
    return str(asked(kit)[1]["providerPid"])


def rows(world: World) -> int:
    return len(world[PROVIDER].party.store.list(NegotiationRow))


# -- who calls ---------------------------------------------------------------------------------------------------------


def signed_by(world: World, name: str, path: str, body: bytes, **changes: Any) -> str:
    values = {"by": name, "to": PROVIDER, "method": "POST", "now": datetime.now(UTC), **changes}
    key = world[changes.pop("signer", name)].keys.statement
    values.pop("signer", None)
    return sign_call(key, values["by"], values["to"], values["method"], values.get("path", path), body, values["now"])[
        1
    ]


@pytest.mark.parametrize(
    "what", ["unsigned", "another-body", "another-path", "another-member", "another-key", "old", "future", "garbage"]
)
def test_a_call_that_its_caller_did_not_sign_for_this_is_401(world: World, what: str) -> None:
    path, now = "/negotiations/request", datetime.now(UTC)
    body = json.dumps(said("ContractRequestMessage")).encode()
    token = {
        "unsigned": "",
        "garbage": SCHEME + "x" * 20,
        "another-body": signed_by(world, CONSUMER, path, b"{}"),
        "another-path": signed_by(world, CONSUMER, "/negotiations/offers", body),
        "another-member": signed_by(world, CONSUMER, path, body, to="inst"),
        "another-key": signed_by(world, CONSUMER, path, body, signer="rival"),
        "old": signed_by(world, CONSUMER, path, body, now=now - timedelta(minutes=10)),
        "future": signed_by(world, CONSUMER, path, body, now=now + timedelta(minutes=10)),
    }[what]
    before = rows(world)
    answer = world[PROVIDER].endpoint.answer(Request("POST", path, token, body))
    assert (answer.status, answer.token, rows(world)) == (401, "", before)


def test_without_the_check_of_calls_anybody_could_begin(
    world: World, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above rests on this check: with it taken away, a call signed for another body is taken."""
    from federation.dataspace import calls

    def unchecked(token: str, me: str, method: str, path: str, body: bytes, key_of: Any, now: Any) -> Any:
        envelope = calls._envelope(token.removeprefix(SCHEME))
        return calls.Call(calls.DataspaceCall.read(envelope), envelope)

    monkeypatch.setattr(connector_module, "open_call", unchecked)
    body = json.dumps(
        said(
            "ContractRequestMessage",
            consumerPid="urn:x",
            offer={**OFFER, "permission": USE},
            callbackAddress=kit.courier.base(CONSUMER),
        )
    ).encode()
    token = signed_by(world, CONSUMER, "/negotiations/request", b"{}")
    assert world[PROVIDER].endpoint.answer(Request("POST", "/negotiations/request", token, body)).status == 201


def test_the_same_call_again_is_answered_from_the_record(world: World, kit: Kit) -> None:
    body = json.dumps(
        said(
            "ContractRequestMessage",
            consumerPid=f"urn:uuid:{uuid.uuid4()}",
            offer={**OFFER, "permission": USE},
            callbackAddress=kit.courier.base(CONSUMER),
        )
    ).encode()
    request = Request("POST", "/negotiations/request", signed_by(world, CONSUMER, "/negotiations/request", body), body)
    first = world[PROVIDER].endpoint.answer(request)
    before = rows(world)
    again = world[PROVIDER].endpoint.answer(request)
    assert (first.status, again.status, again.body) == (201, 201, first.body) and rows(world) == before
    pid = json.loads(first.body)["providerPid"]
    path = f"/negotiations/{pid}/termination"
    ending = json.dumps(
        said("ContractNegotiationTerminationMessage", consumerPid=json.loads(body)["consumerPid"], providerPid=pid)
    ).encode()
    request = Request("POST", path, signed_by(world, CONSUMER, path, ending), ending)
    entries = len(world[PROVIDER].entries("negotiation"))
    answers = [world[PROVIDER].endpoint.answer(request).status for _ in range(3)]
    assert answers == [200, 200, 200] and len(world[PROVIDER].entries("negotiation")) == entries + 1


def test_the_same_request_in_another_call_begins_nothing_new(world: World, kit: Kit) -> None:
    pid = f"urn:uuid:{uuid.uuid4()}"
    first, before = asked(kit, consumerPid=pid), rows(world)
    again = asked(kit, consumerPid=pid)
    assert (first[0], again[0], again[1]["providerPid"], rows(world)) == (201, 200, first[1]["providerPid"], before)


@pytest.mark.parametrize("end", ["termination", "agreement/verification", "events", "request"])
def test_another_members_negotiation_is_not_there(world: World, begun: str, end: str) -> None:
    """A rival who knows both ids still finds nothing: 404, and the negotiation stands as it stood."""
    rival = world.kit("rival", PROVIDER)
    row = world[PROVIDER].negotiation(begun)
    pids = {"consumerPid": row.peer_pid, "providerPid": begun}
    messages = {
        "termination": said("ContractNegotiationTerminationMessage", **pids),
        "agreement/verification": said("ContractAgreementVerificationMessage", **pids),
        "events": said("ContractNegotiationEventMessage", eventType="ACCEPTED", **pids),
        "request": said("ContractRequestMessage", offer={**OFFER, "permission": USE}, **pids),
    }
    status, told = rival.say(f"/negotiations/{begun}/{end}", messages[end])
    assert (status, told["@type"]) == (404, "ContractNegotiationError")
    assert rival.get(f"/negotiations/{begun}")[0] == 404
    assert world[PROVIDER].negotiation(begun).state == "REQUESTED"


def test_a_message_that_names_another_process_than_its_address_is_refused(world: World, kit: Kit, begun: str) -> None:
    other = str(asked(kit)[1]["providerPid"])
    mine = world[PROVIDER].negotiation(begun).peer_pid
    for pids in ({"consumerPid": mine, "providerPid": other}, {"consumerPid": "urn:x", "providerPid": begun}):
        status, _ = kit.say(f"/negotiations/{begun}/termination", said("ContractNegotiationTerminationMessage", **pids))
        assert status == 400
    assert world[PROVIDER].negotiation(begun).state == "REQUESTED"


@pytest.mark.parametrize("pid", ["", "a/../../b", "a b", "a\r\nHost: x", "a?b", "a%2fb", "x" * 201, "é", 5])
def test_an_id_that_could_not_stand_in_an_address_is_refused(world: World, kit: Kit, pid: Any) -> None:
    before = rows(world)
    assert asked(kit, consumerPid=pid)[0] == 400 and rows(world) == before


def test_a_step_that_fails_inside_is_put_off_and_keeps_nobody_else_waiting(
    world: World, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from federation.dataspace import Negotiator, Reactions

    mill = world[PROVIDER]
    for row in mill.party.store.list(NegotiationRow, open_only=True):
        mill.party.store.change(row, datetime.now(UTC), state="TERMINATED")
    first, second = (str(asked(kit)[1]["providerPid"]) for _ in range(2))
    for pid in (first, second):
        row = mill.negotiation(pid)
        mill.party.store.change(row, datetime.now(UTC), consent=row.on_table.digest)
    original = Negotiator.go_on

    def failing(self: Any, row: NegotiationRow) -> NegotiationRow:
        if row.pid == first:
            raise ValueError("a fault of ours")
        return original(self, row)

    monkeypatch.setattr(Negotiator, "go_on", failing)
    reactions = Reactions(mill.party)
    assert (reactions.run(), reactions.run()) == (1, 0)
    assert [mill.negotiation(pid).state for pid in (first, second)] == ["REQUESTED", "AGREED"]


# -- where answers go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254/latest",
        "https://127.0.0.1:22",
        "http://127.0.0.1/members/lab/2025-1",
        "https://evil.example/members/lab/2025-1",
        "file:///etc/passwd",
        "{base}@evil.example",
        "{base}/../../inst/2025-1",
        "{other}",
        None,
    ],
)
def test_a_callback_address_that_is_not_the_callers_own_is_refused(world: World, kit: Kit, address: str | None) -> None:
    before = rows(world)
    if address is not None:
        address = address.format(base=kit.courier.base(CONSUMER), other=kit.courier.base("rival"))
    assert asked(kit, callbackAddress=address)[0] == 400 and rows(world) == before


def test_we_connect_to_the_coordinators_host_alone(world: World) -> None:
    home = world[PROVIDER].party.home
    assert check_gateway("https://127.0.0.1:9/", home) == "https://127.0.0.1:9"
    for address in (
        "http://127.0.0.1:9",
        "https://127.0.0.2:9",
        "https://127.0.0.1:9/path",
        "https://127.0.0.1",
        "https://a@127.0.0.1.evil:9",
        "https://127.0.0.1:99999",
    ):
        with pytest.raises(GatewayAddressError):
            check_gateway(address, home)


def listening(identity: TlsIdentity, tmp_path: Any) -> tuple[socket.socket, int]:
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "key").write_bytes(identity.key_pem)
    (tmp_path / "crt").write_bytes(identity.certificate_pem)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            raw, _ = server.accept()
            with context.wrap_socket(raw, server_side=True) as taken:
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    return server, server.getsockname()[1]


@pytest.mark.parametrize("who", ["stranger", "member"])
def test_a_gateway_that_does_not_hold_the_coordinators_key_gets_no_word(world: World, tmp_path: Any, who: str) -> None:
    identity = TlsIdentity.generate("inst") if who == "stranger" else world["rival"].keys.tls
    server, port = listening(identity, tmp_path)
    with server:
        courier = HttpsCourier(world[PROVIDER].party.home, f"https://127.0.0.1:{port}")
        with pytest.raises(GatewayUnreachableError):
            courier.ask(CONSUMER, "GET", "/negotiations/x", b"")


def test_a_gateway_cannot_answer_in_a_members_name(world: World, tmp_path: Any) -> None:
    """The coordinator itself, with the right certificate and no signature of the member's, is not believed."""
    server, port = listening(world["inst"].keys.tls, tmp_path)
    with server:
        courier = HttpsCourier(world[PROVIDER].party.home, f"https://127.0.0.1:{port}")
        with pytest.raises(GatewayUnreachableError, match="no signed answer"):
            courier.ask(CONSUMER, "GET", "/negotiations/x", b"")


def test_a_gateway_cannot_alter_an_answer(world: World, kit: Kit, begun: str) -> None:
    from federation.dataspace import Response
    from federation.errors import VerificationError

    honest = world[PROVIDER].endpoint.answer

    def altered(request: Request) -> Response:
        answer = honest(request)
        return Response(answer.status, answer.body.replace(b"REQUESTED", b"FINALIZED"), answer.token)

    world.links.of[PROVIDER] = altered
    with pytest.raises(VerificationError):
        kit.get(f"/negotiations/{begun}")


def test_a_stranger_gets_no_further_than_the_handshake(world: World, tmp_path: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    identity = TlsIdentity.generate("lab")
    identity.save(tmp_path / "pem")
    for shown in (False, True):
        if shown:
            context.load_cert_chain(tmp_path / "pem")
        connection = http.client.HTTPSConnection("127.0.0.1", world.port, context=context, timeout=10)
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.request("GET", "/.well-known/dspace-version")
            connection.getresponse().read()
        connection.close()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", world.port)) as raw:
        old.wrap_socket(raw)


# -- what is in the body -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"@type": "ContractRequestMessage"}',
        b'{"@context": [], "@type": "ContractRequestMessage", "consumerPid": "x", "offer": {}}',
        b'{"a": 1, "a": 2}',
        b'{"a": 1.5}',
        b"[" * 100_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"@type": "TransferRequestMessage"}',
    ],
    ids=range(12),
)
def test_what_is_no_message_is_400_with_the_protocols_error(world: World, kit: Kit, body: bytes) -> None:
    before = rows(world)
    status, told = kit.post("/negotiations/request", body)
    assert (status, told["@type"]) == (400, "ContractNegotiationError") and told["reason"][0]
    assert rows(world) == before


def test_a_body_larger_than_any_message_is_not_carried(world: World, kit: Kit) -> None:
    with pytest.raises(GatewayUnreachableError):
        kit.post("/negotiations/request", b" " * (BODY_BYTES + 1))


CONSTRAINT = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "1", "@type": "xsd:integer"}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"permission": [{"action": "fly"}]}, "fly"),
        ({"permission": [{"action": "use", "constraint": [{**CONSTRAINT, "leftOperand": "odrl:mood"}]}]}, "odrl:mood"),
        ({"permission": [{"action": "use", "constraint": [{**CONSTRAINT, "operator": "isA"}]}]}, "isA"),
        ({"permission": [{"action": "use", "constraint": [{**CONSTRAINT, "rightOperand": 1}]}]}, "constraint"),
        ({"permission": [{"action": "use", "refinement": []}]}, "refinement"),
        ({"permission": USE, "obligation": [{"action": "odrl:delete"}]}, "obligation"),
        ({"permission": USE, "profile": "https://other.example/profile"}, "profile"),
        ({"permission": USE, "assigner": "urn:keyong:member:rival"}, "assigner"),
        ({"permission": USE, "target": "urn:keyong:dataset:rival:passes"}, "target"),
        ({"permission": USE, "target": "urn:keyong:dataset:mill:nothing"}, "nothing"),
        ({"prohibition": USE}, "permission"),
    ],
    ids=range(11),
)
def test_an_offer_that_nobody_here_can_judge_is_refused_with_the_place(
    world: World, kit: Kit, changes: dict[str, Any], named: str
) -> None:
    before = rows(world)
    status, told = asked(kit, offer={**OFFER, **changes})
    assert status == 400 and rows(world) == before
    assert named in told["reason"][0] or changes.get("target", "-").rpartition(":")[0] in told["reason"][0]


def test_a_member_cannot_flood(world: World) -> None:
    kit = world.kit("rival", PROVIDER)
    store = world[PROVIDER].party.store
    for number in range(OPEN_PER_MEMBER - store.open_with(NegotiationRow, "rival")):
        row = NegotiationRow(
            pid=f"urn:uuid:{uuid.uuid4()}",
            role="provider",
            peer="rival",
            peer_pid=f"urn:flood:{number}",
            state="REQUESTED",
            terms="{}",
            created="2026-01-01T00:00:00Z",
            updated="2026-01-01T00:00:00Z",
        )
        store.add(row)
    status, told = asked(kit)
    assert (status, told["code"]) == (400, "too-many-waiting")
    for row in store.list(NegotiationRow, open_only=True):
        if row.peer == "rival":
            store.change(row, datetime.now(UTC), state="TERMINATED")


# -- signatures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["nothing", "ours-alone", "another-agreement", "rivals-signature"])
def test_a_verification_without_the_consumers_signature_under_our_agreement_is_refused(
    world: World, kit: Kit, begun: str, beside: str
) -> None:
    mill, lab = world[PROVIDER], world[CONSUMER]
    row = mill.negotiator.agree(mill.negotiation(begun))
    from federation.statements import Envelope

    made = Envelope.from_bytes(row.statement)
    other = in_force(world)
    statement = {
        "nothing": None,
        "ours-alone": made,
        "another-agreement": other,
        "rivals-signature": add_signature(made, world["rival"].keys.statement),
    }[beside]
    pids = {"consumerPid": row.peer_pid, "providerPid": row.pid}
    more = {} if statement is None else {STATEMENT: pack(statement)}
    status, _ = kit.say(
        f"/negotiations/{begun}/agreement/verification", said("ContractAgreementVerificationMessage", **pids, **more)
    )
    assert status == 400 and mill.negotiation(begun).state == "AGREED"
    good = {STATEMENT: pack(add_signature(made, lab.keys.statement))}
    assert (
        kit.say(
            f"/negotiations/{begun}/agreement/verification",
            said("ContractAgreementVerificationMessage", **pids, **good),
        )[0]
        == 200
    )


@pytest.mark.parametrize("what", ["clauses", "price", "policy-beside", "unsigned"])
def test_a_provider_cannot_slip_in_another_agreement(world: World, what: str) -> None:
    """The consumer asked for one thing; an agreement on another is refused, whoever signed it."""
    kit, lab, mill = world.kit(PROVIDER, CONSUMER), world[CONSUMER], world[PROVIDER]
    theirs = f"urn:uuid:{uuid.uuid4()}"
    kit.answers = lambda path, document: (
        said("ContractNegotiation", consumerPid=document["consumerPid"], providerPid=theirs, state="REQUESTED")
        if path == "/negotiations/request"
        else {}
    )
    wanted = terms()
    row = lab.negotiator.request(PROVIDER, wanted, f"urn:uuid:{uuid.uuid4()}")
    at = datetime.now(UTC)
    given = terms(count=1) if what == "clauses" else wanted
    identity = f"urn:uuid:{uuid.uuid4()}"
    agreement = Agreement(
        issued=at,
        expires=at + timedelta(days=30),
        id=identity,
        provider=PROVIDER,
        consumer=CONSUMER,
        dataset="passes",
        title="Passes",
        roster=kit.home.history.digest,
        policy={**given.policy, "@id": identity},
        cost="5" if what == "price" else "0",
        tariff="CNY" if what == "price" else "",
    )
    signer = world["rival"] if what == "unsigned" else mill
    shown = {**agreement.policy, "timestamp": "2026-01-01T00:00:00Z"} if what == "policy-beside" else agreement.policy
    status, _ = kit.say(
        f"/negotiations/{row.pid}/agreement",
        said(
            "ContractAgreementMessage",
            consumerPid=row.pid,
            providerPid=theirs,
            agreement=shown,
            **{STATEMENT: pack(agreement.seal(signer.keys.statement))},
        ),
    )
    assert status == 400 and lab.negotiation(row.pid).state == "REQUESTED"
    assert lab.party.holdings.with_id(identity) == []


# -- transfers ---------------------------------------------------------------------------------------------------------


def granted(world: World, kit: Kit, agreement: str, **changes: Any) -> tuple[int, dict[str, Any]]:
    values = {
        "consumerPid": f"urn:uuid:{uuid.uuid4()}",
        "agreementId": agreement,
        "format": COMPUTE,
        "callbackAddress": kit.courier.base(kit.name),
        **changes,
    }
    return kit.say("/transfers/request", said("TransferRequestMessage", **values))


def test_a_grant_rests_on_an_agreement_in_force_between_these_two(world: World, kit: Kit) -> None:
    agreement = in_force(world)
    identity = Agreement.read(agreement).id
    rival = world.kit("rival", PROVIDER)
    assert granted(world, rival, identity)[1]["code"] == "no-grant"
    world.kit(CONSUMER, PROVIDER)
    assert granted(world, kit, f"urn:uuid:{uuid.uuid4()}")[1]["code"] == "no-grant"
    assert granted(world, kit, identity, format="HttpData-PULL")[0] == 400
    address = {"@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP", "endpoint": "http://x"}
    assert granted(world, kit, identity, dataAddress=address)[0] == 400
    assert granted(world, kit, identity)[0] == 201
    assert granted(world, kit, identity)[1]["code"] == "wrong-state"  # one at a time
    world[PROVIDER].party.holdings.move(agreement.digest, "revoked")
    assert granted(world, kit, identity)[1]["code"] == "no-grant"


def test_a_consumer_cannot_lift_what_the_provider_suspended(world: World, kit: Kit) -> None:
    agreement, mill = in_force(world), world[PROVIDER]
    pid = granted(world, kit, Agreement.read(agreement).id)[1]["providerPid"]
    mill.grantor.lead(mill.transfer(pid), "STARTED")
    mill.grantor.lead(mill.transfer(pid), "SUSPENDED", "maintenance")
    row = mill.transfer(pid)
    pids = {"consumerPid": row.peer_pid, "providerPid": pid}
    status, told = kit.say(f"/transfers/{pid}/start", said("TransferStartMessage", **pids))
    assert (status, told["code"]) == (400, "wrong-state") and "mill" in told["reason"][0]
    assert mill.party.holdings.state(agreement.digest) == "suspended"


def test_no_message_lifts_what_the_owner_suspended_by_command(world: World, kit: Kit) -> None:
    """The owner's word, given while the grant was live, outlasts the consumer's suspending and resuming."""
    from federation import correspondence

    agreement, mill = in_force(world), world[PROVIDER]
    pid = granted(world, kit, Agreement.read(agreement).id)[1]["providerPid"]
    mill.grantor.lead(mill.transfer(pid), "STARTED")
    at = datetime.now(UTC)
    number = max(one.number for one in mill.party.holdings.pauses(agreement.digest)) + 1
    owners = Suspension(
        issued=at,
        expires=at + timedelta(days=1),
        agreement=agreement.digest,
        by=PROVIDER,
        number=number,
        suspended=True,
        reason="audit",
    )
    correspondence.suspend(mill.party.holdings, mill.party.ledger, owners.seal(mill.keys.statement), owners)
    row = mill.transfer(pid)
    pids = {"consumerPid": row.peer_pid, "providerPid": pid}
    assert kit.say(f"/transfers/{pid}/suspension", said("TransferSuspensionMessage", **pids))[0] == 200
    status, told = kit.say(f"/transfers/{pid}/start", said("TransferStartMessage", **pids))
    assert status == 400 and "owner" in told["reason"][0]
    assert mill.party.holdings.state(agreement.digest) == "suspended"


def test_another_members_transfer_is_not_there(world: World, kit: Kit) -> None:
    agreement = in_force(world)
    pid = granted(world, kit, Agreement.read(agreement).id)[1]["providerPid"]
    row = world[PROVIDER].transfer(pid)
    rival = world.kit("rival", PROVIDER)
    pids = {"consumerPid": row.peer_pid, "providerPid": pid}
    status, told = rival.say(f"/transfers/{pid}/termination", said("TransferTerminationMessage", **pids))
    assert (status, told["@type"]) == (404, "TransferError")
    assert world[PROVIDER].party.store.find(TransferRow, pid).state == "REQUESTED"


def test_nothing_that_is_no_endpoint_answers_otherwise(world: World, kit: Kit) -> None:
    for method, path in (("GET", "/"), ("GET", "/negotiations"), ("POST", "/negotiations/x/y"), ("GET", "/../keys")):
        answered = kit.courier.ask(PROVIDER, method, path, b"")
        assert answered.status == 404
    assert kit.get(f"/catalog/datasets/{DATASET}x")[0] == 404


def test_who_joins_while_the_gateway_serves_is_let_in(world: World, tmp_path: Any) -> None:
    """And who calls before that is not: what is taken is asked of the newest roster at each handshake."""
    from federation.home import Home, Identity, NewKeys
    from federation.statements import Roster
    from tests.dataspace.world import member_entry

    home = world["inst"].party.home
    keys, latest, at = NewKeys("new", root=False), home.history.latest, datetime.now(UTC)
    roster = Roster(
        issued=at,
        expires=at + timedelta(days=30),
        consortium=latest.consortium,
        name=latest.name,
        version=latest.version + 1,
        previous=home.history.digest,
        root=latest.root,
        members=(*latest.members, member_entry("new", keys)),
    ).seal(world.root)
    identity = Identity(
        consortium=latest.consortium,
        name=latest.name,
        fingerprint=home.identity.fingerprint,
        member="new",
        entity="new Ltd",
        roles=("member",),
        coordinator="inst",
        address="127.0.0.1:1",
    )
    courier = HttpsCourier(
        Home.create(tmp_path / "new", identity, keys, [*home.history.envelopes, roster]),
        f"https://127.0.0.1:{world.port}",
    )
    with pytest.raises(GatewayUnreachableError):
        courier.ask(PROVIDER, "GET", "/catalog/datasets/urn:x", b"")
    for side in world.sides.values():
        side.party.home.learn(roster)
    assert courier.ask(PROVIDER, "GET", "/catalog/datasets/urn:x", b"").status == 404
