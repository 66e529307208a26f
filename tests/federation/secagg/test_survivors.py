"""When shares are released: each rule refuses what it is there for, and permits the honest round beside it."""

from __future__ import annotations

import secrets

import pytest

from federation.errors import VerificationError
from federation.secagg import (
    Announcements,
    Layout,
    MaskingError,
    NodeMasks,
    Scope,
    ShareError,
    SurvivorsError,
    WithdrawnError,
    check_acknowledgements,
    check_entities,
    check_withdrawals,
    choose_encoding,
    residual_masks,
)
from federation.statements import Acknowledgement, Envelope, KeyAnnouncement, SurvivorSet, Withdrawal
from tests.federation.secagg.masked_cohort import (
    CONTENT,
    LATER,
    NOW,
    OUTPUT,
    PLAN,
    ROSTER,
    SENT,
    MaskedCohort,
    reply_of,
)

LAYOUT = Layout.derive(SENT, OUTPUT)
OTHER = "sha256:" + "9" * 64


def masked(cohort: MaskedCohort, names: list[str]) -> tuple[list[Envelope], Envelope]:
    """The masked inputs of some nodes, and the set of them as survivors."""
    context = cohort.context()
    encoding = choose_encoding([(10, 100)] * cohort.n)
    inputs = [cohort.mask(name, reply_of(1, LAYOUT, encoding, cohort.n, 50), context) for name in names]
    return inputs, cohort.survivor_set(names, context)


def test_a_node_releases_the_share_of_a_seed_or_of_a_key_and_once() -> None:
    cohort = MaskedCohort(4)
    names = ["n00", "n01", "n02"]
    inputs, survivors = masked(cohort, names)
    context = cohort.context()
    acknowledgements = [cohort.acknowledge(name, survivors, inputs, context) for name in names]
    released = cohort.release("n00", survivors, acknowledgements, context)
    assert set(released.seeds) == set(names)
    assert set(released.keys) == {"n03"}
    with pytest.raises(MaskingError, match="no shares to release"):
        cohort.release("n00", survivors, acknowledgements, context)
    with pytest.raises(MaskingError, match="no shares to release"):
        cohort.nodes["n00"].release(1, 1, frozenset(cohort.scope.participants))


def test_a_node_masks_once_a_round_and_rounds_go_forward() -> None:
    cohort = MaskedCohort(3)
    node = cohort.nodes["n00"]
    node.masks(2, 1, "train", CONTENT)
    for number in (2, 1):
        with pytest.raises(MaskingError, match="used before"):
            node.masks(number, 1, "train", CONTENT)
    for number, attempt in ((4, 1), (3, 2), (0, 1)):
        with pytest.raises(MaskingError, match="no keys were announced"):
            node.masks(number, attempt, "train", CONTENT)


def test_what_did_not_mask_releases_nothing() -> None:
    cohort = MaskedCohort(3)
    with pytest.raises(MaskingError, match="no shares to release"):
        cohort.nodes["n00"].release(1, 1, frozenset(cohort.scope.participants))


def test_fewer_survivors_than_it_takes_open_nothing() -> None:
    cohort = MaskedCohort(4)
    inputs, survivors = masked(cohort, ["n00", "n01"])
    with pytest.raises(SurvivorsError, match="2 of 4"):
        cohort.acknowledge("n00", survivors, inputs, cohort.context())
    with pytest.raises(MaskingError, match="2 of 4"):
        cohort.nodes["n00"].release(1, 1, frozenset({"n00", "n01"}))


def test_a_survivor_without_a_masked_input_is_refused() -> None:
    cohort = MaskedCohort(4)
    inputs, survivors = masked(cohort, ["n00", "n01", "n02"])
    for left in (inputs[:-1], [*inputs, inputs[0]]):
        with pytest.raises(MaskingError):
            cohort.acknowledge("n00", survivors, left, cohort.context())
    with pytest.raises(MaskingError, match="another cohort, round or content"):
        cohort.acknowledge("n00", survivors, inputs, cohort.context(content=OTHER))


def test_it_takes_t_acknowledgements_of_this_very_set() -> None:
    cohort = MaskedCohort(4)
    names = ["n00", "n01", "n02", "n03"]
    inputs, survivors = masked(cohort, names)
    context = cohort.context()
    fewer = cohort.survivor_set(names[:3], context)
    good = [cohort.acknowledge(name, survivors, inputs, context) for name in names]
    check_acknowledgements(survivors, good[:3], cohort.scope, cohort.public, NOW)
    other = cohort.acknowledge("n00", fewer, inputs[:3], context)
    for bad in (good[:2], [*good[:2], good[0]], [*good[1:3], other]):
        with pytest.raises(MaskingError):
            check_acknowledgements(survivors, bad, cohort.scope, cohort.public, NOW)
    forged = Acknowledgement.read(good[0]).model_copy(update={"node": "n03"}).seal(cohort.keys["n00"])
    with pytest.raises(VerificationError):
        check_acknowledgements(survivors, [*good[:2], forged], cohort.scope, cohort.public, NOW)


