"""The figure counts what is not caught, or not under its own name."""

from __future__ import annotations

import pytest

from federation.ledger import EntryMissingError
from keyong.bench import tampering


def test_every_class_is_caught() -> None:
    figure = tampering.measure()
    assert (figure.value, figure.holds) == (0, True) and figure.note.startswith("17 classes")


def test_what_goes_unnoticed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ("nothing done", lambda sql, folder, key: None, EntryMissingError)
    other = ("another name", tampering.CLASSES[0][1], EntryMissingError)
    monkeypatch.setattr(tampering, "CLASSES", (nothing, other))
    figure = tampering.measure()
    assert figure.value == 2 and figure.note.endswith("missed: nothing done, another name")
