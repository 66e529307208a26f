"""Code that waits for its owner's approval: denied before, permitted within what was shown, denied again after."""

from __future__ import annotations

from typing import Any

import pytest

from enterprise_node.approvals import Approvals, NoSuchApprovalError
from enterprise_node.code_review import differences, shown, shown_file, visible
from federation.errors import VerificationError
from federation.statements import JobPlan, MetricSpec, OutputSchema, Receipt
from federation.statements.code import CodeBundle
from federation.wire.messages import unpack


def approvals(world: Any) -> Approvals:
    return Approvals(world.home, world.record.ledger)


async def refused(world: Any, plan: Any) -> str:
    """Open a plan that is refused for want of approval; returns the refusal's reason."""
    opened = await world.open(plan)
    assert (opened.permitted, opened.code) == (False, "approval")
    receipt = Receipt.open(unpack(opened.receipt), [world.keys["mill"].statement.public], world.clock())
    (duty,) = [one for one in receipt.decision.constraints if one.right == "odrl:obtainConsent"]
    assert not duty.satisfied and not duty.left
    return duty.note.rpartition("; ")[2]


async def test_inv1_unapproved_code_is_denied_its_code_is_kept_to_be_read_and_nothing_is_reserved(world: Any) -> None:
    plan = world.plan(agreement := world.agreement(approval=True))
    assert await refused(world, plan) == "not approved yet"
    assert world.calls == 0 and world.record.uses(agreement.digest) == 0
    (waiting,) = approvals(world).known()
    assert (waiting.state, waiting.requester, waiting.app) == ("waiting", "lab", "test/app")
    assert waiting.plan == JobPlan.read(plan) and approvals(world).bundle(waiting).files == world.bundle.files
    assert await refused(world, plan) == "not approved yet"
    assert len(approvals(world).known()) == 1  # asked twice, waiting once


async def test_granted_it_runs_and_the_receipt_says_by_which_approval(world: Any) -> None:
    plan = world.plan(world.agreement(approval=True), leak_bits=10_000)
    await refused(world, plan)
    (waiting,) = approvals(world).known()
    granted = approvals(world).grant(waiting, "read", world.clock())
    assert (await world.open(plan)).permitted
    receipt, _ = await world.invoke(plan)
    (duty,) = [one for one in receipt.decision.constraints if one.right == "odrl:obtainConsent"]
    assert receipt.outcome == "ok" and duty.satisfied
    assert waiting.id in duty.left and f"entry {granted.index}" in duty.left and "10000 bits" in duty.left
    (entry,) = world.entries("approval")
    assert (entry["state"], entry["code"], entry["leak_bits"]) == ("granted", world.bundle.digest, 10_000)
    await world.line.close()


