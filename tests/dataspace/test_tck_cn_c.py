"""CN_C: the connector under test is the consumer. The kit's scenarios, reimplemented under their ids; its code is not run."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from federation.dataspace import CounterpartyRefusedError, GatewayUnreachableError, NegotiationRow
from federation.dataspace.messages import pack
from federation.dataspace.terms import STATEMENT
from federation.statements import Agreement, Envelope
from tests.dataspace.world import CONSUMER, PROVIDER, Kit, World, check_schema, said, terms


class Course:
    """One negotiation between us (consumer) and the kit (provider)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kit: Kit = world.kit(PROVIDER, CONSUMER)
        self.cut = world[CONSUMER]
        self.theirs = f"urn:uuid:{uuid.uuid4()}"
        self.terms = terms()
        self.signed: Envelope | None = None
        self.kit.answers = self._acknowledged
        self.row_at_first = self.cut.negotiator.request(PROVIDER, self.terms, f"urn:uuid:{uuid.uuid4()}")
        self.pid = self.row_at_first.pid
        assert self.kit.last["@type"] == "ContractRequestMessage" and self.kit.last["consumerPid"] == self.pid
        self.stands("REQUESTED")

    def _acknowledged(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if path != "/negotiations/request":
            return {}
        pids = {"consumerPid": document["consumerPid"], "providerPid": self.theirs}
        told = said("ContractNegotiation", **pids, state="REQUESTED")
        check_schema(told)
        return told

    @property
    def row(self) -> NegotiationRow:
        return self.cut.negotiation(self.pid)

    @property
    def pids(self) -> dict[str, str]:
        return {"consumerPid": self.pid, "providerPid": self.theirs}

    def stands(self, state: str) -> None:
        status, told = self.kit.get(f"/negotiations/{self.pid}")
        assert (status, told) == (200, said("ContractNegotiation", **self.pids, state=state))

    # -- what the kit says --------------------------------------------------------------------------------------------

    def say(self, path: str, kind: str, **more: Any) -> int:
        status, told = self.kit.say(f"/negotiations/{self.pid}/{path}", said(kind, **self.pids, **more))
        assert (status < 300) == (told["@type"] == "ContractNegotiation")
        return status

    def offers(self) -> int:
        self.terms = terms(count=2)
        return self.say("offers", "ContractOfferMessage", offer=self.terms.offer(f"urn:uuid:{uuid.uuid4()}"))

    def agrees(self) -> int:
        at = datetime.now(UTC)
        identity = f"urn:uuid:{uuid.uuid4()}"
        policy = {**self.terms.policy, "@id": identity}
        statement = Agreement(
            issued=at,
            expires=self.terms.end(at),
            id=identity,
            provider=PROVIDER,
            consumer=CONSUMER,
            dataset="passes",
            title="Passes",
            roster=self.kit.home.history.digest,
            policy=policy,
        ).seal(self.world[PROVIDER].keys.statement)
        self.signed = statement
        return self.say("agreement", "ContractAgreementMessage", agreement=policy, **{STATEMENT: pack(statement)})

    def finalizes(self) -> int:
        return self.say("events", "ContractNegotiationEventMessage", eventType="FINALIZED")

    def terminates(self) -> int:
        return self.say("termination", "ContractNegotiationTerminationMessage")

    # -- what the connector under test decides -----------------------------------------------------------------------

    def cut_accepts(self) -> None:
        self.cut.negotiator.accept(self.row)
        assert (self.kit.last["@type"], self.kit.last["eventType"]) == ("ContractNegotiationEventMessage", "ACCEPTED")
        self.stands("ACCEPTED")

    def cut_verifies(self) -> None:
        self.cut.negotiator.verify(self.row)
        assert self.kit.last["@type"] == "ContractAgreementVerificationMessage"
        self.stands("VERIFIED")

    def cut_terminates(self) -> None:
        assert self.cut.negotiator.terminate(self.row)[1]
        assert self.kit.last["@type"] == "ContractNegotiationTerminationMessage"
        self.stands("TERMINATED")


@pytest.fixture
def course(world: World) -> Course:
    return Course(world)


def test_cn_c_01_01(course: Course) -> None:
    """Offer received, consumer accepted, provider agreement, consumer verified, provider finalized."""
    assert course.offers() == 200
    course.stands("OFFERED")
    course.cut_accepts()
    assert course.agrees() == 200
    course.stands("AGREED")
    course.cut_verifies()
    assert course.finalizes() == 200
    course.stands("FINALIZED")


def test_cn_c_01_02(course: Course) -> None:
    """Offer received, consumer counter-offer, provider terminated."""
    assert course.offers() == 200
    course.cut.negotiator.counter(course.row, terms(count=5))
    assert course.kit.last["@type"] == "ContractRequestMessage" and course.kit.last["providerPid"] == course.theirs
    course.stands("REQUESTED")
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_c_01_03(course: Course) -> None:
    """Offer received, consumer terminated."""
    assert course.offers() == 200
    course.cut_terminates()


def test_cn_c_01_04(course: Course) -> None:
    """Provider agreement, consumer verified, provider finalized."""
    assert course.agrees() == 200
    course.cut_verifies()
    assert course.finalizes() == 200
    course.stands("FINALIZED")


def test_cn_c_02_01(course: Course) -> None:
    """Provider terminated."""
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_c_02_02(course: Course) -> None:
    """Consumer terminated."""
    course.cut_terminates()


def test_cn_c_02_03(course: Course) -> None:
    """Provider agreement, consumer terminated."""
    assert course.agrees() == 200
    course.cut_terminates()
    assert course.cut.party.holdings.state(course.row.agreement) == "revoked"


def test_cn_c_02_04(course: Course) -> None:
    """Offer received, provider terminated."""
    assert course.offers() == 200
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_c_02_05(course: Course) -> None:
    """Offer received, consumer accepted, provider terminated."""
    assert course.offers() == 200
    course.cut_accepts()
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_c_02_06(course: Course) -> None:
    """Provider agreement, consumer verified, provider terminated."""
    assert course.agrees() == 200
    course.cut_verifies()
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_c_03_01(course: Course) -> None:
    """Requested; the provider's finalization is an error."""
    assert course.finalizes() == 400
    course.stands("REQUESTED")


def test_cn_c_03_02(course: Course) -> None:
    """Offer received; an agreement is an error."""
    assert course.offers() == 200
    assert course.agrees() == 400
    course.stands("OFFERED")


def test_cn_c_03_03(course: Course) -> None:
    """Offer received; a finalization is an error."""
    assert course.offers() == 200
    assert course.finalizes() == 400
    course.stands("OFFERED")


def test_cn_c_03_04(course: Course) -> None:
    """Offer received, consumer accepted; a finalization is an error."""
    assert course.offers() == 200
    course.cut_accepts()
    assert course.finalizes() == 400
    course.stands("ACCEPTED")


def test_cn_c_03_05(course: Course) -> None:
    """Offer received, consumer accepted; a second offer is an error."""
    assert course.offers() == 200
    course.cut_accepts()
    assert course.offers() == 400
    course.stands("ACCEPTED")


def test_cn_c_03_06(course: Course) -> None:
    """Provider agreement; the consumer's verification is never acknowledged, so a finalization is an error."""
    assert course.agrees() == 200
    course.kit.acknowledges = lambda path: not path.endswith("/verification")
    with pytest.raises((GatewayUnreachableError, CounterpartyRefusedError)):
        course.cut.negotiator.verify(course.row)
    assert course.finalizes() == 400
    course.stands("AGREED")
