"""What another party may hear of how a step ended: a closed enumeration of eight, so that no outcome carries more than 3 bits.

A job's code can end its step as it likes: raise what it wants, reply what the gate refuses, run into a limit. Each ending
that others could tell apart is a letter of an alphabet that it can spell with. So what happened exactly, and every text,
stays with the owner (field ``own`` of the OUTCOME, ``keyong job logs`` on the node); what leaves is one of these. Endings that
job code has no hand in (a revoked agreement, a changed file, an isolation that cannot be had) keep their own codes.
"""

from __future__ import annotations

from enterprise_node.output_gate import OutputRefusedError
from enterprise_node.session import JobFailedError
from federation.bilateral import BilateralFailedError
from federation.errors import KeyongError
from federation.query import QueryFailedError
from federation.secagg import EncodingError, WeightError

APP_FAILED, OUTPUT_REFUSED, NOT_RELEASED, INTERNAL = "app-exception", "output-refused", "not-released", "internal"
LIMIT_MEMORY, LIMIT_WALL, LIMIT_REACHED = "limit-memory", "limit-wall", "limit-reached"
VISIBLE = ("", APP_FAILED, OUTPUT_REFUSED, LIMIT_MEMORY, LIMIT_WALL, LIMIT_REACHED, INTERNAL, NOT_RELEASED)
"""Every ending that a job's code can bring about, as others see it; empty is ``ok``."""

_MEMORY = frozenset({"out-of-memory", LIMIT_MEMORY})


def visible(error: KeyongError) -> str:
    """The code under which an ending is told to others."""
    if isinstance(error, OutputRefusedError):
        return OUTPUT_REFUSED
    if isinstance(error, EncodingError) and not isinstance(error, WeightError):
        return OUTPUT_REFUSED
    if isinstance(error, QueryFailedError | BilateralFailedError):  # which of them it was would be a bit about the rows
        return APP_FAILED
    if not isinstance(error, JobFailedError):
        return error.code
    if error.code in _MEMORY:
        return LIMIT_MEMORY
    if error.code == LIMIT_WALL:
        return LIMIT_WALL
    if error.code.startswith("limit-"):
        return LIMIT_REACHED
    return OUTPUT_REFUSED if error.code.startswith("output-") else APP_FAILED
