"""A node's ledger before the witnesses of other members, and the node as one of them."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enterprise_node.acceptance import Acceptances
from enterprise_node.attestation import Attestation
from federation.errors import UnavailableError
from federation.keyring import witness_name
from federation.ledger import (
    AddCheckpoint,
    Checkpoint,
    ForkError,
    Ledger,
    LedgerRolledBackError,
    Witness,
    WitnessRefusedError,
    sign_checkpoint,
    verify_ledger,
)
from federation.wire.messages import WitnessAnswer, WitnessAsk
from federation.wire.peer import Incoming
from federation.witnessing import RETRY_SECONDS, Quorum, Witnessing, eligible, log_key, quorum

OTHERS = ("lab", "other")


class Witnesses:
    """The other members' witnesses, reached without a link; a test may put one out of reach, or answer for it."""

    def __init__(self, world: Any, base: Path) -> None:
        self.world = world
        self.asked: list[str] = []
        self.away: set[str] = set()
        self.says: dict[str, tuple[int, bytes]] = {}
        self.now = 0.0
        self._witnesses = {}
        for name in OTHERS:
            (folder := base / f"witnessed-{name}").mkdir()
            key = world.keys[name].witness
            consortium = world.home.identity.consortium
            self._witnesses[name] = Witness(witness_name(consortium, name), key, folder, world.clock)

    async def ask(self, member: str, request: bytes) -> tuple[int, bytes]:
        self.asked.append(member)
        if member in self.away:
            raise UnavailableError("{node} is not connected", node=member, code="node-offline")
        if member in self.says:
            return self.says[member]
        try:
            roster = self.world.home.history.latest
            return 200, self._witnesses[member].add_checkpoint(request, lambda origin: log_key(roster, origin))
        except WitnessRefusedError as error:
            return error.status, b"" if error.size is None else f"{error.size}\n".encode()

    def last(self, member: str) -> bytes:
        """What this witness shows of the mill's ledger."""
        return self._witnesses[member].last_note(self.world.record.ledger.origin) or b""

    def of(self, accepted: Callable[[], frozenset[str]] | None = None) -> Witnessing:
        ledger = self.world.record.ledger
        return Witnessing(self.world.home, ledger, self.ask, accepted, lambda: self.now)


@pytest.fixture
def witnesses(world: Any, tmp_path: Path) -> Witnesses:
    return Witnesses(world, tmp_path)


def anchoring(world: Any) -> tuple[str, int, tuple[str, ...], bool]:
    ledger, history = world.record.ledger, world.home.history
    found = Quorum.of([history.latest], "mill")
    verdict = verify_ledger(ledger.folder, ledger.vkey, witnesses=found.keys)
    members = found.members(verdict.witnesses)
    return verdict.anchoring, verdict.anchored_size, members, found.reached(verdict.witnesses)


async def test_each_new_state_is_cosigned_by_every_other_company_until_there_is_none(
    world: Any, witnesses: Witnesses
) -> None:
    asking = witnesses.of()
    assert await asking.advance() == 2
    size = world.record.ledger.size
    assert anchoring(world) == ("witnessed", size, OTHERS, True)
    assert await asking.advance() == 0 and len(witnesses.asked) == 2
    world.record.ledger.append("note", {})
    assert anchoring(world)[:2] == ("partly witnessed", size)
    assert await asking.advance() == 2
    assert anchoring(world) == ("witnessed", size + 1, OTHERS, True)


async def test_after_a_restart_the_witnesses_say_what_they_saw(world: Any, witnesses: Witnesses) -> None:
    await witnesses.of().advance()
    world.record.ledger.append("note", {})
    witnesses.asked.clear()
    assert await witnesses.of().advance() == 2
    assert sorted(witnesses.asked) == ["lab", "lab", "other", "other"]