async def test_without_that_check_unapproved_code_would_run(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from enterprise_node import deciding
    from enterprise_node.consent import Consent

    monkeypatch.setattr(deciding, "consent_within", lambda *_: Consent(text="anything"))
    plan = world.plan(world.agreement(approval=True))
    assert (await world.open(plan)).permitted and (await world.invoke(plan))[0].outcome == "ok"
    await world.line.close()


OTHERS = {
    "other outputs": lambda plan: {
        "outputs": OutputSchema(
            train=plan.outputs.train.model_copy(
                update={"metrics": (*plan.outputs.train.metrics, MetricSpec(name="more"))}
            ),
            evaluate=plan.outputs.evaluate,
            maximal_bytes=plan.outputs.maximal_bytes,
        )
    },
    "more bits": lambda plan: {"leak_bits": 10_001},
}


@pytest.mark.parametrize("what", OTHERS)
async def test_inv1_an_approval_covers_what_was_shown_and_no_more(world: Any, what: str) -> None:
    agreement = world.agreement(approval=True)
    plan = world.plan(agreement, leak_bits=10_000)
    await refused(world, plan)
    approvals(world).grant(approvals(world).known()[0], "", world.clock())
    other = world.plan(agreement, **{"leak_bits": 10_000, **OTHERS[what](JobPlan.read(plan))})
    why = await refused(world, other)
    assert ("approved for 10000 bits" in why) == (what == "more bits")
    assert [one.state for one in approvals(world).known()] == ["waiting", "granted"]
    # Refusing the larger one leaves the smaller one granted.
    approvals(world).refuse(approvals(world).known()[0], "", world.clock())
    assert (await world.open(plan)).permitted


async def test_inv1_another_agreement_or_other_code_is_not_approved_with_it(world: Any) -> None:
    plan = world.plan(world.agreement(approval=True))
    await refused(world, plan)
    approvals(world).grant(approvals(world).known()[0], "", world.clock())
    await refused(world, world.plan(world.agreement(approval=True)))
    world.bundle.files["app/client.py"] += b"# changed\n"
    await refused(world, world.plan(world.agreement(approval=True)))


async def test_inv1_what_is_withdrawn_runs_no_further_step(world: Any) -> None:
    plan = world.plan(world.agreement(approval=True))
    await refused(world, plan)
    approvals(world).grant(approvals(world).known()[0], "", world.clock())
    await world.open(plan)
    assert (await world.invoke(plan))[0].outcome == "ok"
    (granted,) = approvals(world).known()
    approvals(world).refuse(granted, "found something", world.clock())
    denied, _ = await world.invoke(plan, 2)
    assert (denied.outcome, denied.code) == ("denied", "approval")
    assert approvals(world).known()[0].state == "withdrawn"
    assert await refused(world, world.plan(world.agreement(approval=True))) == "not approved yet"
    await world.line.close()


async def test_kept_code_that_was_changed_is_not_shown_and_not_approved(world: Any) -> None:
    await refused(world, world.plan(world.agreement(approval=True)))
    (waiting,) = approvals(world).known()
    (path,) = world.home.folder("code").iterdir()
    other = CodeBundle({**world.bundle.files, "app/client.py": b"harmless\n"})
    path.write_bytes(other.to_bytes())
    with pytest.raises(VerificationError):
        approvals(world).grant(waiting, "", world.clock())
    path.unlink()
    with pytest.raises(NoSuchApprovalError):
        approvals(world).grant(waiting, "", world.clock())


async def test_requests_that_pile_up_push_out_the_same_requesters_oldest(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enterprise_node.approvals.PENDING", 4)
    agreement = world.agreement(approval=True)
    for _ in range(4):
        world.bundle.files["app/client.py"] += b"# one more\n"
        await refused(world, world.plan(agreement))
    assert len([one for one in approvals(world).known() if one.state == "waiting"]) == 2


async def test_the_version_before_is_the_last_granted_one_of_the_same_app(world: Any) -> None:
    agreement = world.agreement(approval=True)
    await refused(world, world.plan(agreement))
    first = approvals(world).known()[0]
    assert approvals(world).before(first) is None
    approvals(world).grant(first, "", world.clock())
    world.bundle.files["app/client.py"] = world.bundle.files["app/client.py"].replace(
        b"+ np.float32(1)", b"+ np.float32(2)"
    )
    await refused(world, world.plan(agreement))
    second = approvals(world).known()[0]
    before = approvals(world).before(second)
    assert before is not None and before.code == first.code
    lines = list(differences(approvals(world).bundle(before), approvals(world).bundle(second)))
    assert [line for line in lines if line.startswith(("-  ", "+  "))] == [
        '-    w = msg.content["arrays"].to_numpy_ndarrays()[0] + np.float32(1)',
        '+    w = msg.content["arrays"].to_numpy_ndarrays()[0] + np.float32(2)',
    ]


# -- reading what others wrote ----------------------------------------------------------------------------------------

HOSTILE = {
    "clears the screen": (b"x = 1\x1b[2J\n", "control-characters", "<U+001B>"),
    "goes back over the line": (b"evil()\r#harmless\n", "", ""),
    "right to left": ("x = '\u202e'\n".encode(), "control-characters", "<U+202E>"),
    "nothing to see": ("a\u200bb = 1\n".encode(), "control-characters", "<U+200B>"),
    "no-break space": ("a =\u00a01\n".encode(), "control-characters", "<U+00A0>"),
    "line separator": ("# a\u2028import os\n".encode(), "control-characters", "<U+2028>"),
    "off the screen": (b"x = 1" + b" " * 300 + b"; evil()\n", "long-lines", ""),
    "another encoding": (b"# -*- coding: utf-7 -*-\nx = 1\n", "encoding", ""),
    "a look-alike": ("imp\u043ert = 1\n".encode(), "non-ascii-names", ""),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_what_is_written_to_mislead_is_shown_as_what_it_is(trick: str) -> None:
    data, odd, seen = HOSTILE[trick]
    found = shown_file("app/one.py", data)
    assert found.lines is not None
    text = "\n".join(found.lines)
    assert seen in text and "\x1b" not in text and "\r" not in text
    assert found.odd == ((odd,) if odd else ())


def test_lines_are_pythons_lines() -> None:
    """A carriage return ends a line for Python, a form feed or U+2028 does not: numbers must be those of a traceback."""
    found = shown_file("a.py", b"a = 1\rb = 2\r\nc = 3\x0c\nd = 4\n")
    assert found.lines == ("a = 1", "b = 2", "c = 3<U+000C>", "d = 4")


def test_plain_files_and_chinese_comments_stand_out_in_nothing(world: Any) -> None:
    assert shown_file("a.py", "# 轧制力 模型\n\tx = '温度'\n".encode()).odd == ()
    assert all(not one.odd for one in shown(world.bundle))
    assert shown_file("m.bin", b"\xff\xfe\x00").lines is None
    assert visible("a\tb") == "a   b"
