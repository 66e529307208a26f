"""Everything a person reads, in their language: one gettext catalogue, keyed by the English sentence.

>>> with speaking("zh"):
...     translate("error: {what}", what="x") != ""
True
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
DOMAIN = "keyong"
FOLDER = Path(__file__).parent

_language: Language = "en"
_within: ContextVar[Language | None] = ContextVar("language", default=None)
"""Spoken in a block alone: two requests that are answered at once may each have their own."""


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
    return fill(_(error.template), error.params), fill(_(error.hint_template), error.params)


def fill(sentence: str, places: Mapping[str, object]) -> str:
    """Fill the places; a sentence without values is left as it is, braces included."""
    return sentence.format_map(places) if places else sentence


def translate_data(sentence: str) -> str:
    """Translate a sentence that is data at this point (it is extracted where it is written)."""
    return _(sentence)


def mark(sentence: str) -> str:
    """The sentence itself: it is translated where it is shown, and extracted here."""
    return sentence
