"""One root for every error a person may have to act on.

An error carries a stable ``code`` (never translated), an English ``template`` with named parameters (the key of the
translation catalogue) and a ``hint`` that says what to do next. What crosses a company's border is the code alone, unless
the receiving side is entitled to more (invariant 7); ``detail`` never leaves the process and never holds row values.
"""

from __future__ import annotations

from typing import ClassVar


class KeyongError(Exception):
    """Something a person can act on.

    Args:
        template: English sentence with ``{name}`` places; translated by the command line through the catalogue.
        hint: what to do about it, same form. Optional.
        code: overrides the class's code where one class serves several refusals.
        params: values for the places in ``template`` and ``hint``. Never row values, never key material.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, template: str, *, hint: str = "", code: str | None = None, **params: object) -> None:
        self.template = template
        self.hint_template = hint
        self.params = params if code is None else {"code": code, **params}
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more specific than its class
        super().__init__(template)

    @property
    def message(self) -> str:
        """The English sentence with its values."""
        return self.template.format(**self.params) if self.params else self.template

    @property
    def hint(self) -> str:
        """The English hint with its values; empty where there is none."""
        return self.hint_template.format(**self.params) if self.params else self.hint_template

    def __str__(self) -> str:
        return self.message


class UsageError(KeyongError):
    """The call or its input is wrong; nothing was changed."""

    code = "usage"
    exit_code = 2


class DeniedError(KeyongError):
    """A permit is missing; ``code`` names the clause."""

    code = "denied"
    exit_code = 3


class VerificationError(KeyongError):
    """A signature, a proof, a digest or a history does not hold."""

    code = "verification"
    exit_code = 4


class UnavailableError(KeyongError):
    """A party or a machine that is needed cannot be reached or cannot do it."""

    code = "unavailable"
    exit_code = 5
