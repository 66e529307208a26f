"""TP: the connector under test is the provider. The kit's scenarios, reimplemented under their ids; its code is not run.

Beside the states, each says what the grant comes to: whether the agreement is usable at the provider.
"""

from __future__ import annotations

import uuid

import pytest

from federation.dataspace import COMPUTE, TransferRow
from federation.statements import Agreement
from tests.dataspace.world import CONSUMER, PROVIDER, Kit, World, in_force, said

KINDS = {
    "start": "TransferStartMessage",
    "suspension": "TransferSuspensionMessage",
    "completion": "TransferCompletionMessage",
    "termination": "TransferTerminationMessage",
}
LEADS = {"STARTED": "start", "SUSPENDED": "suspension", "COMPLETED": "completion", "TERMINATED": "termination"}


class Course:
    """One transfer between the kit (consumer) and us (provider)."""

    def __init__(self, world: World) -> None:
        self.agreement = in_force(world)
        self.kit: Kit = world.kit(CONSUMER, PROVIDER)
        self.cut = world[PROVIDER]
        self.pid = f"urn:uuid:{uuid.uuid4()}"
        status, told = self.kit.say(
            "/transfers/request",
            said(
                "TransferRequestMessage",
                consumerPid=self.pid,
                agreementId=Agreement.read(self.agreement).id,
                format=COMPUTE,
                callbackAddress=self.kit.courier.base(CONSUMER),
            ),
        )
        assert (status, told["@type"]) == (201, "TransferProcess")
        self.theirs: str = told["providerPid"]
        self.stands("REQUESTED")

    @property
    def row(self) -> TransferRow:
        return self.cut.transfer(self.theirs)

    @property
    def pids(self) -> dict[str, str]:
        return {"consumerPid": self.pid, "providerPid": self.theirs}

    def stands(self, state: str) -> None:
        status, told = self.kit.get(f"/transfers/{self.theirs}")
        assert (status, told) == (200, said("TransferProcess", **self.pids, state=state))
        usable = self.cut.party.holdings.state(self.agreement.digest)
        assert usable == ("in-force" if state == "STARTED" else "suspended")

    def cut_leads(self, target: str) -> None:
        assert self.cut.grantor.lead(self.row, target)[1]
        assert self.kit.last["@type"] == KINDS[LEADS[target]]
        self.stands(target)

    def says(self, what: str) -> int:
        status, told = self.kit.say(f"/transfers/{self.theirs}/{what}", said(KINDS[what], **self.pids))
        assert told["@type"] == ("TransferProcess" if status < 300 else "TransferError")
        return status


@pytest.fixture
def course(world: World) -> Course:
    return Course(world)


def test_tp_01_01(course: Course) -> None:
    """Provider started, provider terminated."""
    course.cut_leads("STARTED")
    course.cut_leads("TERMINATED")


def test_tp_01_02(course: Course) -> None:
    """Provider started, provider completed."""
    course.cut_leads("STARTED")
    course.cut_leads("COMPLETED")


def test_tp_01_03(course: Course) -> None:
    """Provider started, provider suspended, provider terminated."""
    course.cut_leads("STARTED")
    course.cut_leads("SUSPENDED")
    course.cut_leads("TERMINATED")


def test_tp_01_04(course: Course) -> None:
    """Provider started, provider suspended, provider started, provider completed."""
    course.cut_leads("STARTED")
    course.cut_leads("SUSPENDED")
    course.cut_leads("STARTED")
    course.cut_leads("COMPLETED")


def test_tp_01_05(course: Course) -> None:
    """Provider terminated."""
    course.cut_leads("TERMINATED")


def test_tp_02_01(course: Course) -> None:
    """Provider started, consumer terminated."""
    course.cut_leads("STARTED")
    assert course.says("termination") == 200
    course.stands("TERMINATED")


def test_tp_02_02(course: Course) -> None:
    """Provider started, consumer completed."""
    course.cut_leads("STARTED")
    assert course.says("completion") == 200
    course.stands("COMPLETED")


def test_tp_02_03(course: Course) -> None:
    """Provider started, consumer suspended, consumer terminated."""
    course.cut_leads("STARTED")
    assert course.says("suspension") == 200
    course.stands("SUSPENDED")
    assert course.says("termination") == 200
    course.stands("TERMINATED")


def test_tp_02_04(course: Course) -> None:
    """Provider started, consumer suspended, consumer started, consumer completed."""
    course.cut_leads("STARTED")
    assert course.says("suspension") == 200
    course.stands("SUSPENDED")
    assert course.says("start") == 200
    course.stands("STARTED")
    assert course.says("completion") == 200
    course.stands("COMPLETED")


def test_tp_02_05(course: Course) -> None:
    """Consumer terminated."""
    assert course.says("termination") == 200
    course.stands("TERMINATED")


def test_tp_03_01(course: Course) -> None:
    """Requested; the consumer's completion is an error."""
    assert course.says("completion") == 400
    course.stands("REQUESTED")


def test_tp_03_02(course: Course) -> None:
    """Requested; the consumer's suspension is an error."""
    assert course.says("suspension") == 400
    course.stands("REQUESTED")


def test_tp_03_03(course: Course) -> None:
    """Provider started, consumer suspended; a completion is an error."""
    course.cut_leads("STARTED")
    assert course.says("suspension") == 200
    assert course.says("completion") == 400
    course.stands("SUSPENDED")


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("start", id="tp_03_04"),
        pytest.param("suspension", id="tp_03_05"),
        pytest.param("completion", id="tp_03_06"),
    ],
)
def test_after_the_end(course: Course, what: str) -> None:
    """Provider started, consumer terminated; anything further is an error."""
    course.cut_leads("STARTED")
    assert course.says("termination") == 200
    assert course.says(what) == 400
    course.stands("TERMINATED")
