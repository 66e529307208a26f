"""What went wrong in user code, as one of a closed list of codes. Text of an exception never enters a code."""

from __future__ import annotations

import traceback
from pathlib import Path

from .codec import ContentError
from .project import ProjectError

CLIENT_CODES = frozenset(
    {
        "app-config",
        "app-exception",
        "app-import",
        "app-missing-dependency",
        "app-no-reply",
        "app-reply-type",
        "app-syntax",
        "out-of-memory",
        "unsupported",
    }
)
SERVER_CODES = frozenset(
    {
        "app-config",
        "app-exception",
        "app-import",
        "app-missing-dependency",
        "app-syntax",
        "cohort-too-small",
        "content-unsupported",
        "exchange-failed",
        "no-strategy-for-sums",
        "not-one-broadcast",
        "out-of-memory",
        "result-name",
        "result-too-large",
        "sampling-not-whole",
        "strategy-not-for-sums",
        "unsupported",
    }
)
MAX_TRACEBACK_BYTES = 16 * 1024


class CallError(Exception):
    """A call that cannot be answered, with the code that says so."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def classify(error: BaseException, app: Path, *, importing: bool) -> str:
    """Return the code for what the app raised, while it was imported or while it ran."""
    if isinstance(error, (CallError, ProjectError)):
        return error.code
    if isinstance(error, ContentError):
        return "app-reply-type"
    if _is_out_of_memory(error):
        return "out-of-memory"
    if isinstance(error, SyntaxError):
        return "app-syntax"
    if missing_module(error, app):
        return "app-missing-dependency"
    return "app-import" if importing else "app-exception"


def missing_module(error: BaseException, app: Path) -> str:
    """Return the name of the package that the runtime lacks, or nothing where that is not what is wrong."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    own = (app / top).exists() or (app / f"{top}.py").exists()
    return "" if own else top


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises RuntimeError
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def last_of_traceback(error: BaseException) -> str:
    """Return the end of a traceback, where the cause is, at most 16 KiB of UTF-8."""
    text = "".join(traceback.format_exception(error)).encode("utf-8", "replace")
    return text[-MAX_TRACEBACK_BYTES:].decode("utf-8", "ignore")
