"""inv6: keys are exchanged under old and new ones; what was signed before holds, and an old key signs nothing more."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator import rekeying
from federation import correspondence, keyring
from federation.crypto import SignatureError
from federation.holdings import Holdings, open_engine
from federation.home import Home, KeysDifferError, now
from federation.ledger import LedgerUnavailableError, Witness, WitnessRefusedError
from federation.ledger.witness import AddCheckpoint
from federation.statements import Envelope, KeyChange, Revocation
from federation.witnessing import log_key, witness_name
from keyong import rooting, rosters, rotating
from keyong.registering import node_store
from tests.keyong.conftest import Process, Run
from tests.keyong.parties import Parties, copied
from tests.keyong.test_rooting import spread


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    found = Parties(tmp_path)
    yield found
    found.close()


def request_of(exchange: rotating._Exchange) -> Envelope:
    return exchange._request(exchange._hand_over())


@pytest.fixture
def exchanged(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> Parties:
    """mill-a has exchanged all its keys after a job; what it had before lies in ``before/``."""
    run = parties.ask()
    parties.work(run)
    parties.attest()
    copied(parties.homes["mill-a"], parties.base / "before")
    exchange(parties, "mill-a", monkeypatch)
    return parties


def exchange(
    parties: Parties, name: str, monkeypatch: pytest.MonkeyPatch, roles: tuple[str, ...] = rotating.ROLES
) -> None:
    """As ``keyong keys rotate`` does it, the link a function call."""
    home = parties.homes[name]
    parties.ledgers[name].close()

    def ask(self: rotating._Exchange) -> None:
        rekeying.change_keys(parties.homes["institute"], name, request_of(self), now())
        spread(parties)

    with monkeypatch.context() as patched:
        patched.setattr(rotating._Exchange, "enter", ask)
        rotating.rotate(home, roles)
    parties.ledgers[name] = home.open_ledger()
    parties.witnesses[name] = Witness(
        witness_name(home.identity.consortium, name), home.key("witness"), home.folder("witnessed"), now
    )


def test_everything_before_and_after_verifies(exchanged: Parties, keyong: Run, tmp_path: Path) -> None:
    exchanged.work(exchanged.ask())
    exchanged.attest()
    root = ("--root", exchanged.fingerprint)
    ran = keyong("verify", exchanged.homes["mill-a"].path, *root, "--require", "anchored", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["anchoring"]["state"] == "final"
    files = [exchanged.export(name, tmp_path / f"{name}.export") for name in exchanged.homes]
    ran = keyong("audit", *files, *root)
    assert ran.code == 0, ran.err


def test_the_keys_and_their_spans_are_listed(exchanged: Parties, keyong: Run) -> None:
    rows = keyong("--home", exchanged.homes["mill-a"].path, "keys", "list", "--format", "json").json
    assert [row["role"] for row in rows] == [role for role in rotating.ROLES for _ in range(2)]
    assert all(bool(row["until"]) == (row["roster"] == 1) for row in rows)


def test_a_copy_with_the_old_keys_is_of_no_use(exchanged: Parties, keyong: Run) -> None:
    thief = Home(exchanged.base / "before")
    with thief.open_ledger() as ledger:
        for _ in range(8):
            ledger.append("intent", {"plan": "forged"})
    for envelope in exchanged.homes["institute"].history.envelopes[1:]:
        thief.learn(envelope)
    with pytest.raises(KeysDifferError):
        thief.check_keys()
    ran = keyong("verify", thief.path, "--root", exchanged.fingerprint)
    assert ran.code == 4 and "ledger-key-ended" in ran.out


def test_an_old_ledger_key_goes_on_nowhere(exchanged: Parties) -> None:
    """Not even at a witness that never saw this ledger."""
    thief = Home(exchanged.base / "before")
    with thief.open_ledger() as ledger:
        note = ledger.checkpoint()
    roster = exchanged.homes["mill-c"].history.latest
    with pytest.raises(WitnessRefusedError) as caught:
        exchanged.witnesses["mill-c"].add_checkpoint(
            AddCheckpoint(0, (), note).encode(), lambda origin: log_key(roster, origin)
        )
    assert caught.value.status == 403


def test_an_old_statement_key_ends_nothing_any_more(exchanged: Parties) -> None:
    agreement = (
        exchanged.agree_with_new_keys("mill-b")
        if hasattr(exchanged, "agree_with_new_keys")
        else exchanged.agree("mill-b")
    )
    home = exchanged.homes["mill-b"]
    holdings = Holdings(open_engine(home.path / "store.db"))
    old = Home(exchanged.base / "before").key("statement")
    word = Revocation(issued=now(), expires=now().replace(year=now().year + 1), agreement=agreement, by="mill-a")
    with pytest.raises(SignatureError):
        correspondence.take(home, holdings, exchanged.ledgers["mill-b"], word.seal(old), now())
    assert holdings.state(agreement) == "in-force"


def test_a_statement_put_on_record_after_its_key_ended_is_found(
    exchanged: Parties, keyong: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_after = exchanged.ask()
    exchanged.keys["mill-a"].statement = Home(exchanged.base / "before").key("statement")
    exchanged.step(ran_after, "mill-a", 1)
    path, root = exchanged.homes["mill-a"].path, exchanged.fingerprint
    assert keyong("verify", path, "--root", root).code == 0, "within the time that a statement may be on its way"
    monkeypatch.setattr(rosters, "KEY_GRACE", keyring.KEY_GRACE * 0)
    ran = keyong("verify", path, "--root", root)
    assert ran.code == 4 and "had ended" in ran.err


def test_an_old_witness_key_makes_nothing_final(exchanged: Parties, keyong: Run) -> None:
    exchanged.asleep = {"mill-c"}
    name = "mill-a"
    home = exchanged.homes[name]
    old = Home(exchanged.base / "before")
    exchanged.witnesses[name] = Witness(
        witness_name(home.identity.consortium, name), old.key("witness"), old.folder("witnessed"), now
    )
    exchanged.ledgers["mill-b"].append("note", {})
    exchanged.attest("mill-b")
    ran = keyong("verify", exchanged.homes["mill-b"].path, "--root", exchanged.fingerprint, "--format", "json")
    assert ran.json["anchoring"]["state"] in ("unanchored", "partly witnessed")


def test_a_witness_with_a_new_key_remembers_what_the_old_one_saw(exchanged: Parties) -> None:
    witness, origin = exchanged.witnesses["mill-a"], exchanged.ledgers["mill-b"].origin
    seen = witness.last(origin)
    assert seen is not None and seen.size == exchanged.ledgers["mill-b"].size


def test_a_request_needs_every_old_key_and_every_new_one(parties: Parties) -> None:
    home = parties.homes["mill-a"]
    parties.ledgers["mill-a"].close()
    begun = rotating._Exchange.begin(home, rotating.ROLES)
    whole = request_of(begun)
    for left_out in whole.signatures:
        fewer = Envelope(
            whole.payload_type, whole.payload, tuple(one for one in whole.signatures if one is not left_out)
        )
        with pytest.raises(SignatureError):
            rekeying.change_keys(parties.homes["institute"], "mill-a", fewer, now())
    with pytest.raises(SignatureError):
        rekeying.change_keys(parties.homes["institute"], "mill-b", whole, now())
    first = rekeying.change_keys(parties.homes["institute"], "mill-a", whole, now())
    again = rekeying.change_keys(parties.homes["institute"], "mill-a", whole, now())
    assert first.envelope.digest == again.envelope.digest, "the same request again changes nothing"


def test_an_answer_that_was_lost_is_waited_for(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    home = parties.homes["mill-a"]
    parties.ledgers["mill-a"].close()

    def lost(self: rotating._Exchange) -> None:
        rekeying.change_keys(parties.homes["institute"], "mill-a", request_of(self), now())
        raise rotating.NoAnswerError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(rotating._Exchange, "enter", lost)
        with pytest.raises(rotating.ExchangeUnansweredError):
            rotating.rotate(home)
    with home.open_ledger() as ledger, pytest.raises(LedgerUnavailableError, match="being exchanged"):
        ledger.append("note", {})
    spread(parties)
    done = rotating.rotate(home, ["tls"])
    assert done.roles == rotating.ROLES, "what was begun is finished"
    home.check_keys()
    parties.ledgers["mill-a"] = home.open_ledger()
    assert not (home.path / rotating.FOLDER).exists()


def test_a_refusal_leaves_the_old_keys(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    home = parties.homes["mill-a"]
    parties.ledgers["mill-a"].close()

    def refused(self: rotating._Exchange) -> None:
        self._hand_over()
        raise SignatureError("refused")

    monkeypatch.setattr(rotating._Exchange, "enter", refused)
    with pytest.raises(SignatureError):
        rotating.rotate(home)
    home.check_keys()
    parties.ledgers["mill-a"] = home.open_ledger()
    parties.ledgers["mill-a"].append("note", {})


def test_under_a_quorum_of_root_keys_nothing_is_begun_until_it_lowers_the_threshold(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, keyong: Run, tmp_path: Path
) -> None:
    """The refusal comes before a key is made or the ledger stops, and names the way; that way is walked."""
    institute, mill = parties.homes["institute"], parties.homes["mill-a"]
    file = tmp_path / "proposal.json"
    key = rooting.root_key(parties.homes["mill-b"], make=True).public.text

    def agreed(threshold: int, **changes: list[str]) -> None:
        rooting.save(file, rooting.propose(institute, threshold=threshold, **changes))
        proposal = rooting.read_proposal(parties.homes["mill-b"], file)
        rooting.save(file, rooting.approve(parties.homes["mill-b"], proposal))
        rooting.adopt(institute, file)
        spread(parties)

    agreed(2, add=[key])
    before = parties.ledgers["mill-a"].size
    ran = keyong("--home", mill.path, "keys", "rotate", "-y")
    assert ran.code == 2 and "consortium propose FILE --threshold 1" in ran.err and "--threshold 2" in ran.err
    assert parties.ledgers["mill-a"].size == before and not (mill.path / "next-keys").exists()
    parties.ledgers["mill-a"].append("note", {"text": "the ledger goes on"})
    old = mill.member.statement_key
    agreed(1)
    exchange(parties, "mill-a", monkeypatch)
    agreed(2)
    assert mill.history.latest.root.threshold == 2 and mill.member.statement_key != old
    assert keyong("verify", mill.path, "--root", parties.fingerprint).code == 0


def test_a_member_of_an_older_release_reads_a_roster_without_the_new_fields(parties: Parties) -> None:
    assert b"ledger_since" not in parties.homes["mill-a"].history.envelopes[0].payload
    assert KeyChange.TYPE.endswith("key-change.v1+json")


def test_by_commands_between_processes(
    keyong: Run,
    founder: Path,
    joined: Path,
    coordinating: Process,
    fingerprint: str,
    serve: Callable[..., Process],
    passes: Path,
    tmp_path: Path,
) -> None:
    add = ("node", "dataset", "add", "passes", passes, "--title", "Passes")
    assert keyong("--home", joined, *add).code == 0
    stolen = Path(shutil.copytree(joined, tmp_path / "stolen"))
    node = serve("--home", joined, "node", "serve")
    node.wait_for("attached")
    ran = keyong("--home", joined, "keys", "rotate", "-y")
    assert ran.code == 5 and "already" in ran.err
    assert node.end() == 0
    ran = keyong("--home", joined, "keys", "rotate", "-y", "--format", "json")
    assert ran.code == 0, ran.err
    assert ran.json["roles"] == list(rotating.ROLES)
    assert keyong("--home", joined, "catalog", "list").code == 0, "the new certificate is taken"
    assert keyong("--home", stolen, "catalog", "list").code == 5, "the old one is not"
    assert len(node_store(Home(joined)).datasets()) == 1
    again = serve("--home", joined, "node", "serve")
    again.wait_for("attached")
    (entry,) = keyong("--home", founder, "catalog", "list", "--format", "json").json
    assert entry["dataset"] == "passes", "published anew, under the new key"
    assert again.end() == 0

    # And the coordinator's own: who was away meanwhile learns its new certificate from the roster that names it.
    assert coordinating.end() == 0
    assert keyong("--home", founder, "keys", "rotate", "-y").code == 0
    serve("--home", founder, "coordinator", "serve").wait_for("ready")
    assert keyong("--home", joined, "catalog", "list").code == 0
    for home in (joined, founder):
        assert keyong("verify", home, "--root", fingerprint).code == 0
    assert Home(joined).history.latest.version == Home(founder).history.latest.version
