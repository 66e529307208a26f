"""Someone holds the coordinator's TLS key and address, and no statement key: TLS authenticates the link only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federation.crypto import SigningKey
from federation.errors import KeyongError
from federation.home import Home, now
from federation.jobs.codec import Content, content_digest, encode
from federation.statements import Envelope, Invocation, JobPlan, Receipt, Roster, RosterHistory
from federation.statements.code import bundle_folder
from federation.wire import messages as m
from tests.integration.apps import CLIENT, write_app
from tests.integration.consortium import Consortium
from tests.integration.rogue import Rogue, in_place_of_the_coordinator

NODE = "mill-a"


@pytest.fixture(scope="module")
def past(consortium: Consortium) -> dict[str, Envelope]:
    """A plan and an invocation that were genuine: what anybody may have recorded on the link."""
    assert consortium.job().code == 0
    found = {}
    for party, kind, field in ((consortium.institute, "plan", "plan"), (consortium.mill("a"), "intent", "invocation")):
        with Home(party.home).open_ledger() as ledger:
            index = max(number for number in range(ledger.size) if ledger.entry(number).kind == kind)
            found[field] = Envelope.from_bytes(ledger.fields(index)[field])
    assert Invocation.read(found["invocation"]).plan == found["plan"].digest
    return found


@pytest.fixture(scope="module")
def rogue(
    consortium: Consortium, past: dict[str, Envelope], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rogue]:
    with in_place_of_the_coordinator(consortium, tmp_path_factory.mktemp("rogue")) as one:
        yield one


@pytest.fixture
def untouched(consortium: Consortium) -> Iterator[None]:
    """No step begins at the node in the course of the test."""
    mill = consortium.mill("a")
    before = len(consortium.entries(mill, "intent"))
    yield
    assert len(consortium.entries(mill, "intent")) == before, "a step began"


def _code(consortium: Consortium) -> bytes:
    return bundle_folder(consortium.app).to_bytes()


def _open(rogue: Rogue, plan: Envelope, code: bytes) -> m.JobOpened:
    answer = rogue.call(NODE, "job.open", m.JobOpen(plan=m.pack(plan), node_number=7), [code])
    return m.JobOpened.from_bytes(answer.header)


def _forged(plan: Envelope, key: SigningKey, **changes: Any) -> Envelope:
    return JobPlan.read(plan).model_copy(update=changes).seal(key)


def test_inv1_a_forged_plan(consortium: Consortium, rogue: Rogue, past: dict[str, Envelope], untouched: None) -> None:
    forged = _forged(past["plan"], SigningKey.generate(), rounds=99, id="urn:uuid:11111111-1111-4111-8111-111111111111")
    opened = _open(rogue, forged, _code(consortium))
    assert not opened.permitted and opened.code == "signature", opened
    assert consortium.entries(consortium.mill("a"))[-1]["kind"] == "denied"


def test_inv1_a_widened_cohort(
    consortium: Consortium, rogue: Rogue, past: dict[str, Envelope], untouched: None
) -> None:
    plan = JobPlan.read(past["plan"])
    changed = plan.model_copy(update={"cohort": plan.cohort[:2], "minimal_participants": 2})
    # The genuine signatures under another payload.
    genuine = past["plan"]
    forged = Envelope(genuine.payload_type, changed.payload(), genuine.signatures)
    opened = _open(rogue, forged, _code(consortium))
    assert not opened.permitted and opened.code == "signature", opened


def test_inv1_other_code(
    consortium: Consortium, rogue: Rogue, past: dict[str, Envelope], tmp_path: Path, untouched: None
) -> None:
    other = write_app(tmp_path / "other", client=CLIENT + "\n# more\n")
    opened = _open(rogue, past["plan"], bundle_folder(other).to_bytes())
    assert not opened.permitted and opened.code == "code-mismatch", opened


def _invoke(rogue: Rogue, invocation: Envelope, content: Content) -> Receipt:
    header, body = encode(content)
    asked = m.Invoke(invocation=m.pack(invocation), content=header.decode())
    answer = rogue.call(NODE, "job.invoke", asked, [bytes(part) for part in body])
    invoked = m.Invoked.from_bytes(answer.header)
    assert not len(answer.body), "something left the node"
    return Receipt.read(m.unpack(invoked.receipt))


def _content() -> Content:
    return Content(arrays={"arrays": {"w": np.zeros(4)}}, configs={"config": {"server-round": 1}})


def test_inv1_a_replayed_and_a_forged_invocation(
    consortium: Consortium, rogue: Rogue, past: dict[str, Envelope], untouched: None
) -> None:
    _open(rogue, past["plan"], _code(consortium))  # the genuine plan of a job that is over
    try:
        replayed = _invoke(rogue, past["invocation"], _content())
        assert replayed.outcome == "denied", replayed
    except KeyongError as error:
        assert error.exit_code in (3, 4), error
    header, body = encode(_content())
    genuine = Invocation.read(past["invocation"])
    forged = genuine.model_copy(
        update={
            "issued": now().replace(microsecond=0),
            "expires": (now() + timedelta(minutes=5)).replace(microsecond=0),
            "round": 2,
            "content": content_digest(header, list(body)),
        }
    ).seal(SigningKey.generate())
    try:
        receipt = _invoke(rogue, forged, _content())
        assert (receipt.outcome, receipt.code) == ("denied", "signature"), receipt
    except KeyongError as error:
        assert error.exit_code in (3, 4), error


def _rosters(party_home: Path) -> list[Envelope]:
    return [Envelope.from_bytes(path.read_bytes()) for path in sorted((party_home / "rosters").glob("*.json"))]


def test_inv6_rosters_that_do_not_follow(consortium: Consortium, rogue: Rogue) -> None:
    home = Home(consortium.institute.home)
    latest: Roster = home.history.latest
    before = sorted(path.name for path in (consortium.mill("a").home / "rosters").iterdir())
    fewer = latest.model_copy(update={"members": latest.members[:1]})
    offers = {
        "rolled back": _rosters(consortium.institute.home)[0],
        "equivocated, by the real root": fewer.seal(home.key("root")),
        "next, by another root": latest.model_copy(
            update={"version": latest.version + 1, "previous": home.history.digest}
        ).seal(SigningKey.generate()),
        "next, naming another predecessor": latest.model_copy(
            update={"version": latest.version + 1, "previous": "sha256:" + "0" * 64}
        ).seal(home.key("root")),
    }
    for name, envelope in offers.items():
        try:
            rogue.call(NODE, "roster.push", m.Envelopes(envelopes=(m.pack(envelope),)))
            assert name == "rolled back", f"{name} was taken"  # known already, and changes nothing
        except KeyongError as error:
            assert error.code != "no-answer", (name, error)
    after = sorted(path.name for path in (consortium.mill("a").home / "rosters").iterdir())
    assert before == after
    history = RosterHistory(_rosters(consortium.mill("a").home), consortium.fingerprint)
    assert history.latest.version == latest.version and len(history.latest.members) == len(latest.members)
