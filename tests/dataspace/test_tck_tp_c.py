"""TP_C: the connector under test is the consumer. The kit's scenarios, reimplemented under their ids; its code is not run."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from federation.dataspace import COMPUTE, TransferRow
from federation.statements import Agreement
from tests.dataspace.test_tck_tp import KINDS, LEADS
from tests.dataspace.world import CONSUMER, PROVIDER, Kit, World, check_schema, in_force, said


class Course:
    """One transfer between us (consumer) and the kit (provider)."""

    def __init__(self, world: World) -> None:
        agreement = in_force(world)
        self.kit: Kit = world.kit(PROVIDER, CONSUMER)
        self.cut = world[CONSUMER]
        self.theirs = f"urn:uuid:{uuid.uuid4()}"
        self.kit.answers = self._acknowledged
        held = self.cut.party.holdings.get(agreement.digest)
        assert held is not None
        self.pid = self.cut.grantor.request(held).pid
        asked = self.kit.last
        assert (asked["@type"], asked["format"]) == ("TransferRequestMessage", COMPUTE)
        assert asked["agreementId"] == Agreement.read(agreement).id
        self.stands("REQUESTED")

    def _acknowledged(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if path != "/transfers/request":
            return {}
        pids = {"consumerPid": document["consumerPid"], "providerPid": self.theirs}
        told = said("TransferProcess", **pids, state="REQUESTED")
        check_schema(told)
        return told

    @property
    def row(self) -> TransferRow:
        return self.cut.transfer(self.pid)

    @property
    def pids(self) -> dict[str, str]:
        return {"consumerPid": self.pid, "providerPid": self.theirs}

    def stands(self, state: str) -> None:
        status, told = self.kit.get(f"/transfers/{self.pid}")
        assert (status, told) == (200, said("TransferProcess", **self.pids, state=state))

    def says(self, what: str) -> int:
        status, told = self.kit.say(f"/transfers/{self.pid}/{what}", said(KINDS[what], **self.pids))
        assert told["@type"] == ("TransferProcess" if status < 300 else "TransferError")
        return status

    def leads(self, target: str) -> None:
        assert self.says(LEADS[target]) == 200
        self.stands(target)

    def cut_leads(self, target: str) -> None:
        assert self.cut.grantor.lead(self.row, target)[1]
        assert self.kit.last["@type"] == KINDS[LEADS[target]]
        self.stands(target)


@pytest.fixture
def course(world: World) -> Course:
    return Course(world)


def test_tp_c_01_01(course: Course) -> None:
    """Provider started, provider terminated."""
    course.leads("STARTED")
    course.leads("TERMINATED")


def test_tp_c_01_02(course: Course) -> None:
    """Provider started, provider completed."""
    course.leads("STARTED")
    course.leads("COMPLETED")


def test_tp_c_01_03(course: Course) -> None:
    """Provider started, provider suspended, provider terminated."""
    course.leads("STARTED")
    course.leads("SUSPENDED")
    course.leads("TERMINATED")


def test_tp_c_01_04(course: Course) -> None:
    """Provider started, provider suspended, provider started, provider completed."""
    course.leads("STARTED")
    course.leads("SUSPENDED")
    course.leads("STARTED")
    course.leads("COMPLETED")


def test_tp_c_01_05(course: Course) -> None:
    """Provider terminated."""
    course.leads("TERMINATED")


def test_tp_c_02_01(course: Course) -> None:
    """Provider started, consumer terminated."""
    course.leads("STARTED")
    course.cut_leads("TERMINATED")


def test_tp_c_02_02(course: Course) -> None:
    """Provider started, consumer completed."""
    course.leads("STARTED")
    course.cut_leads("COMPLETED")


def test_tp_c_02_03(course: Course) -> None:
    """Provider started, consumer suspended, consumer terminated."""
    course.leads("STARTED")
    course.cut_leads("SUSPENDED")
    course.cut_leads("TERMINATED")


def test_tp_c_02_04(course: Course) -> None:
    """Provider started, consumer suspended, consumer started, consumer completed."""
    course.leads("STARTED")
    course.cut_leads("SUSPENDED")
    course.cut_leads("STARTED")
    course.cut_leads("COMPLETED")


def test_tp_c_02_05(course: Course) -> None:
    """Consumer terminated."""
    course.cut_leads("TERMINATED")


def test_tp_c_03_01(course: Course) -> None:
    """Requested; the provider's completion is an error."""
    assert course.says("completion") == 400
    course.stands("REQUESTED")


def test_tp_c_03_02(course: Course) -> None:
    """Requested; the provider's suspension is an error."""
    assert course.says("suspension") == 400
    course.stands("REQUESTED")


def test_tp_c_03_03(course: Course) -> None:
    """Provider started, provider suspended; a completion is an error."""
    course.leads("STARTED")
    course.leads("SUSPENDED")
    assert course.says("completion") == 400
    course.stands("SUSPENDED")


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("start", id="tp_c_03_04"),
        pytest.param("suspension", id="tp_c_03_05"),
        pytest.param("completion", id="tp_c_03_06"),
    ],
)
def test_after_the_end(course: Course, what: str) -> None:
    """Provider started, provider terminated; anything further is an error."""
    course.leads("STARTED")
    course.leads("TERMINATED")
    assert course.says(what) == 400
    course.stands("TERMINATED")
