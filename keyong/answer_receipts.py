"""Who is in an answer, by the nodes' own signed receipts: what the coordinator says of it is not believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keyong.receipts import Receipts, ReceivedError
from keyong.rosters import Rosters

if TYPE_CHECKING:
    from federation.statements import JobPlan
    from keyong.client import Client

FOLDER = "receipts/"
CELLS = "cells"
ANSWER_FILE = "answer.bfv"
SUMMARY_FILE = "summary.json"


def delivered(client: Client, files: Mapping[str, bytes]) -> tuple[bytes, list[str]]:
    """The answer as the coordinator gave it out, unread, and the nodes that it says are in it, sorted.

    Raises:
        ReceivedError: it left one out, or the summary names no nodes.
    """
    coordinator = client.home.roster.coordinator.id
    if missing := [name for name in (ANSWER_FILE, SUMMARY_FILE) if name not in files]:
        raise ReceivedError(
            "the coordinator {coordinator} gave out the result without {files}",
            hint="tell its operator; to ask again costs another use of each agreement",
            coordinator=coordinator,
            files=", ".join(missing),
        )
    try:
        return files[ANSWER_FILE], sorted(map(str, json.loads(files[SUMMARY_FILE])["contributed"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ReceivedError(
            "the coordinator {coordinator} does not say which nodes are in the answer: its {file} is malformed",
            hint="tell its operator; to ask again costs another use of each agreement",
            coordinator=coordinator,
            file=SUMMARY_FILE,
        ) from None


def contributors(client: Client, files: Mapping[str, bytes], plan: JobPlan, digest: str) -> tuple[str, ...]:
    """The nodes whose sums are in a query's answer: each with a receipt of its own of the last stage, proved in its ledger.

    Args:
        files: of the result.
        digest: of the plan.

    Raises:
        ReceivedError: a receipt is of another plan, or without its proof.
        VerificationError: a receipt, or its proof, does not hold.
    """
    named = {path.removeprefix(FOLDER): data for path, data in files.items() if path.startswith(FOLDER)}
    told = {name: data for name, data in named.items() if "/" not in name}
    # Nothing of them is written: no folder holds a query's result.
    held = Receipts(client, client.home.path, plan, digest, Rosters(client.home.history), told).held
    found = []
    for node, receipts in held.items():
        good = [one for one in receipts if one.receipt.stage == CELLS and one.receipt.outcome == "ok"]
        if good and all(one.proved is None for one in good):
            raise ReceivedError("the receipt of {node} is without its proof", node=node)
        if good:
            found.append(node)
    return tuple(sorted(found))
