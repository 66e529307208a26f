"""Why a source could not be read. No text of a database or of a file is ever in one: it may hold a value or a password."""

from __future__ import annotations

from federation.errors import UnavailableError, UsageError


class SourceUnavailableError(UnavailableError):
    """The source is down, locked or out of reach now."""

    code = "source-unavailable"


class SourceSlowError(UnavailableError):
    """The source did not give its rows in the time that the plan allows."""

    code = "source-slow"


class SourceCredentialsError(UnavailableError):
    """The source refuses the owner's credentials, or they cannot be read."""

    code = "source-credentials"


class SourceQueryError(UsageError):
    """The table or query cannot be read as it was registered."""

    code = "source-query"


def row_too_long(limit: int) -> SourceQueryError:
    """A row that the reader of the rows would not take."""
    return SourceQueryError(
        "a row holds more than {limit} bytes",
        hint="leave the long column out of the query with --select",
        limit=limit,
    )
