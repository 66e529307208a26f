"""The error that a denied decision becomes."""

from __future__ import annotations

from federation.errors import DeniedError
from federation.statements import DecisionRecord


class PolicyDeniedError(DeniedError):
    """An agreement does not permit a request; ``record`` is the decision, ``code`` the clause.

    Shown to the parties of the agreement only. Whoever else hears of the refusal hears ``code`` at most.
    """

    def __init__(
        self, template: str, *, record: DecisionRecord, hint: str = "", code: str | None = None, **params: object
    ) -> None:
        self.record = record
        super().__init__(template, hint=hint, code=code, **params)
