"""Several holders of root keys: a roster proposed, signed by old and new quorum, adopted; and a member removed by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import enrolment
from federation.crypto import SignatureError
from federation.home import Home, now
from federation.statements import Envelope, RosterHistory, StatementError, add_signature
from keyong import rooting
from tests.keyong.conftest import Run
from tests.keyong.parties import Parties


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


@pytest.fixture
def quorum(parties: Parties, tmp_path: Path) -> Path:
    """The root is now two of three: the institute, mill-a, mill-b. Everybody has that roster."""
    file = tmp_path / "quorum.json"
    institute = parties.homes["institute"]
    keys = [rooting.root_key(parties.homes[name], make=True).public.text for name in ("mill-a", "mill-b")]
    rooting.save(file, rooting.propose(institute, add=keys, threshold=2))
    rooting.save(file, rooting.approve(parties.homes["mill-a"], rooting.read_proposal(parties.homes["mill-a"], file)))
    rooting.adopt(institute, file)
    spread(parties)
    return file


def spread(parties: Parties) -> None:
    for home in parties.homes.values():
        for envelope in parties.homes["institute"].history.envelopes[home.history.latest.version :]:
            home.learn(envelope)


def test_by_commands_from_one_key_to_two_of_three(parties: Parties, keyong: Run, tmp_path: Path) -> None:
    file = tmp_path / "quorum.json"
    homes = {name: home.path for name, home in parties.homes.items()}
    keys = []
    for name in ("mill-a", "mill-b"):
        ran = keyong("--home", homes[name], "consortium", "root-key", "--format", "json")
        assert not ran.json["in_force"]
        keys.append(ran.json["root_key"])
    ran = keyong(
        "--home", homes["institute"], "consortium", "propose", file, "--add-root", keys[0], "--add-root", keys[1],
        "--threshold", "2", "--format", "json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert (ran.json["missing_of_old_root"], ran.json["missing_of_new_root"]) == (0, 1)
    assert keyong("--home", homes["institute"], "consortium", "adopt", file).code == 4, "the new quorum has not signed"
    ran = keyong("--home", homes["mill-a"], "consortium", "approve", file, "-y")
    assert ran.code == 0 and "root key added" in ran.err and "signatures needed 2 instead of 1" in ran.err
    ran = keyong("--home", homes["institute"], "consortium", "adopt", file)
    assert ran.code == 0 and "2 of 3 root keys" in ran.err
    assert keyong("--home", homes["institute"], "consortium", "adopt", file).code == 4, "it is in force already"
    assert Home(homes["institute"]).history.latest.root.threshold == 2


def test_one_key_alone_changes_nothing_any_more(parties: Parties, quorum: Path, tmp_path: Path) -> None:
    institute, file = parties.homes["institute"], tmp_path / "next.json"
    with pytest.raises(enrolment.RootAbsentError, match="needs 2 root signatures"):
        enrolment.remove(institute, "mill-c", now())
    assert not enrolment.renew(institute, now(), rooting.ROSTER_VALIDITY)
    rooting.save(file, rooting.propose(institute, remove=["mill-c"]))
    with pytest.raises(SignatureError, match="1 of the 2"):
        rooting.adopt(institute, file)
    # Nor does it on a member's disk, whoever carries it there.
    with pytest.raises(SignatureError, match="1 of the 2"):
        parties.homes["mill-b"].learn(Envelope.from_bytes(file.read_bytes()))


def test_two_of_three_remove_a_member(parties: Parties, quorum: Path, keyong: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    rooting.save(file, rooting.propose(parties.homes["mill-a"], remove=["mill-c"]))
    ran = keyong("--home", parties.homes["mill-b"].path, "consortium", "approve", file, "-y")
    assert "member removed    mill-c" in ran.err
    rooting.adopt(parties.homes["institute"], file)
    spread(parties)
    latest = parties.homes["lab"].history.latest
    assert "mill-c" not in {member.id for member in latest.members} and latest.root.threshold == 2


def test_what_a_removed_member_signed_before_still_verifies(
    parties: Parties, quorum: Path, keyong: Run, tmp_path: Path
) -> None:
    run = parties.ask()
    parties.work(run)
    file = tmp_path / "out.json"
    rooting.save(file, rooting.propose(parties.homes["institute"], remove=["mill-b"]))
    rooting.save(file, rooting.approve(parties.homes["mill-a"], rooting.read_proposal(parties.homes["mill-a"], file)))
    rooting.adopt(parties.homes["institute"], file)
    spread(parties)
    files = [parties.export(name, tmp_path / f"{name}.export") for name in parties.homes]
    ran = keyong("audit", *files, "--root", parties.fingerprint)
    assert ran.code == 0, ran.err


def test_a_root_key_that_went_signs_no_more(parties: Parties, quorum: Path, tmp_path: Path) -> None:
    institute, mill = parties.homes["institute"], parties.homes["mill-a"]
    lost, file = rooting.root_key(institute).public.text, tmp_path / "lost.json"
    rooting.save(file, rooting.propose(mill, drop=[lost]))
    rooting.save(file, rooting.approve(parties.homes["mill-b"], rooting.read_proposal(parties.homes["mill-b"], file)))
    rooting.adopt(institute, file)
    spread(parties)
    with pytest.raises(enrolment.RootAbsentError, match="not one of the roster in force"):
        rooting.propose(institute, remove=["mill-c"])
    with pytest.raises(enrolment.RootAbsentError, match="not one of the roster in force"):
        enrolment.remove(institute, "mill-c", now())


def test_a_proposal_that_another_roster_overtook_is_void(parties: Parties, quorum: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for file in (first, second):
        rooting.save(file, rooting.propose(parties.homes["mill-a"]))
        proposal = rooting.read_proposal(parties.homes["mill-b"], file)
        rooting.save(file, rooting.approve(parties.homes["mill-b"], proposal))
    rooting.adopt(parties.homes["institute"], first)
    with pytest.raises(StatementError, match="does not follow version"):
        rooting.adopt(parties.homes["institute"], second)


def test_a_strangers_signature_is_refused(parties: Parties, quorum: Path, tmp_path: Path) -> None:
    file = tmp_path / "next.json"
    stranger = rooting.root_key(parties.homes["lab"], make=True)
    with pytest.raises(enrolment.RootAbsentError, match="neither the old nor the new"):
        rooting.save(file, rooting.propose(parties.homes["mill-a"]))
        rooting.approve(parties.homes["lab"], rooting.read_proposal(parties.homes["lab"], file))
    rooting.save(file, add_signature(Envelope.from_bytes(file.read_bytes()), stranger))
    with pytest.raises(SignatureError, match="of no root"):
        rooting.read_proposal(parties.homes["mill-b"], file)


def test_the_chain_holds_from_the_first_root_on(parties: Parties, quorum: Path) -> None:
    history = RosterHistory(parties.homes["institute"].history.envelopes, parties.fingerprint)
    assert history.latest.root.threshold == 2 and history.latest.version == 2


def test_nobody_removes_the_coordinator_or_a_quorum_that_cannot_be_reached(parties: Parties) -> None:
    institute = parties.homes["institute"]
    with pytest.raises(Exception, match="coordinator cannot be removed"):
        rooting.propose(institute, remove=["institute"])
    with pytest.raises(enrolment.EnrolmentError, match="threshold they can reach"):
        rooting.propose(institute, threshold=2)
