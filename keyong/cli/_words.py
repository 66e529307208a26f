"""What travels as a code, in words: how jobs stand, what happened to them, how far receipts are vouched for.

JSON has the codes; whoever reads text reads them in the language that is spoken. A code that is not known here, of a newer
coordinator, is shown as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyong.text import STATUSES, Said, mark, translate, translate_data

EVENTS: Mapping[str, str] = {
    **STATUSES,
    "queued": mark("waits"),
    "started": mark("started"),
    "permitted": mark("permitted"),
    "round": mark("round ended"),
    "node-unavailable": mark("cannot be reached"),
    "fell-out": mark("fell out"),
    "returned": mark("is back"),
    "resumed": mark("resumed"),
    "not-resumable": mark("too large to be resumed"),
}
DETAILS: Mapping[str, str] = {
    "node": mark("node"),
    "participants": mark("participants"),
    "place": mark("place"),
    "round": mark("round"),
    "exchange": mark("exchange"),
    "exchanges": mark("exchanges"),
    "total_weight": mark("total weight"),
    "reason": mark("reason"),
    "hint": mark("what to do"),
    "exit": mark("exit code"),
}
"""What events carry."""
ANCHORINGS: Mapping[str, str] = {
    "unanchored": mark("unanchored"),
    "committed": mark("committed"),
    "partly witnessed": mark("partly witnessed"),
    "witnessed": mark("witnessed"),
    "final": mark("final"),
}
ROLES: Mapping[str, str] = {
    "member": mark("member"),
    "coordinator": mark("coordinator"),
    "analyst": mark("analyst"),
    "auditor": mark("auditor"),
}
"""What a member of a consortium is."""
KEYS: Mapping[str, str] = {
    "statement": mark("statement"),
    "ledger": mark("ledger"),
    "witness": mark("witness"),
    "tls": "TLS",
}
"""What a key is for."""
TYPES: Mapping[str, str] = {
    "integer": mark("integer"),
    "number": mark("number"),
    "text": mark("text"),
    "boolean": mark("boolean"),
    "timestamp": mark("timestamp"),
    "date": mark("date"),
}
"""Of columns."""
DENIALS: Mapping[str, str] = {"denied": mark("denied"), "outcome": mark("outcome")}
"""Which entry of the ledger tells of a refusal."""
STAGES: Mapping[str, str] = {"train": mark("training"), "evaluate": mark("evaluation"), "query": mark("query")}
REASONS = (
    mark("the coordinator was restarted"),
    mark("the coordinator was stopped"),
    mark("cancelled by the requester"),
    mark("internal error; the coordinator's log has it"),
    mark("how the job ended could not be recorded"),
    mark("not taken on"),
    mark("that it goes on could not be recorded"),
)
"""Said by coordinators where no error of ours ended a job."""


def listed(known: Mapping[str, str], codes: Iterable[object]) -> str:
    """Several codes in words, with commas."""
    return translate(", ").join(word(known, one) for one in codes)


def word(words: Mapping[str, str], code: object) -> str:
    """A code in words, in the language spoken now; the code itself where it has none here."""
    return translate_data(words[str(code)]) if str(code) in words else str(code)


def protection(term: str) -> str:
    """How replies are protected; what is not is said aloud."""
    return translate("UNPROTECTED") if term == "fed:none" else term


def why(data: Mapping[str, Any]) -> tuple[str, str]:
    """Why a job ended and what to do, as the coordinator said it, in the language spoken now."""
    return Said(data).spoken(), Said(data, "hint").spoken()
