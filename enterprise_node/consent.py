"""The owner's approvals of code, as a decision sees them.

An approval is of one version of the code (its digest), under one agreement, for one output schema, up to a number of bits
that leave: what the owner was shown. Anything else waits for its own approval. The table lives in the ledger's database
and changes only together with the entry that says so.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from enterprise_node.admission import AdmittedPlan
from federation.crypto import canonical_json, digest
from federation.statements import JobPlan

CONSENT_SCHEMA = (
    """CREATE TABLE approval (
        id TEXT PRIMARY KEY, code TEXT NOT NULL, agreement TEXT NOT NULL, app TEXT NOT NULL, requester TEXT NOT NULL,
        leak_bits INTEGER NOT NULL, state TEXT NOT NULL, entry INTEGER NOT NULL, at TEXT NOT NULL) STRICT""",
)
PRIVATE_SCHEMA = (
    "ALTER TABLE approval ADD COLUMN micro_rho INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE approval ADD COLUMN config TEXT NOT NULL DEFAULT ''",
)
"""The owner's word that code is differentially private by itself: what a job of it costs, with exactly which config."""
GRANTED, REFUSED, WITHDRAWN = "granted", "refused", "withdrawn"
_MISSING = {REFUSED: "refused by the owner", WITHDRAWN: "withdrawn by the owner"}


@dataclass(frozen=True)
class Consent:
    """The approval that a use rests on, in words for the record; or why there is none."""

    text: str = ""
    missing: str = "not approved yet"
    micro_rho: int = 0
    """What a job of this code with this config costs in privacy budget, by the owner's word; 0 where there is none."""


NOT_ASKED = Consent()


def approval_id(plan: JobPlan, agreement: str) -> str:
    """What an approval of this plan's code would be called: the same for all plans that it would cover."""
    subject = {"agreement": agreement, "code": plan.code, "outputs": plan.outputs.model_dump(mode="json")}
    return digest(canonical_json(subject))


def config_digest(plan: JobPlan) -> str:
    """What noise inside code hangs on besides the code: its config, and how often it runs."""
    return digest(canonical_json({"actions": list(plan.actions), "rounds": plan.rounds, "run_config": plan.run_config}))


def consent_within(connection: sqlite3.Connection, admitted: AdmittedPlan) -> Consent:
    """The owner's word on a plan's code, as this transaction sees it."""
    name = approval_id(admitted.plan, admitted.agreement_digest)
    row = connection.execute(
        "SELECT state, leak_bits, entry, micro_rho, config FROM approval WHERE id = ?", (name,)
    ).fetchone()
    if row is None:
        return NOT_ASKED
    state, leak_bits, entry, micro_rho, config = row
    if state != GRANTED:
        return Consent(missing=_MISSING.get(state, "not approved yet"))
    if admitted.leak_bound > leak_bits:
        return Consent(missing=f"approved for {leak_bits} bits, {admitted.leak_bound} are asked for")
    private = micro_rho if config == config_digest(admitted.plan) else 0
    return Consent(text=f"approved: {name}, entry {entry}, for at most {leak_bits} bits", micro_rho=private)
