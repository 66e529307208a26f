"""The size of an intersection: right, blind on both sides, kept to the protocol, and no oracle for single keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from private_set_intersection import python as psi
from scipy import stats

from federation.bilateral import (
    BilateralPlanError,
    BilateralVoidError,
    Box,
    IntersectionPlan,
    Told,
    check_intersection,
    check_keys,
    intersection_micro_rho,
    seal,
    size_variance,
    told,
)
from federation.jobs import intersection
from federation.jobs._parts import PartsError
from federation.jobs.intersection import Intersection, normal_keys

PLAN = "sha256:" + "1" * 64


def plan_of(least: int = 10, step: int = 5, variance: str = "0", unit_keys: int = 1) -> IntersectionPlan:
    box = Box.fresh().public
    return IntersectionPlan(column="k", least=least, step=step, unit_keys=unit_keys, variance=variance, box=box)


class Node:
    """A node with some keys, up to what it would tell."""

    def __init__(self, folder: Path, keys: list[str]) -> None:
        self.session = Intersection()
        folder.mkdir(exist_ok=True)
        rows = ", ".join(f"('{key}')" for key in keys)
        duckdb.execute(f"COPY (SELECT * FROM (VALUES {rows}) t(k)) TO '{folder / 'data.parquet'}'")
        self.folder = folder

    def blinded(self) -> list[bytes]:
        return self.session.blind({"data": str(self.folder), "column": "k"}, [])[1]

    def size(self, answer: list[bytes]) -> tuple[int, int, int]:
        said, parts = self.session.size({}, answer)
        assert parts == []
        return said["size"], said["mine"], said["theirs"]  # type: ignore[return-value]


def answer(blinded: list[bytes], keys: list[str]) -> list[bytes]:
    return Intersection().answer({}, [*blinded, json.dumps(keys).encode()])[1]


OURS = [f"S-{number}" for number in range(40)]


def test_the_size_is_right_however_keys_are_written(tmp_path: Path) -> None:
    node = Node(tmp_path / "n", [*OURS, "s-1 ", " S - 2"])
    asked = ["s-35", "S-36", "s -37", "T-1", "T-2", "T-1"]
    assert node.size(answer(node.blinded(), asked)) == (3, 40, 5)
    assert normal_keys(["a b", "A B ", None, " "]) == ["AB"]


def test_blinded_keys_say_how_many_and_not_even_that_exactly(tmp_path: Path) -> None:
    """Lists are padded, in two orders, under two secrets: no element of one is in the other, and none is twice the same."""
    first, second = Node(tmp_path / "n", OURS).blinded()
    elements = []
    for part in (first, second):
        request = psi.Request()
        request.ParseFromString(part)
        assert len(request.encrypted_elements) == 256 and not request.reveal_intersection
        elements.append(set(request.encrypted_elements))
    assert len(elements[0]) == len(elements[1]) == 256 and not elements[0] & elements[1]


def raised(part: bytes, powers: list[bytes]) -> bytes:
    """A fraction of a list, each element raised to every one of several secrets, as a cheating asker does."""
    asked, response = psi.Request(), psi.Response()
    asked.ParseFromString(part)
    few = list(asked.encrypted_elements)[: len(asked.encrypted_elements) // len(powers)]
    for secret in powers:
        request = psi.Request()
        request.reveal_intersection = False
        request.encrypted_elements.extend(few)
        answered = psi.server.CreateFromKey(secret, False).ProcessRequest(request)
        response.encrypted_elements.extend(list(answered.encrypted_elements))
    return bytes(response.SerializeToString())


def test_an_asker_that_leaves_the_protocol_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: make one key count for many, past what the noise hides, by raising a few elements to many powers.

    The two lists then disagree, for nobody can pick the same keys in both. The weakened copy takes one list for the other.
    """
    keys = [f"K{number}" for number in range(256)]
    servers = [psi.server.CreateWithNewKey(False) for _ in range(4)]
    powers = [server.GetPrivateKeyBytes() for server in servers]
    setup = psi.ServerSetup()
    for server in servers:
        one = server.CreateSetupMessage(1e-9, 300, keys, psi.DataStructure.RAW)
        setup.raw.encrypted_elements.extend(one.raw.encrypted_elements)

    def cheated(blinded: list[bytes]) -> list[bytes]:
        return [setup.SerializeToString(), *(raised(part, powers) for part in blinded)]

    node = Node(tmp_path / "n", keys)
    blinded = node.blinded()
    attack = cheated(blinded)
    with pytest.raises(PartsError) as caught:
        node.size(attack)
    assert caught.value.code == "psi-cheating"
    # one list answered honestly, the other not: caught as well
    node = Node(tmp_path / "n", keys)
    blinded = node.blinded()
    honest = answer(blinded, keys)
    with pytest.raises(PartsError):
        node.size([*honest[:2], raised(blinded[1], powers)])
    # weakened copy: each of 64 keys counts four times
    node = Node(tmp_path / "n", keys)
    real, seen = intersection._unblinded, list[set[bytes]]()

    def once(elements: Any, secret: bytes) -> set[bytes]:
        seen.append(real(elements, secret))
        return seen[0]

    monkeypatch.setattr(intersection, "_unblinded", once)
    assert node.size(cheated(node.blinded()))[0] == 4 * 64


