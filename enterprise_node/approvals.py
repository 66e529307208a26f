"""Code that waits for the owner's approval, and the owner's word on it.

A plan that its agreement permits but for the approval leaves its code here: the bundle under its digest (``code/``), the plan
beside it (``approvals/``). The owner reads both and grants or refuses; that is an ``approval`` entry, in whose transaction the
row changes that decisions read (:mod:`enterprise_node.consent`). Files here are shown, never run: what runs comes with its plan
and is compared with the digest. An attacker who can modify them can mislead the owner's eye, so they are checked against their
digests whenever they are read.
"""

from __future__ import annotations

import json
import sqlite3
import tomllib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import structlog

from enterprise_node.admission import AdmittedPlan
from enterprise_node.consent import GRANTED, REFUSED, WITHDRAWN, approval_id, config_digest
from federation.crypto import write_private
from federation.errors import KeyongError, UsageError, VerificationError
from federation.home import Home
from federation.ledger import Appended, Ledger
from federation.privacy import rho_text
from federation.secagg import worst_bits
from federation.statements import Envelope, JobPlan, instant_text
from federation.statements.code import CodeBundle

log = structlog.get_logger("keyong.node")

PENDING = 64
"""Codes that may wait; of one requester's beyond its share, the oldest goes first."""
CODE_BYTES = 512 * 2**20
"""Bundles kept for reading, those of granted codes aside."""
State = Literal["waiting", "granted", "refused", "withdrawn"]


class NoSuchApprovalError(UsageError):
    """No code of that name waits here, or was decided on."""

    code = "no-such-approval"


@dataclass(frozen=True)
class Approval:
    """One code under one agreement with one output schema, and how it stands."""

    id: str
    code: str
    agreement: str
    app: str
    requester: str
    leak_bits: int
    state: State
    entry: int
    at: str
    plan: JobPlan | None
    """The plan that asked last; None where its file is gone."""

    @property
    def name(self) -> str:
        """What the owner calls it."""
        return self.id.removeprefix("sha256:")[:12]


def app_name(bundle: CodeBundle) -> str:
    """What an app calls itself: publisher and project; for finding its versions, trusted for nothing else."""
    try:
        document = tomllib.loads(bundle.files["pyproject.toml"].decode())
        name = f"{document['tool']['flwr']['app']['publisher']}/{document['project']['name']}"
    except (KeyError, TypeError, ValueError, RecursionError):
        return "?"
    return name[:120]


