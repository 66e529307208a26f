"""How many of our keys another company has, too: suppliers, say. Neither shows the other any."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.bilateral import LEAST_KEYS, LEAST_STEP, Box, intersection_micro_rho, size_variance
from federation.crypto import digest
from federation.errors import UnavailableError, UsageError
from federation.home import now
from federation.policy import demands, parse_policy
from federation.policy.vocabulary import INTERSECT
from federation.privacy import STANDARD, half_width
from federation.query import unpack_parts
from federation.statements import Envelope, JobPlan
from federation.statements.bilateral import BlindAnswer, IntersectionPlan
from federation.statements.code import CodeBundle
from federation.wire import messages as m
from federation.wire.messages import Invoked, unpack
from keyong.bilateral import carried, find, planned, receipt_said
from keyong.bilateral_session import answer_blinded

if TYPE_CHECKING:
    from keyong.choosing import Choice
    from keyong.client import Client
    from sandbox import Runtime, Tier

VALIDITY = timedelta(hours=1)
UPLOAD_SECONDS = 300.0
"""Longest that our half may take to the coordinator: 6 MB at most."""


@dataclass(frozen=True)
class Intersected:
    """What an intersection said.

    Attributes:
        size: a multiple of the plan's step; None where it is below ``least``.
        half_width: the size lies within so much of it, with a probability of 0.95; rounding included.
        mine: distinct keys that were asked about.
    """

    job: str
    dataset: str
    column: str
    size: int | None
    least: int
    half_width: float
    mine: int
    micro_rho: int

    def document(self) -> dict[str, Any]:
        """As data: all of it, for there is nothing else."""
        return {
            "job": self.job,
            "dataset": self.dataset,
            "column": self.column,
            "size": self.size,
            "below": self.least if self.size is None else None,
            "half_width": self.half_width,
            "mine": self.mine,
            "micro_rho": self.micro_rho,
            "protection": "fed:bilateral",
        }


@dataclass(frozen=True)
class PreparedIntersection:
    """An intersection that could be asked."""

    choice: Choice
    purpose: str
    plan: IntersectionPlan
    box: Box
    keys: tuple[str, ...]

    @property
    def dataset(self) -> str:
        """``MEMBER/DATASET``."""
        described = self.choice.published.description
        return f"{described.provider}/{described.dataset}"

    @property
    def micro_rho(self) -> int:
        """What it costs."""
        return intersection_micro_rho(self.plan)


def read_keys(path: Path, column: str | None = None) -> list[str]:
    """The keys in a file: a column of a CSV or Parquet file, or the lines of any other.

    Args:
        column: its name; needed where there are several.

    Raises:
        UsageError: there is no such file or column.
    """
    try:
        if path.suffix.lower() not in (".csv", ".parquet"):
            return path.read_text(encoding="utf-8").splitlines()
        import pyarrow as pa
        from pyarrow import csv, parquet

        try:
            table = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
        except pa.ArrowInvalid:
            raise UsageError("{path} is no table", path=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        raise UsageError("{path} cannot be read: {reason}", path=str(path), reason=reason) from None
    name = column or (table.column_names[0] if len(table.column_names) == 1 else "")
    if name not in table.column_names:
        raise UsageError(
            "which column of {path} holds the keys is not known",
            hint="give --keys-column with one of: {known}",
            path=str(path),
            known=", ".join(table.column_names),
        )
    return [str(value) for value in table.column(name).to_pylist() if value is not None]


def prepare_intersection(
    client: Client,
    keys: Sequence[str],
    on: str,
    column: str,
    purpose: str,
    *,
    rho: int = STANDARD.query,
    least: int = LEAST_KEYS,
    step: int = LEAST_STEP,
) -> PreparedIntersection:
    """Find the dataset and its agreement, and lay out the intersection.

    Args:
        on: ``MEMBER/DATASET``.
        rho: micro-rho that it may cost; 0 for no noise, which the agreement has to permit in words.
    """
    choice = find(client, on, purpose, "fed:psi")
    described = choice.published.description
    if column not in {one.name for one in described.columns}:
        raise UsageError("the dataset has no column {column}", hint="see `keyong catalog show`", column=column)
    unit_keys = 1 if described.privacy_unit == column else max(1, described.unit_rows)
    box = Box.fresh()
    plan = IntersectionPlan(
        column=column,
        least=max(least, demands(parse_policy(choice.agreement.policy), INTERSECT).group),
        step=step,
        unit_keys=unit_keys,
        variance=size_variance(unit_keys, rho) if rho else "0",
        box=box.public,
    )
    return PreparedIntersection(choice, purpose, plan, box, tuple(keys))


def intersect(
    client: Client,
    prepared: PreparedIntersection,
    runtime: Runtime,
    tier: Tier,
    confirm: Callable[[JobPlan], None] = lambda plan: None,
) -> Intersected:
    """Ask an intersection.

    Args:
        confirm: called with the plan before it is signed; may raise.

    Raises:
        BilateralEndedError: it ended without an answer; the code says why.
    """
    check_installed(runtime)
    asked, bundle = prepared.plan, CodeBundle({})
    plan = planned(client.home, prepared.choice, prepared.purpose, runtime.digest, bundle, asked, prepared.micro_rho)
    confirm(plan)
    mine: list[int] = []

    def blinded(job: str, digest_of_plan: str) -> None:
        given = client.call("bilateral.take", m.JobRef(job=job), timeout=UPLOAD_SECONDS)
        # what is answered is the node's own, by its receipt: the coordinator could ask about keys of its choice
        envelope = unpack(Invoked.from_bytes(given.header).receipt)
        receipt = receipt_said(client, envelope, plan, digest_of_plan, "blind", given.body)
        count, (setup, first, second) = answer_blinded(runtime, tier, unpack_parts(given.body), prepared.keys)
        mine.append(count)
        word = _word(client, digest_of_plan, receipt.output, setup, first + second)
        parts = [word.to_bytes(), setup, first, second]
        head = struct.pack("<4I", *(len(part) for part in parts))
        client.call("bilateral.answer", m.JobRef(job=job), [head, *parts], timeout=UPLOAD_SECONDS)

    outcome = carried(client, plan, bundle, "size", blinded)
    size = prepared.box.open(outcome.plan, outcome.answer).size
    variance = int(asked.variance)
    wide = (half_width(variance) if variance else 0.0) + asked.step / 2
    return Intersected(outcome.job, prepared.dataset, asked.column, size, asked.least, wide, mine[0], outcome.micro_rho)


def check_installed(runtime: Runtime) -> None:
    """Raise where the runtime has no set intersection; the node's is the same, so nobody need be asked.

    Raises:
        UnavailableError: with how to get it.
    """
    if not (runtime.path / "site-packages" / "private_set_intersection").is_dir():
        raise UnavailableError(
            "set intersection is not installed here",
            hint="pip install 'keyong[psi]' at every member, then build the runtime anew: keyong node runtime build",
            code="psi-missing",
        )


def _word(client: Client, plan: str, blinded: str, setup: bytes, responses: bytes) -> Envelope:
    at = now()
    return BlindAnswer(
        issued=at,
        expires=at + VALIDITY,
        plan=plan,
        blinded=blinded,
        setup=digest(setup),
        response=digest(responses),
    ).seal(client.home.key("statement"))
