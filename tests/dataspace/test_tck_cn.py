"""CN: the connector under test is the provider. The kit's scenarios, reimplemented under their ids; its code is not run."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from federation.dataspace import NegotiationRow
from federation.dataspace.terms import STATEMENT
from tests.dataspace.world import CONSUMER, OFFER, PROVIDER, USE, Kit, World, countersigned, said, terms


class Course:
    """One negotiation between the kit (consumer) and us (provider)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kit: Kit = world.kit(CONSUMER, PROVIDER)
        self.cut = world[PROVIDER]
        self.pid = f"urn:uuid:{uuid.uuid4()}"
        status, told = self.kit.say(
            "/negotiations/request",
            said(
                "ContractRequestMessage",
                consumerPid=self.pid,
                offer={**OFFER, "permission": USE},
                callbackAddress=self.kit.courier.base(CONSUMER),
            ),
        )
        assert (status, told["@type"], told["state"]) == (201, "ContractNegotiation", "REQUESTED")
        self.theirs: str = told["providerPid"]

    @property
    def row(self) -> NegotiationRow:
        return self.cut.negotiation(self.theirs)

    @property
    def pids(self) -> dict[str, str]:
        return {"consumerPid": self.pid, "providerPid": self.theirs}

    def stands(self, state: str) -> None:
        status, told = self.kit.get(f"/negotiations/{self.theirs}")
        assert (status, told) == (200, said("ContractNegotiation", **self.pids, state=state))

    # -- what the connector under test decides -----------------------------------------------------------------------

    def cut_offers(self) -> None:
        self.cut.negotiator.counter(self.row, terms(count=1))
        assert self.kit.last["@type"] == "ContractOfferMessage" and self.kit.last["consumerPid"] == self.pid
        self.stands("OFFERED")

    def cut_agrees(self) -> None:
        self.cut.negotiator.agree(self.row)
        assert self.kit.last["@type"] == "ContractAgreementMessage"
        self.stands("AGREED")

    def cut_finalizes(self) -> None:
        self.cut.negotiator.finalize(self.row)
        assert (self.kit.last["@type"], self.kit.last["eventType"]) == ("ContractNegotiationEventMessage", "FINALIZED")
        self.stands("FINALIZED")

    def cut_terminates(self) -> None:
        assert self.cut.negotiator.terminate(self.row, "not like this")[1]
        assert self.kit.last["@type"] == "ContractNegotiationTerminationMessage"
        self.stands("TERMINATED")

    # -- what the kit says --------------------------------------------------------------------------------------------

    def say(self, path: str, kind: str, **more: Any) -> int:
        status, told = self.kit.say(f"/negotiations/{self.theirs}/{path}", said(kind, **self.pids, **more))
        assert (status < 300) == (told["@type"] == "ContractNegotiation")
        return status

    def accepts(self) -> int:
        return self.say("events", "ContractNegotiationEventMessage", eventType="ACCEPTED")

    def verifies(self) -> int:
        agreed = [one.document for one in self.kit.heard if one.document["@type"] == "ContractAgreementMessage"]
        beside = {STATEMENT: countersigned(self.world[CONSUMER], agreed[-1])} if agreed else {}
        return self.say("agreement/verification", "ContractAgreementVerificationMessage", **beside)

    def counters(self) -> int:
        offer = {**OFFER, "@id": f"urn:uuid:{uuid.uuid4()}", "permission": USE}
        return self.say("request", "ContractRequestMessage", offer=offer)

    def terminates(self) -> int:
        return self.say("termination", "ContractNegotiationTerminationMessage", code="1", reason=["no"])


@pytest.fixture
def course(world: World) -> Course:
    return Course(world)


def test_cn_01_01(course: Course) -> None:
    """Offer received, consumer terminated."""
    course.cut_offers()
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_01_02(course: Course) -> None:
    """Offer received, consumer counter-offer, provider terminated."""
    course.cut_offers()
    assert course.counters() == 200
    course.stands("REQUESTED")
    course.cut_terminates()


def test_cn_01_03(course: Course) -> None:
    """Offer received, consumer accepted, provider agreement, consumer verified, provider finalized."""
    course.cut_offers()
    assert course.accepts() == 200
    course.stands("ACCEPTED")
    course.cut_agrees()
    assert course.verifies() == 200
    course.stands("VERIFIED")
    course.cut_finalizes()


def test_cn_01_04(course: Course) -> None:
    """Provider agreement, consumer verified, provider finalized."""
    course.cut_agrees()
    assert course.verifies() == 200
    course.cut_finalizes()


def test_cn_02_01(course: Course) -> None:
    """Provider terminated."""
    course.cut_terminates()


def test_cn_02_02(course: Course) -> None:
    """Consumer terminated."""
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_02_03(course: Course) -> None:
    """Provider agreement, consumer terminated."""
    course.cut_agrees()
    assert course.terminates() == 200
    course.stands("TERMINATED")
    assert course.cut.party.holdings.state(course.row.agreement) == "revoked"


def test_cn_02_04(course: Course) -> None:
    """Offer received, consumer terminated."""
    course.cut_offers()
    assert course.terminates() == 200
    course.stands("TERMINATED")


def test_cn_02_05(course: Course) -> None:
    """Offer received, provider terminated."""
    course.cut_offers()
    course.cut_terminates()


def test_cn_02_06(course: Course) -> None:
    """Offer received, consumer accepted, provider terminated."""
    course.cut_offers()
    assert course.accepts() == 200
    course.cut_terminates()


def test_cn_02_07(course: Course) -> None:
    """Provider agreement, consumer verified, provider terminated."""
    course.cut_agrees()
    assert course.verifies() == 200
    course.cut_terminates()
    assert course.cut.party.holdings.state(course.row.agreement) == "revoked"


def test_cn_03_01(course: Course) -> None:
    """Finalized; then the consumer's termination is an error."""
    course.cut_agrees()
    assert course.verifies() == 200
    course.cut_finalizes()
    assert course.terminates() == 400
    course.stands("FINALIZED")


def test_cn_03_02(course: Course) -> None:
    """Offer received; a verification is an error."""
    course.cut_offers()
    assert course.verifies() == 400
    course.stands("OFFERED")


def test_cn_03_03(course: Course) -> None:
    """Offer received, consumer accepted; a verification is an error."""
    course.cut_offers()
    assert course.accepts() == 200
    assert course.verifies() == 400
    course.stands("ACCEPTED")


def test_cn_03_04(course: Course) -> None:
    """Offer received, consumer counter-offer; a second one is an error."""
    course.cut_offers()
    assert course.counters() == 200
    assert course.counters() == 400
    course.stands("REQUESTED")
