"""What one exchange of a job gave, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordinator.answers import Answer
from federation.errors import DeniedError, KeyongError
from federation.jobs.codec import Content
from federation.secagg import Aggregate

REPLAY = "replay"
"""What a node says to a step that it took and whose answer it has lost."""


class RoundFailedError(KeyongError):
    """Too few nodes answered for the plan's minimum."""

    code = "too-few-participants"
    exit_code = 5


class NodesAwayError(RoundFailedError):
    """Too few nodes answered, and enough of those that did not may come back: the job can go on then."""


class ResumeDiffersError(KeyongError):
    """The server part, run again, asked for something else than it had asked for before."""

    code = "resume-differs"


class JobDeniedError(DeniedError):
    """Nodes refused, so that fewer than the plan's minimum remain."""

    code = "job-denied"


class RoundRefusedError(KeyongError):
    """What the app wants sent is not what the plan holds; no node was asked."""

    code = "exchange"


@dataclass
class Exchange:
    """What an exchange gave: the aggregate (or single replies under ``each``), every receipt, who fell out."""

    round: int
    stage: str
    sent: Content
    answers: list[Answer] = field(default_factory=list)
    fallen: dict[str, str] = field(default_factory=dict)
    contributed: list[str] = field(default_factory=list)
    aggregate: Aggregate | None = None
    replies: dict[str, Content] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    """Rows as each node's receipt states them, of those that contributed."""
    content: str = ""
    """Digest of what was sent."""
    body: memoryview | None = None
    """The bytes of the aggregate's arrays where they lie in a sealed file."""
    replayed: bool = False
    """From the recording: no node was asked."""
    clauses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The decision of each node that refused the step by a clause: for the requester, who is party to the agreement."""