def test_substituted_keys_are_refused() -> None:
    cohort = MaskedCohort(3)
    one = KeyAnnouncement.read(cohort.announced[2])
    mallory = NodeMasks(cohort.scope, "n02", secrets.randbelow).announce(NOW, LATER)
    for bad in (
        mallory.seal(cohort.coordinator),
        one.model_copy(update={"participants": ("n01", "n02", "n03")}).seal(cohort.keys["n02"]),
        one.model_copy(update={"first": 2}).seal(cohort.keys["n02"]),
        one.model_copy(update={"rounds": KeyAnnouncement.read(cohort.announced[1]).rounds}).seal(cohort.keys["n02"]),
        cohort.announced[1],
    ):
        with pytest.raises(VerificationError):
            Announcements.open([*cohort.announced[:2], bad], cohort.scope, cohort.public, NOW)
    with pytest.raises(MaskingError, match="no announcement"):
        Announcements.open(cohort.announced[:2], cohort.scope, cohort.public, NOW)


def test_shares_are_made_for_one_cohort_only_and_open_nowhere_else() -> None:
    cohort = MaskedCohort(3)
    scope = Scope(PLAN, ROSTER, cohort.scope.participants, 1, 1, 2)
    nodes = {name: NodeMasks(scope, name, secrets.randbelow) for name in scope.participants}
    envelopes = [node.announce(NOW, LATER).seal(cohort.keys[name]) for name, node in nodes.items()]
    announced = Announcements.open(envelopes, scope, cohort.public, NOW)
    boxes = {name: node.share(announced) for name, node in nodes.items()}
    with pytest.raises(MaskingError, match="before"):
        nodes["n00"].share(announced)
    with pytest.raises(ShareError):  # what was sealed to another
        nodes["n00"].receive({"n01": boxes["n01"]["n02"], "n02": boxes["n02"]["n00"]})
    with pytest.raises(MaskingError, match="all other"):
        nodes["n00"].receive({"n01": boxes["n01"]["n00"]})
    nodes["n00"].receive({"n01": boxes["n01"]["n00"], "n02": boxes["n02"]["n00"]})
    with pytest.raises(MaskingError, match="out of turn"):
        nodes["n00"].receive({"n01": boxes["n01"]["n00"], "n02": boxes["n02"]["n00"]})


def test_a_liar_among_the_shares_is_passed_over_where_others_suffice() -> None:
    cohort = MaskedCohort(5)
    names = list(cohort.scope.participants)
    inputs, survivors = masked(cohort, names)
    context = cohort.context()
    acknowledgements = [cohort.acknowledge(name, survivors, inputs, context) for name in names]
    released = {name: cohort.release(name, survivors, acknowledgements, context) for name in names}
    honest = residual_masks(cohort.announcements, context, frozenset(names), released)
    lie = released["n00"].model_copy(update={"seeds": released["n01"].seeds})
    assert residual_masks(cohort.announcements, context, frozenset(names), {**released, "n00": lie}) == honest
    four = {name: one for name, one in {**released, "n00": lie}.items() if name != "n04"}
    with pytest.raises(ShareError, match="do not fit"):
        residual_masks(cohort.announcements, context, frozenset(names), four)


def test_entities_count_once_and_only_where_accepted_and_outside() -> None:
    members = {"a": "A", "b": "B", "c": "C", "c2": "C"}
    check_entities(members, {"A", "B", "C"}, set(), 0)
    for accepted, outside, least in (({"A", "B"}, set(), 0), ({"A", "B", "C"}, {"A"}, 0), ({"A", "B", "C"}, set(), 4)):
        with pytest.raises(SurvivorsError, match="accepted companies"):
            check_entities(members, accepted, outside, least)


def test_a_withdrawal_counts_for_its_own_attempt_and_its_own_author() -> None:
    cohort = MaskedCohort(3)
    withdrawal = Withdrawal(issued=NOW, expires=LATER, plan=PLAN, node="n01", round=1, attempt=1)
    context = cohort.context()

    def check(one: Envelope) -> None:
        check_withdrawals([one], context, cohort.scope, cohort.public, NOW)

    with pytest.raises(WithdrawnError):
        check(withdrawal.seal(cohort.keys["n01"]))
    check(withdrawal.model_copy(update={"round": 2}).seal(cohort.keys["n01"]))
    check(withdrawal.model_copy(update={"node": "n77"}).seal(cohort.keys["n01"]))
    with pytest.raises(VerificationError):
        check(withdrawal.seal(cohort.keys["n02"]))


def test_survivors_of_another_cohort_are_refused() -> None:
    cohort, other = MaskedCohort(3), MaskedCohort(3)
    names = list(cohort.scope.participants)
    inputs, _ = masked(cohort, names)
    foreign = other.survivor_set(names, other.context())
    with pytest.raises(MaskingError, match="another cohort or round"):
        cohort.acknowledge("n00", foreign, inputs, cohort.context())
    assert SurvivorSet.read(foreign).cohort != cohort.context().cohort