async def test_one_that_is_away_is_asked_again_later_and_holds_up_nobody(world: Any, witnesses: Witnesses) -> None:
    asking = witnesses.of()
    witnesses.away.add("other")
    assert await asking.advance() == 1
    assert anchoring(world)[2:] == (("lab",), False)
    witnesses.away.clear()
    assert await asking.advance() == 0
    witnesses.now += RETRY_SECONDS
    assert await asking.advance() == 1
    assert anchoring(world)[2:] == (OTHERS, True)


async def test_only_companies_that_the_owner_accepted_are_asked(world: Any, witnesses: Witnesses) -> None:
    assert await witnesses.of(lambda: frozenset({"lab"})).advance() == 1
    assert witnesses.asked == ["lab"]


@pytest.mark.parametrize("answer", [(200, b"nonsense"), (200, b""), (500, b""), (409, b"999999\n"), (409, b"-1")])
async def test_what_one_witness_answers_spoils_nobody_elses(
    world: Any, witnesses: Witnesses, answer: tuple[int, bytes]
) -> None:
    witnesses.says["lab"] = answer
    assert await witnesses.of().advance() == 1
    assert anchoring(world)[2] == ("other",)


async def test_nobody_signs_for_another(world: Any, witnesses: Witnesses) -> None:
    """The lab hands on the other's line under its own answer, or forges one: neither counts."""
    ledger = world.record.ledger
    request = AddCheckpoint(0, (), ledger.checkpoint()).encode()
    _, line = await witnesses.ask("other", request)
    name = witness_name(world.home.identity.consortium, "other")
    witnesses.says["lab"] = (200, line)
    forger = Witness(name, world.keys["lab"].witness, world.base, world.clock)
    witnesses.says["other"] = (200, forger.add_checkpoint(request, lambda _: ledger.vkey))
    assert await witnesses.of().advance() == 0
    assert anchoring(world)[0] == "unanchored"


def test_neither_the_owners_company_nor_the_coordinators_counts(world: Any) -> None:
    roster = world.home.history.latest
    assert [member.id for member in eligible(roster, "mill")] == list(OTHERS)
    assert [member.id for member in eligible(roster, "inst")] == ["lab", "mill", "other"]
    twice = roster.model_copy(
        update={
            "members": tuple(
                one.model_copy(update={"entity": "mill Ltd"}) if one.id == "lab" else one for one in roster.members
            )
        }
    )
    assert [member.id for member in eligible(twice, "mill")] == ["other"]
    assert [quorum("abc"[:count]) for count in range(4)] == [1, 1, 2, 2]


async def test_a_history_signed_anew_with_the_real_key_is_refused_by_the_witnesses(
    world: Any, witnesses: Witnesses
) -> None:
    """The whole ledger rewritten by its own holder: local verification alone could not tell."""
    await witnesses.of().advance()
    ledger = world.record.ledger
    rewritten = Checkpoint(ledger.vkey.name, ledger.size + 1, bytes(32))
    note = sign_checkpoint(rewritten, world.keys["mill"].ledger)
    status, _ = await witnesses.ask("lab", AddCheckpoint(ledger.size, (bytes(32),), note).encode())
    assert status == 422


async def test_the_node_answers_what_the_coordinator_carried_to_it(world: Any) -> None:
    attestation = Attestation(world.home, world.record.ledger, Acceptances(world.home, world.store))
    lab = f"keyong/{world.home.identity.consortium.removeprefix('urn:uuid:')}/lab"
    note = sign_checkpoint(Checkpoint(lab, 5, bytes(32)), world.keys["lab"].ledger)

    async def add(request: bytes) -> WitnessAnswer:
        header = WitnessAsk(witness="mill", request=base64.b64encode(request).decode()).to_bytes()
        message = Incoming(method="witness.add", header=header, body=memoryview(b""))
        return WitnessAnswer.from_bytes((await attestation.add(None, message)).header)  # type: ignore[arg-type]

    answer = await add(AddCheckpoint(0, (), note).encode())
    assert answer.status == 200 and "/mill/witness " in answer.body
    again = await add(AddCheckpoint(0, (), note).encode())
    assert (again.status, again.body) == (409, "5\n")
    assert (await add(b"nonsense")).status == 400