class Approvals:
    """The approvals of one home; the node asks, the owner's command reads and decides."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._home = home
        self._ledger = ledger

    # -- the node's side ----------------------------------------------------------------------------------------------

    def ask(self, admitted: AdmittedPlan, bundle: CodeBundle) -> None:
        """Put a plan's code before the owner; blocking. What cannot be kept is asked for again with the next try."""
        name = approval_id(admitted.plan, admitted.agreement_digest)
        request = {
            "plan": admitted.envelope.to_bytes().decode(),
            "agreement": admitted.agreement_digest,
            "app": app_name(bundle),
        }
        try:
            self._make_room(admitted.plan.requester)
            path = self._code(bundle.digest)
            if not path.exists():
                write_private(path, bundle.to_bytes())
            write_private(self._request(name), json.dumps(request).encode(), replace=True)
        except (OSError, KeyongError) as error:
            log.warning("approval-not-asked", approval=name, error=type(error).__name__)
            return
        log.info("approval-asked", approval=name, code=admitted.plan.code, requester=admitted.plan.requester)

    # -- the owner's side ---------------------------------------------------------------------------------------------

    def known(self) -> list[Approval]:
        """What waits, then what was decided, newest first."""
        with self._ledger.reader() as connection:
            rows = connection.execute(
                "SELECT id, code, agreement, app, requester, leak_bits, state, entry, at FROM approval ORDER BY entry DESC"
            ).fetchall()
        decided = {one.id: one for one in (self._decided(row) for row in rows)}
        waiting = [self._waiting(path.stem, decided) for path in self._requests()]
        return [*(one for one in waiting if one is not None), *decided.values()]

    def find(self, name: str) -> Approval:
        """The one that is called so, or whose name begins so."""
        bare = name.removeprefix("sha256:")
        hits = [one for one in self.known() if one.id.removeprefix("sha256:").startswith(bare)]
        if not hits or len({one.id for one in hits}) != 1 or len(bare) < 4:
            raise NoSuchApprovalError(
                "no code called {name} waits for approval here",
                hint="see `keyong node approvals list`; give at least the first four characters",
                name=name[:64],
            )
        return hits[0]

    def bundle(self, approval: Approval) -> CodeBundle:
        """The code itself, compared with its digest."""
        try:
            bundle = CodeBundle.from_bytes(self._code(approval.code).read_bytes())
        except OSError:
            raise NoSuchApprovalError(
                "the code {digest} is not kept here any more",
                hint="ask the requester to run the job again: its code then comes with it",
                digest=approval.code,
            ) from None
        if bundle.digest != approval.code:
            raise VerificationError("the code that is kept here is not the one of that digest", code="code-mismatch")
        return bundle

    def before(self, approval: Approval) -> Approval | None:
        """The version of the same app, of the same requester, that was granted last before this one."""
        for one in self.known():
            same = (one.app, one.requester) == (approval.app, approval.requester) and one.app != "?"
            if same and one.state == GRANTED and one.code != approval.code:
                return one
        return None

    def grant(self, approval: Approval, note: str, at: datetime, micro_rho: int = 0) -> Appended:
        """Approve what ``approval`` shows, up to the bits that its plan may carry out.

        Args:
            micro_rho: what a job of it costs in privacy budget, where the owner takes the code to be differentially private by
                itself; it holds for the plan's config and rounds alone. 0 where not.
        """
        if approval.plan is None:
            raise NoSuchApprovalError("{name} has no plan that asks for it", name=approval.name)
        self.bundle(approval)  # nobody approves what is not there to be read
        config = config_digest(approval.plan) if micro_rho else ""
        return self._decide(approval, GRANTED, worst_bits(approval.plan), note, at, micro_rho, config)

    def refuse(self, approval: Approval, note: str, at: datetime) -> Appended:
        """Refuse it; a granted one is withdrawn, which holds from the next step on."""
        state = WITHDRAWN if approval.state == GRANTED else REFUSED
        held = next((one for one in self.known() if one.id == approval.id and one.state == GRANTED), None)
        if approval.state == "waiting" and held is not None:  # more bits are refused; what was granted stays granted
            appended = self._ledger.append("approval", self._fields(approval, REFUSED, approval.leak_bits, note))
            self._request(approval.id).unlink(missing_ok=True)
            return appended
        return self._decide(approval, state, 0, note, at)

    def _decide(
        self,
        approval: Approval,
        state: str,
        leak_bits: int,
        note: str,
        at: datetime,
        micro_rho: int = 0,
        config: str = "",
    ) -> Appended:
        def put(connection: sqlite3.Connection) -> None:
            index = connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0]
            connection.execute(
                "INSERT INTO approval (id, code, agreement, app, requester, leak_bits, state, entry, at, micro_rho,"
                " config) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET leak_bits = excluded.leak_bits,"
                " state = excluded.state, entry = excluded.entry, at = excluded.at, micro_rho = excluded.micro_rho,"
                " config = excluded.config",
                (
                    *(approval.id, approval.code, approval.agreement, approval.app, approval.requester),
                    *(leak_bits, state, index, instant_text(at), micro_rho, config),
                ),
            )

        fields = self._fields(approval, state, leak_bits, note)
        if micro_rho:
            fields |= {"rho": rho_text(micro_rho), "config": config}
        return self._ledger.append("approval", fields, apply=put)

    def _fields(self, approval: Approval, state: str, leak_bits: int, note: str) -> dict[str, object]:
        return {
            "approval": approval.id,
            "state": state,
            "code": approval.code,
            "agreement": approval.agreement,
            "app": approval.app,
            "requester": approval.requester,
            "leak_bits": leak_bits,
            "purpose": approval.plan.purpose if approval.plan else "",
            "note": note,
        }

    # -- files --------------------------------------------------------------------------------------------------------

    def _decided(self, row: tuple[Any, ...]) -> Approval:
        name, code, agreement, app, requester, bits, state, entry, at = row
        return Approval(name, code, agreement, app, requester, bits, state, entry, at, self._plan(name))

    def _waiting(self, stem: str, decided: dict[str, Approval]) -> Approval | None:
        """A request that no decision covers: new, or for more bits than were granted."""
        name = f"sha256:{stem}"
        plan = self._plan(name)
        if plan is None:
            return None
        bits, before = worst_bits(plan), decided.get(name)
        if before is not None and (before.state != GRANTED or bits <= before.leak_bits):
            return None
        ground = str(self._read(name).get("agreement", ""))
        app = str(self._read(name).get("app", "?"))[:120]
        asked = instant_text(plan.issued)
        return Approval(name, plan.code, ground, app, plan.requester, bits, "waiting", -1, asked, plan)

    def _plan(self, name: str) -> JobPlan | None:
        try:
            plan = JobPlan.read(Envelope.from_bytes(str(self._read(name)["plan"]).encode()))
        except (KeyError, KeyongError):
            return None
        return plan if approval_id(plan, str(self._read(name).get("agreement", ""))) == name else None

    def _read(self, name: str) -> dict[str, object]:
        try:
            return dict(json.loads(self._request(name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def _requests(self) -> list[Path]:
        folder = self._home.path / "approvals"
        found = [path for path in folder.glob("*.json") if path.is_file()] if folder.is_dir() else []
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)

    def _make_room(self, requester: str) -> None:
        """Let the oldest requests that wait go, and codes that no request and no grant names."""
        waiting = [one for one in self.known() if one.state == "waiting"]
        mine = [one for one in waiting if one.requester == requester]
        excess = mine if len(mine) >= PENDING // 2 else waiting if len(waiting) >= PENDING else []
        if excess:
            self._request(excess[-1].id).unlink(missing_ok=True)
        kept = {one.code for one in self.known() if one.state in ("waiting", GRANTED)}
        codes = sorted(self._home.folder("code").glob("*.bundle"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in codes:
            total += path.stat().st_size
            if total > CODE_BYTES and f"sha256:{path.stem}" not in kept:
                path.unlink(missing_ok=True)

    def _request(self, name: str) -> Path:
        return self._home.folder("approvals") / f"{name.removeprefix('sha256:')}.json"

    def _code(self, code: str) -> Path:
        return self._home.folder("code") / f"{code.removeprefix('sha256:')}.bundle"
