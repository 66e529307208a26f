"""Makes ``recorded/homes-0.1.0.tar.gz``: the homes of a founder, a node and an analyst, as release 0.1.0 wrote them.

Ran once, with the packages of that release before this tree's in ``PYTHONPATH``; kept to show what the recording holds.
Each part runs in a process of its own, because that release made the tables of whatever modules a process had imported.
The keys in these homes were made here and belong to nobody.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

COMMON = """
import sys
from datetime import timedelta
from pathlib import Path
from federation.home import Home, Identity, NewKeys, now
from federation.holdings import Holdings, open_engine
base = Path(sys.argv[1])
"""

FOUND = """
from keyong.founding import found
home = found(base / "institute", name="Plates", member="institute", entity="Rolling Institute",
             address="127.0.0.1:7443", roles=("member", "coordinator", "analyst"))
from coordinator.enrolment import enrol, invite
from coordinator.store import CoordinatorStore
from federation.statements import EnrolmentRequest
store = CoordinatorStore(open_engine(home.path / "coordinator.db"))
for name, roles in (("mill", ("member",)), ("lab", ("analyst",)), ("late", ("member",))):
    invitation = invite(home, store, member=name, entity=f"{name} Ltd", roles=roles, at=now())
    if name == "late":
        break
    keys = NewKeys(name, root=False)
    request = EnrolmentRequest(
        issued=now(), expires=now() + timedelta(hours=1), consortium=invitation.consortium, member=name,
        entity=f"{name} Ltd", statement_key=keys.statement.public.text, ledger_key=keys.ledger.public.text,
        witness_key=keys.witness.public.text, tls_certificate=keys.tls.certificate_pem.decode(),
    ).seal(keys.statement, keys.ledger, keys.witness)
    ticket = [row.fingerprint for row in store.outstanding("") if row.member == name][0]
    enrol(home, store, ticket, request, now())
    identity = Identity(
        consortium=invitation.consortium, name="Plates", fingerprint=invitation.fingerprint, member=name,
        entity=f"{name} Ltd", roles=roles, coordinator="institute", address="127.0.0.1:7443",
    )
    Home.create(base / name, identity, keys, list(home.history.envelopes))
"""

COORDINATE = """
from coordinator.store import CoordinatorStore, JobRow
home = Home(base / "institute")
store = CoordinatorStore(open_engine(home.path / "coordinator.db"))
store.put_mail("lab", "mill", "2026-11-22T03:00:00Z", "sha256:" + "1" * 64, b"first")
store.put_mail("lab", "mill", "2026-11-22T03:01:00Z", "sha256:" + "2" * 64, b"second")
store.mail("lab", 1)
store.publish("mill", "sha256:" + "3" * 64, {"passes": b"description"}, 2**20)
for number, status in enumerate(("done", "running", "submitted"), start=1):
    job = f"urn:uuid:0000000{number}-0000-4000-8000-000000000000"
    store.put_job(JobRow(
        id=job, plan_digest="sha256:" + str(number) * 64, requester="lab", purpose="fed:ProcessOptimization",
        status="submitted", rounds=3, participants=1, protection="fed:none",
        submitted=f"2026-11-22T03:0{number}:00Z", envelope=b"plan",
    ), ["lab", "mill"])
    store.add_event(job, f"2026-11-22T03:0{number}:01Z", "queued", {"place": 1})
    if status != "submitted":
        store.start_job(job)
    if status == "done":
        store.end_job(job, "done", 3, "2026-11-22T03:05:00Z", {"rounds": 3})
home.open_ledger().close()
"""

SERVE = """
from enterprise_node.record import Record
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.policy import agreement_policy
from federation.statements import Agreement
home = Home(base / "mill")
engine = open_engine(home.path / "store.db")
holdings, store = Holdings(engine), NodeStore(engine)
record = Record(home.open_ledger())
at, number = now(), "urn:uuid:00000009-0000-4000-8000-000000000000"
policy = agreement_policy(provider="mill", consumer="lab", dataset="passes", actions=["fed:train"], purposes=[],
                          count=3, expires=at + timedelta(days=1), agreement_id=number, now=at)
agreement = Agreement(issued=at, expires=at + timedelta(days=1), id=number, provider="mill", consumer="lab",
                      dataset="passes", title="Passes", roster=home.history.digest, policy=policy)
envelope = agreement.seal(home.key("statement"), Home(base / "lab").key("statement"))
holdings.put(envelope, "in-force", id=number, provider="mill", consumer="lab", dataset="passes", title="Passes",
             arrived=at)
holdings.set_mail_read(2)
store.put_dataset(RegisteredDataset(id="passes", path="/data/passes.csv", reading="{}", fingerprint="f" * 64,
                                    data_version="sha256:" + "4" * 64, rows=100, columns="[]",
                                    description=b"description"))
store.accept(home.roster.member("lab"), "2026-11-22T03:00:00Z")
record.ledger.append("peers", {"entity": "lab Ltd", "event": "accepted"})
record.ledger.append("agreement", {"agreement": envelope.to_bytes(), "digest": envelope.digest})
record.ledger.close()
(base / "agreement").write_bytes(envelope.to_bytes())
"""

ASK = """
from federation.statements import Envelope
home = Home(base / "lab")
holdings = Holdings(open_engine(home.path / "store.db"))
envelope = Envelope.from_bytes((base / "agreement").read_bytes())
holdings.put(envelope, "offered", id="urn:uuid:00000009-0000-4000-8000-000000000000", provider="mill", consumer="lab",
             dataset="passes", title="Passes", arrived=now())
(base / "agreement").unlink()
"""


def main() -> None:
    """Record into the archive named on the command line."""
    with tempfile.TemporaryDirectory() as name:
        for part in (FOUND, COORDINATE, SERVE, ASK):
            subprocess.run([sys.executable, "-c", COMMON + part, name], check=True)
        with tarfile.open(sys.argv[1], "w:gz", compresslevel=9) as archive:
            for path in sorted(Path(name).rglob("*")):
                info = archive.gettarinfo(path, str(path.relative_to(name)))
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = ""
                with path.open("rb") if path.is_file() else open("/dev/null", "rb") as file:
                    archive.addfile(info, file if path.is_file() else None)


if __name__ == "__main__":
    main()