# -- a ledger that was put back ----------------------------------------------------------------------------------------


async def put_back(world: Any, witnesses: Witnesses, base: Path, more: int) -> tuple[Ledger, Witnessing]:
    """The mill's ledger as an old copy of its whole folder, opened again; the witnesses saw ``more`` entries since."""
    ledger = world.record.ledger
    old = base / "old"
    shutil.copytree(ledger.folder, old)
    for _ in range(more):
        ledger.append("note", {})
    assert await witnesses.of().advance() == 2
    restored = Ledger.open(old, world.keys["mill"].ledger, world.clock)

    async def last(member: str) -> bytes:
        return witnesses.last(member)

    return restored, Witnessing(world.home, restored, witnesses.ask, None, lambda: witnesses.now, last)


async def test_inv6_a_restored_ledger_stops_at_the_first_witness_that_saw_more(
    world: Any, witnesses: Witnesses, tmp_path: Path
) -> None:
    restored, asking = await put_back(world, witnesses, tmp_path, 3)
    with pytest.raises(LedgerRolledBackError):
        await asking.advance()
    with pytest.raises(LedgerRolledBackError):
        restored.append("note", {})
    with pytest.raises(LedgerRolledBackError):
        Ledger.open(restored.folder, world.keys["mill"].ledger)


async def test_inv6_one_that_went_on_first_is_a_fork(world: Any, witnesses: Witnesses, tmp_path: Path) -> None:
    restored, asking = await put_back(world, witnesses, tmp_path, 3)
    for _ in range(3):
        restored.append("note", {"other": True})
    with pytest.raises(ForkError) as raised:
        await asking.advance()
    assert len(raised.value.evidence) == 2


async def test_what_we_did_not_sign_stops_nobody(world: Any, witnesses: Witnesses, tmp_path: Path) -> None:
    """A witness that lies about what it saw, or shows another's checkpoint, is passed over."""
    ledger = world.record.ledger
    witnesses.says["lab"] = (409, b"999999\n")
    forged = sign_checkpoint(Checkpoint(ledger.origin, 999_999, b"\1" * 32), world.keys["lab"].ledger)

    async def last(member: str) -> bytes:
        return forged if member == "lab" else witnesses.last(member)

    asking = Witnessing(world.home, ledger, witnesses.ask, None, lambda: witnesses.now, last)
    assert await asking.advance() == 1
    ledger.append("note", {})


async def test_another_process_of_the_home_that_wrote_meanwhile_is_no_rollback(
    world: Any, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = world.record.ledger
    before = ledger.checkpoint()
    ledger.append("note", {})
    await witnesses.of().advance()

    async def last(member: str) -> bytes:
        return witnesses.last(member)

    asking = Witnessing(world.home, ledger, witnesses.ask, None, lambda: witnesses.now, last)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "checkpoint", lambda: before)
        assert await asking.advance() == 0
    ledger.append("note", {})


async def test_without_the_witnesses_word_a_restored_ledger_would_go_on(
    world: Any, witnesses: Witnesses, tmp_path: Path
) -> None:
    restored, _ = await put_back(world, witnesses, tmp_path, 3)
    assert await Witnessing(world.home, restored, witnesses.ask, None, lambda: witnesses.now).advance() == 0
    restored.append("note", {})


@pytest.mark.parametrize(("idle", "slept"), [([], 0.5), ([0.0, 0.0], 0.7), ([0.05] * 50, 0.9), ([-3600.0] * 50, 0.9)])
async def test_a_ledger_is_shown_after_what_is_written_and_never_late(
    monkeypatch: pytest.MonkeyPatch, idle: list[float], slept: float
) -> None:
    """Quiet at once, quiet after a while, never quiet, and where the clock was set back."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Written:
        def idle_seconds(self) -> float:
            return idle.pop() if idle else 60.0

    monkeypatch.setattr("federation.witnessing.asyncio.sleep", sleep)
    await Witnessing(None, Written(), None, None, lambda: now).pause()  # type: ignore[arg-type]
    assert now == pytest.approx(slept)
