"""Request ids: one name, in the logs of every party, for all that one command set going.

An id is made where a request begins, travels in the head of each exchange that serves it, and is bound to the log while
the exchange is answered. It only names: nothing is decided by it, and what is no id is replaced, so that nobody writes
into another party's log through it.
"""

from __future__ import annotations

import re
import secrets

from structlog.contextvars import bind_contextvars, get_contextvars

_FORM = re.compile(r"[0-9a-f]{16}", re.ASCII)
_KEY = "request"


def fresh() -> str:
    """A new id: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def carry(text: str = "") -> str:
    """Work under the id that came with an exchange from here on, or under a fresh one where none came; returns it."""
    request = text if _FORM.fullmatch(text) else fresh()
    bind_contextvars(**{_KEY: request})
    return request


def current() -> str:
    """The id that is worked under; empty where there is none."""
    return str(get_contextvars().get(_KEY, ""))
