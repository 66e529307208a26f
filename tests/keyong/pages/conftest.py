"""A mill's ledger with jobs, refusals and what a hostile party could have brought into it; its pages in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from federation.home import Home
from federation.statements import DecisionRecord, Judged
from keyong.pages.access import LOOPBACK, Access
from keyong.pages.app import application
from keyong.pages.judging import judge
from keyong.pages.source import Source, open_source
from keyong.pages.watch import Watch
from tests.keyong.parties import DIGEST, Parties

RUNS = (
    "<script>document.documentElement.dataset.ran=1</script><img src=x onerror=document.documentElement.dataset.ran=2>"
)
HOSTILE = f"\"'>{RUNS}{{{{7*7}}}}"
"""In every field that another party can fill."""
HOSTILE_FIELDS = (
    "requester", "provider", "consumer", "node", "by", "subject", "dataset", "purpose", "outcome", "code", "agreement",
    "plan", "event", "status", "job", "note", "stage", "decision", "protection", "exception", "rho",
)  # fmt: skip


@dataclass
class Mill:
    """A company's home with a ledger worth showing."""

    parties: Parties
    agreement: str
    plans: list[str] = field(default_factory=list)

    @property
    def home(self) -> Home:
        return self.parties.homes["mill-a"]

    @property
    def fingerprint(self) -> str:
        return self.home.identity.fingerprint


def make_mill(base: Path, jobs: int = 2) -> Mill:
    """Jobs of two rounds under an agreement, refusals, and hostile entries."""
    parties = Parties(base)
    mill = Mill(parties, parties.agree("mill-a"))
    other = parties.agree("mill-b")
    ledger = parties.ledgers["mill-a"]
    for _ in range(jobs):
        run = parties.ask({"mill-a": mill.agreement, "mill-b": other})
        parties.work(run)
        mill.plans.append(run.plan.digest)
    judged = Judged(
        operand="odrl:count",
        operator="odrl:lteq",
        right="10",
        left="11",
        satisfied=False,
        note="permission/0/constraint/1",
    )
    decision = DecisionRecord(permit=False, agreement=mill.agreement, rule="count", constraints=(judged,))
    fields = {"statement": DIGEST, "plan": mill.plans[0], "code": "count", "decision": decision.model_dump(mode="json")}
    ledger.append("denied", fields)
    for kind in ("intent", "denied", "job", "owner"):
        ledger.append(kind, dict.fromkeys(HOSTILE_FIELDS, HOSTILE))
        ledger.append(kind, dict.fromkeys(HOSTILE_FIELDS, f"{HOSTILE}\u202e\x07"))
    return mill


@pytest.fixture(scope="session")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """One mill for every test that does not change it."""
    found = make_mill(tmp_path_factory.mktemp("mill"))
    yield found
    found.parties.close()


@pytest.fixture(scope="session")
def source(mill: Mill) -> Iterator[Source]:
    """Its ledger, opened and indexed."""
    with open_source(mill.home.path, mill.fingerprint, mill.home.path) as found:
        found.index.bring_up()
        yield found


@dataclass
class Site:
    """The pages in this process, without a socket."""

    access: Access
    app: object

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client that addresses them as a browser would."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8741", headers=headers)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """A page, asked for with a good login."""
        session = self.access.redeem(self.access.new_link())
        async with self.client(**headers) as client:
            return await client.get(
                path, headers={"cookie": f"{self.access.cookie}={session}; {headers.pop('cookie', '')}"}
            )


def make_site(source: Source, fingerprint: str) -> Site:
    """The application over a source, judged once."""
    access = Access(LOOPBACK, "keyong-pages-8741")
    watch = Watch(source, fingerprint)
    watch.size = watch.indexed = source.index.bring_up()
    watch.judgement = judge(source.path, fingerprint)
    return Site(access, application(source, watch, access))


@pytest.fixture(scope="session")
def site(source: Source, mill: Mill) -> Site:
    """The mill's pages."""
    return make_site(source, mill.fingerprint)
