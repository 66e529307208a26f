"""Everything a person reads, in their language: one gettext catalogue, keyed by the English sentence.

>>> with speaking("zh"):
...     translate("error: {what}", what="x") != ""
True
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
DOMAIN = "keyong"
FOLDER = Path(__file__).parent

_language: Language = "en"
_within: ContextVar[Language | None] = ContextVar("language", default=None)
"""Spoken in a block alone: two requests that are answered at once may each have their own."""


class Said(str):
    """What a coordinator said of a job's end, in English: ``reason`` or ``hint`` of its event.

    As a place of an error it is shown in the language spoken: from the template and values that the event has beside it,
    where the template is one of our catalogue's, else as it was said.
    """

    _places: dict[str, str]
    _template: str

    def __new__(cls, data: Mapping[str, Any], name: str = "reason", otherwise: str = "") -> Said:
        """Read it from an event's data; ``otherwise`` where it says nothing."""
        self = super().__new__(cls, data.get(name) or otherwise)
        said = data.get("said")
        told = said if isinstance(said, Mapping) else {}
        values = told.get("params")
        self._template = str(told.get(name, ""))
        self._places = {str(key): str(one) for key, one in values.items()} if isinstance(values, Mapping) else {}
        return self

    def spoken(self) -> str:
        """It, in the language spoken now."""
        translated = _(self._template)
        if translated == self._template:
            return _(str(self))
        try:
            return translated.format_map(self._places)
        except (KeyError, IndexError, ValueError):  # of another release, with other places
            return str(self)


class Explained(Protocol):
    """An error with a template, a hint and the values of their places."""

    template: str
    hint_template: str
    params: dict[str, object]


def language() -> Language:
    """The language spoken now."""
    return _within.get() or _language


def speak(wanted: Language) -> None:
    """Speak this language from now on."""
    global _language
    _language = wanted


@contextmanager
def speaking(wanted: Language) -> Iterator[None]:
    """Speak a language for the duration of a block, in this thread or task alone."""
    before = _within.set(wanted)
    try:
        yield
    finally:
        _within.reset(before)


def language_of_locale(environment: Mapping[str, str] = os.environ) -> Language:
    """The language that the environment asks for, in the order of POSIX; English where it is neither."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def _catalogue(wanted: Language) -> gettext.NullTranslations:
    if wanted == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, FOLDER, [wanted], fallback=True)


def _(sentence: str) -> str:
    """The sentence in the language spoken now."""
    return _catalogue(language()).gettext(sentence) if sentence else ""


def translate(sentence: str, /, **places: object) -> str:
    """The sentence in the language spoken now, with its places filled."""
    return fill(_(sentence), places)


def explain(error: Explained) -> tuple[str, str]:
    """An error's sentence and hint in the language spoken now."""
    places = {name: _value(name, value) for name, value in error.params.items()}
    return fill(_(error.template), places), fill(_(error.hint_template), places)


def _value(name: str, value: object) -> object:
    """What a coordinator, or the operating system, says, a state, or a field, in words; other values are data and stay."""
    if isinstance(value, Said):
        return value.spoken()
    return _(VALUES[value]) if name in VALUED and isinstance(value, str) and value in VALUES else value


def fill(sentence: str, places: Mapping[str, object]) -> str:
    """Fill the places; a sentence without values is left as it is, braces included."""
    return sentence.format_map(places) if places else sentence


def joined(parts: Iterable[str]) -> str:
    """Sentences one after another, in one line."""
    return _("; ").join(parts)


def translate_data(sentence: str) -> str:
    """Translate a sentence that is data at this point (it is extracted where it is written)."""
    return _(sentence)


def mark(sentence: str) -> str:
    """The sentence itself: it is translated where it is shown, and extracted here."""
    return sentence


STATUSES = {
    "submitted": mark("submitted"),
    "running": mark("running"),
    "done": mark("done"),
    "failed": mark("failed"),
    "denied": mark("denied"),
    "cancelled": mark("cancelled"),
    "interrupted": mark("interrupted"),
}
"""How jobs stand."""
VALUED = frozenset({"state", "status", "reason", "why", "standing"})
"""Places of errors that may hold one of :data:`VALUES`."""
VALUES = {
    "member": mark("the name of a member"),
    "id": mark("the name of a member"),
    "provider": mark("the name of a member"),
    "consumer": mark("the name of a member"),
    "dataset": mark("the name of a dataset"),
    "entity": mark("a legal entity"),
    "title": mark("a title"),
    "in-force": mark("in force"),
    "suspended": mark("suspended"),
    "offered": mark("offered"),
    "requested": mark("requested"),
    "declined": mark("declined"),
    "revoked": mark("revoked"),
    "expired": mark("expired"),
    "unknown": mark("not known"),
    **STATUSES,
    "No such file or directory": mark("no such file or folder"),
    "Is a directory": mark("it is a folder"),
    "Not a directory": mark("it is not a folder"),
    "Permission denied": mark("permission denied"),
    "Operation not permitted": mark("operation not permitted"),
    "File exists": mark("it exists already"),
    "No space left on device": mark("the disk is full"),
    "Read-only file system": mark("the file system is read-only"),
    "Disk quota exceeded": mark("the disk quota is used up"),
    "File name too long": mark("the name is too long"),
    "Too many open files": mark("too many files are open"),
    "Too many levels of symbolic links": mark("too many symbolic links"),
    "Input/output error": mark("input/output error"),
    "Address already in use": mark("the address is in use"),
    "Cannot assign requested address": mark("this machine does not have that address"),
    "Connection refused": mark("connection refused"),
}
"""States, fields of statements, and what the operating system says (in its C locale): each with its sentence of the catalogue."""