def test_an_answer_counts_once(tmp_path: Path) -> None:
    node = Node(tmp_path / "n", OURS)
    given = answer(node.blinded(), OURS)
    node.size(given)
    with pytest.raises(PartsError) as caught:
        node.size(given)
    assert caught.value.code == "psi-order"


def test_what_is_no_answer_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path / "n", OURS)
    blinded = node.blinded()
    setup, first, second = answer(blinded, OURS)
    short = psi.Response()
    short.ParseFromString(first)
    del short.encrypted_elements[0]
    filtered = psi.server.CreateWithNewKey(False).CreateSetupMessage(1e-9, 100, OURS, psi.DataStructure.BLOOM_FILTER)
    for wrong in ([setup, short.SerializeToString(), second], [filtered.SerializeToString(), first, second]):
        node = Node(tmp_path / "n", OURS)
        node.blinded()
        with pytest.raises(PartsError):
            node.size(wrong)
    with pytest.raises(PartsError):
        Intersection().size({}, [setup, first, second])


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "private_set_intersection", None)
    with pytest.raises(PartsError) as caught:
        Intersection().answer({}, [b"x", b"y", b"[]"])
    assert caught.value.code == "psi-missing"


@pytest.mark.usefixtures("seeded_noise")
def test_enumerating_single_keys_tells_nothing(tmp_path: Path) -> None:
    """Attack: is S-1 among the node's keys? Asked alone, it is refused; among keys that nobody has, the answer is below the
    least; among keys known to be shared, the answer is noise. The weakened copy tells plain sizes, and answers each time."""
    hidden, decoys = "S-1", [f"junk-{number}" for number in range(9)]
    node = Node(tmp_path / "n", OURS)
    size, mine, theirs = node.size(answer(node.blinded(), [hidden]))
    with pytest.raises(BilateralPlanError) as caught:
        check_keys(plan_of(), mine, theirs)
    assert caught.value.code == "too-few-keys"
    node = Node(tmp_path / "n", OURS)
    size, mine, theirs = node.size(answer(node.blinded(), [hidden, *decoys]))
    check_keys(plan_of(), mine, theirs)
    assert size == 1 and told(plan_of(), size, mine, theirs) == Told(None) == told(plan_of(), 0, mine, theirs)
    # 49 known ones and the target: with and without it, what is told has nearly one distribution
    plan = plan_of(variance=size_variance(1, 5000))
    assert intersection_micro_rho(plan) == 5000
    with_it = [told(plan, 50, 400, 60).size or 0 for _ in range(400)]
    without = [told(plan, 49, 400, 60).size or 0 for _ in range(400)]
    assert stats.ks_2samp(with_it, without).pvalue > 1e-6
    # weakened copy: no floor, no step, no noise
    assert 50 != 49 and told(plan_of(), 50, 400, 60) != told(plan_of(), 47, 400, 60)


def test_a_size_is_rounded_floored_and_within_what_is_possible() -> None:
    assert [told(plan_of(), size, 500, 400).size for size in (9, 10, 12, 13, 397, 400)] == [None, 10, 10, 15, 395, 400]
    plan = plan_of(variance="10000")
    sizes = [told(plan, 200, 500, 210).size for _ in range(300)]
    assert all(size is None or (size <= 210 and size % 5 == 0) for size in sizes) and len(set(sizes)) > 5


def test_rules_weaker_than_the_least_are_refused() -> None:
    for least, step in ((9, 5), (10, 1)):
        with pytest.raises(BilateralPlanError):
            check_intersection(plan_of(least=least, step=step))
    with pytest.raises(BilateralPlanError):
        check_intersection(plan_of(variance=str(2**61)))
    assert intersection_micro_rho(plan_of(variance="100", unit_keys=3)) == 45_000


def test_a_size_opens_to_its_asker_under_its_plan_alone() -> None:
    box = Box.fresh()
    sealed = seal(box.public, PLAN, Told(25))
    assert box.open(PLAN, sealed) == Told(25)
    assert len(sealed) == len(seal(box.public, PLAN, Told(None)))
    for opener, plan, data in (
        (Box.fresh(), PLAN, sealed),
        (box, "sha256:" + "2" * 64, sealed),
        (box, PLAN, sealed[:-1] + b"x"),
    ):
        with pytest.raises(BilateralVoidError):
            opener.open(plan, data)
