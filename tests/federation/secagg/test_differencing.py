"""R4 and R5: which sums are opened beside which."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from federation.secagg import DifferenceError, Opened, check_difference
from tests.federation.secagg.masked_cohort import CONTENT, PLAN

OTHER = "sha256:" + "9" * 64


def opened(
    names: str, plan: str = PLAN, content: str = CONTENT, stage: str = "train", *, noised: bool = False, new: str = ""
) -> Opened:
    members = {name: name.upper() for name in names}
    data = {name: f"passes {1 + (name in new)}" for name in names}
    return Opened(plan, stage, content, members, data, noised)


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        (opened("abcd"), False),
        (opened("abc"), True),  # the same content, one company fewer
        (opened("abc", content=OTHER), False),  # the next round of the plan, after a dropout
        (opened("abc", content=""), False),  # its keys
        (opened("abc", stage="evaluate"), False),
        (opened("abcde", content=OTHER), True),  # who was not in it is back
        (opened("abcd", plan=OTHER), False),
        (opened("abcd", plan=OTHER, content=""), False),
        (opened("abc", plan=OTHER, content=OTHER), True),
        (opened("abcde", plan=OTHER), True),
        (opened("abce", plan=OTHER), True),
        (opened("abcdefg", plan=OTHER), True),  # however many it differs by
        (opened("abef", plan=OTHER), True),
        (opened("abcd", plan=OTHER, new="d"), True),  # the same companies, one with other data
        (opened("abcd", plan=OTHER, noised=True), False),
        (opened("abcde", plan=OTHER, noised=True), True),  # noise: by one or two, as between any two
        (opened("abcdefg", plan=OTHER, noised=True), False),
        (opened("abcd", plan=OTHER, noised=True, new="d"), False),
    ],
)
def test_one_set_of_companies_and_data_for_one_version(wanted: Opened, refused: bool) -> None:
    if refused:
        with pytest.raises(DifferenceError):
            check_difference(wanted, [opened("abcd")])
    else:
        check_difference(wanted, [opened("abcd")])


def test_a_set_of_which_no_data_is_known_is_compared_by_companies() -> None:
    """It was put on record by a release of before."""
    check_difference(opened("abcd", plan=OTHER, new="d"), [replace(opened("abcd"), data={})])
    with pytest.raises(DifferenceError):
        check_difference(opened("abcdefg", plan=OTHER), [replace(opened("abcd"), data={})])


def test_readings_of_a_live_source_are_compared_across_plans() -> None:
    earlier = replace(opened("abcd"), readings=({"": "3", "x": "1", "y": "1"},))
    for same in ({"": "3", "x": "1", "y": "1"}, {"": "3", "y": "1"}, {"": "3", "z": "7"}):
        check_difference(replace(opened("abcd", plan=OTHER), readings=(same,)), [earlier])
    check_difference(opened("abcd", plan=OTHER), [earlier])  # the whole cohort, before anything was read
    changed = ({"": "3", "x": "2"},)
    check_difference(replace(opened("abcd", content=OTHER), readings=changed), [earlier])
    check_difference(replace(opened("abcd", plan=OTHER, noised=True), readings=changed), [earlier])
    for one in (changed, ({"": "4", "z": "7"},)):
        with pytest.raises(DifferenceError, match="live source"):
            check_difference(replace(opened("abcd", plan=OTHER), readings=one), [earlier])


def test_two_nodes_of_one_company_differ_as_one() -> None:
    earlier = Opened(PLAN, "train", CONTENT, {"a": "A", "b": "B", "c": "C", "d1": "D", "d2": "D", "d3": "D"})
    wanted = Opened(OTHER, "train", OTHER, {"a": "A", "b": "B", "c": "C"}, noised=True)
    with pytest.raises(DifferenceError, match="without D"):
        check_difference(wanted, [earlier])


@pytest.mark.parametrize("n", [4, 5])
def test_whatever_plans_are_asked_for_in_any_order_no_sums_tell_one_company(n: int) -> None:
    """Each node judges by its own record, a set opens where every one of it agrees: no combination of sums is one company's."""
    names = "abcdef"[:n]
    sets = [frozenset(one) for size in range(3, n + 1) for one in itertools.combinations(names, size)]
    for order in itertools.permutations(sets, 3):
        records: dict[str, list[Opened]] = {name: [] for name in names}
        rows = []
        for number, members in enumerate(order):
            wanted = opened("".join(sorted(members)), plan=f"plan {number}")
            try:
                for name in members:
                    check_difference(wanted, records[name])
            except DifferenceError:
                continue
            rows.append([float(name in members) for name in names])
            for name in members:
                records[name].append(wanted)
        matrix = np.array(rows)
        rank = np.linalg.matrix_rank(matrix)
        for at in range(n):
            alone = np.eye(n)[at]
            assert np.linalg.matrix_rank(np.vstack([matrix, alone])) > rank, (order, names[at])
