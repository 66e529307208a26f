"""What a score and an intersection have in common at the asker: one dataset, one plan, one job, one sealed answer.

agreement -> plan, signed -> [coordinator, node] -> answer -> its receipt verified -> opened with a key made for it
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from federation.bilateral import BilateralVoidError, bilateral_bits
from federation.errors import KeyongError, UsageError
from federation.home import Home, now
from federation.policy import demands, parse_policy, refusal
from federation.privacy import MICRO, STANDARD
from federation.privacy import exact as number
from federation.secagg import choose_encoding, reply_digest
from federation.statements import DecisionRecord, Envelope, JobPlan, OutputSchema, PlannedDataset, Receipt, StageOutput
from federation.statements.bilateral import IntersectionPlan, ScorePlan
from federation.statements.code import CodeBundle
from federation.statements.plan import Action
from keyong.choosing import Choice, choose
from keyong.text import Said, translate_data

if TYPE_CHECKING:
    from keyong.client import Client

ANSWER_FILE = "answer.sealed"
VALIDITY = timedelta(hours=1)
STEP_SECONDS = 600
"""What a node may take for one step of a bilateral action."""
MEMORY_BYTES = 2 * 2**30
MOST_BYTES = 2**24
"""Largest reply: 50,000 keys, blinded twice, take 4 MB."""
_UNKNOWN = "sha256:" + "0" * 64


class BilateralEndedError(KeyongError):
    """A bilateral action ended without an answer."""

    code = "bilateral-ended"


@dataclass(frozen=True)
class Outcome:
    """A sealed answer, by a receipt that was verified.

    Attributes:
        job: its id at the coordinator.
        plan: digest of the plan.
        micro_rho: what it cost of the node's privacy budget, as its receipt says.
    """

    job: str
    plan: str
    answer: bytes
    micro_rho: int


def micro_rho(rho: str | None, exact: bool) -> int:
    """The budget of one bilateral action from a decimal of rho; that of one query by default, 0 for an exact answer.

    Raises:
        UsageError: it is no budget, or an exact answer is given one.
    """
    if exact:
        if rho is not None:
            raise UsageError("an exact answer adds no noise, so it takes no --rho")
        return 0
    found = STANDARD.query if rho is None else int(number(rho) * MICRO)
    if not 1 <= found < 2**52:
        raise UsageError("a privacy budget is at least rho 0.000001", hint="write it as a decimal, such as --rho 0.05")
    return found


def find(client: Client, on: str, purpose: str, action: Action) -> Choice:
    """The dataset that is asked, with the agreement that it rests on.

    Raises:
        NoAgreementError, UsageError: there is no such dataset, or no agreement for it.
    """
    (choice,) = choose(
        client.home,
        client.holdings,
        client.catalog(),
        purpose=purpose,
        actions=[action],
        code=_UNKNOWN,
        datasets=[on],
    )
    return choice


def planned(
    home: Home,
    choice: Choice,
    purpose: str,
    runtime: str,
    bundle: CodeBundle,
    asked: ScorePlan | IntersectionPlan,
    micro_rho: int,
) -> JobPlan:
    """The plan, unsigned."""
    at, one = now(), choice.published.description
    scores = isinstance(asked, ScorePlan)
    action: Action = "fed:score" if scores else "fed:psi"
    expires = min(at + VALIDITY, choice.agreement.expires)
    return JobPlan(
        issued=at,
        expires=max(expires, at + timedelta(seconds=1)),
        id=f"urn:uuid:{uuid.uuid4()}",
        requester=home.identity.member,
        coordinator=home.roster.coordinator.id,
        roster=home.history.digest,
        actions=(action,),
        purpose=purpose,
        code=bundle.digest,
        runtime=runtime,
        cohort=(
            PlannedDataset(
                node=one.provider, dataset=one.dataset, data_version=one.data_version, agreement=choice.holding.digest
            ),
        ),
        rounds=1,
        run_config={},
        outputs=OutputSchema(train=StageOutput(sent=False), evaluate=StageOutput(sent=False), maximal_bytes=MOST_BYTES),
        encoding=choose_encoding([(one.rows_at_least, one.rows_at_most)]),
        protection="fed:bilateral",
        minimal_participants=1,
        round_seconds=STEP_SECONDS,
        memory_bytes=MEMORY_BYTES,
        micro_rho=micro_rho,
        leak_bits=bilateral_bits(asked),
        slot_seconds=demands(parse_policy(choice.agreement.policy), action).slot_seconds,
        anchoring="committed",
        score=asked if isinstance(asked, ScorePlan) else None,
        intersection=asked if isinstance(asked, IntersectionPlan) else None,
    )


def carried(
    client: Client, plan: JobPlan, bundle: CodeBundle, stage: str, blinded: Callable[[str, str], None] | None = None
) -> Outcome:
    """Sign a plan, have it carried out, and verify whose answer came back.

    Args:
        stage: the plan's last, whose reply is the answer.
        blinded: called with the job and the plan's digest once the node's blinded keys are there to be answered.

    Raises:
        BilateralEndedError: it ended without an answer; the code says why.
        BilateralVoidError: the answer is not the node's.
    """
    envelope = plan.seal(client.home.key("statement"))
    recorded = client.ledger.append(
        "plan", {"plan": envelope.to_bytes(), "digest": envelope.digest, "purpose": plan.purpose}
    )
    status, code = "not-submitted", ""
    try:
        job = client.submit(envelope, bundle.to_bytes())
        status = "failed"
        _followed(client, job, envelope.digest, blinded)
        files = client.result_files(job)
        receipt = _receipt(client, plan, envelope.digest, stage, files)
        status = "done"
    except KeyongError as error:
        code = error.code
        raise
    finally:
        fields = {"job": plan.id, "plan": envelope.digest, "status": status, "code": code}
        client.ledger.append("result", fields, ref=recorded.index)
    return Outcome(job, envelope.digest, files[ANSWER_FILE], receipt.micro_rho)


def receipt_said(
    client: Client, envelope: Envelope, plan: JobPlan, digest: str, stage: str, body: bytes | memoryview
) -> Receipt:
    """A node's receipt of a step, that of exactly these bytes.

    Raises:
        BilateralVoidError: it is for something else.
        VerificationError subclasses: the signature does not hold.
    """
    (share,) = plan.cohort
    receipt = Receipt.open(envelope, [client.home.public_key(share.node)], now())
    said = (receipt.node, receipt.plan, receipt.stage, receipt.outcome, receipt.output)
    if said != (share.node, digest, stage, "ok", reply_digest([body])):
        raise BilateralVoidError("the answer is not the one that the node's receipt names")
    return receipt


def _receipt(client: Client, plan: JobPlan, digest: str, stage: str, files: dict[str, bytes]) -> Receipt:
    if ANSWER_FILE not in files:
        raise BilateralVoidError(
            "the coordinator gave out the result without {file}",
            hint="tell its operator; to ask again costs another use of each agreement",
            file=ANSWER_FILE,
        )
    names = [name for name in files if name.startswith("receipts/") and name.endswith(".receipt.json")]
    for name in sorted(names, reverse=True):
        if f"-{stage}-" in name:
            return receipt_said(client, Envelope.from_bytes(files[name]), plan, digest, stage, files[ANSWER_FILE])
    raise BilateralVoidError("the answer came without a receipt of the node")


def _followed(client: Client, job: str, digest: str, blinded: Callable[[str, str], None] | None) -> None:
    told: list[dict[str, Any]] = []
    for event in client.events(job):
        if event.kind == "blinded" and blinded is not None:
            try:
                blinded(job, digest)
            except BaseException:
                client.cancel(job)
                raise
        elif event.kind == "done":
            return
        elif "node" in event.data and event.kind in ("denied", "fell-out", "node-unavailable"):
            told.append(event.data)
        elif event.kind in ("failed", "denied", "cancelled", "interrupted"):
            raise _ended(event.kind, event.data, told)
    raise _ended("failed", {}, told)


def _ended(kind: str, data: dict[str, Any], told: list[dict[str, Any]]) -> BilateralEndedError:
    """The refusal in words: the clause's own where one refused, the code's otherwise."""
    from keyong.cli._refusals import CODES

    first = told[0] if told else data
    code = str(first.get("code", ""))
    if first.get("clause") and code not in CODES:
        with contextlib.suppress(ValidationError, ValueError):
            why = refusal(DecisionRecord.model_validate(dict(first["clause"])))
            why_params = {name: value for name, value in why.params.items() if name != "code"}
            error = BilateralEndedError(why.template, hint=why.hint_template, code=why.code, **why_params)
            error.exit_code = 3  # type: ignore[misc]
            return error
    sentence, hint = CODES.get(code, ("", ""))
    reason, fix = translate_data(sentence) or Said(data, otherwise=kind), translate_data(hint)
    error = BilateralEndedError(
        "it was not answered: {reason} ({clause})",
        hint="{fix}",
        code=code or None,
        reason=reason,
        clause=code or kind,
        fix=fix,
    )
    error.exit_code = 3 if kind == "denied" or told else int(data.get("exit", 1))  # type: ignore[misc]
    return error
