"""Refusals as they cross a link: what of an error may leave, and what of a stranger's words is believed."""

from __future__ import annotations

import re
from string import Formatter

from federation.errors import DeniedError, KeyongError, UnavailableError, UsageError, VerificationError
from federation.wire._generated.link_pb2 import Fault

_TEXT = 1000
_VALUES = 32
_EXIT = "exit"
_CODE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_RESERVED = frozenset({"self", "template", "hint", "code", "record", "index", "evidence"})
_KINDS: dict[str, type[KeyongError]] = {
    "2": UsageError,
    "3": DeniedError,
    "4": VerificationError,
    "5": UnavailableError,
}


class RemoteError(KeyongError):
    """The other side refused; carries its code and, where we may know it, its reason."""

    code = "remote"


def fault_of(error: KeyongError, *, tell: bool) -> Fault:
    """What of an error may cross the link: the code alone, or the reason as well."""
    if not tell:
        return Fault(code=error.code, params={_EXIT: str(error.exit_code)})
    params = {key: _shown(str(value)) for key, value in error.params.items()}
    params[_EXIT] = str(error.exit_code)
    return Fault(code=error.code, message=error.template[:_TEXT], hint=error.hint_template[:_TEXT], params=params)


def error_of(fault: Fault) -> KeyongError:
    """The error that a fault stands for on this side; never raises, whatever the other side wrote."""
    code = fault.code if _CODE.fullmatch(fault.code) else "remote"
    kind = _KINDS.get(fault.params.get(_EXIT, ""), RemoteError)
    params: dict[str, object] = {
        key: _shown(value)
        for key, value in list(fault.params.items())[:_VALUES]
        if key != _EXIT and key not in _RESERVED and _NAME.fullmatch(key)
    }
    message, hint = _shown(fault.message), _shown(fault.hint)
    if not message or not _plain(message, params) or not _plain(hint, params):
        return kind("the other side refused: {reason}", code=code, reason=code)
    return kind(message, hint=hint, code=code, **params)


def _plain(template: str, params: dict[str, object]) -> bool:
    # str.format follows attributes and pads to any width: a template from outside may name its own values, bare, and no
    # more.
    try:
        fields = list(Formatter().parse(template))
    except ValueError:
        return False
    return all(name is None or (name in params and not spec and not conversion) for _, name, spec, conversion in fields)


def _shown(text: str) -> str:
    # Foreign text reaches a terminal: nothing in it may move the cursor.
    return "".join(char if char.isprintable() else " " for char in text[:_TEXT])
