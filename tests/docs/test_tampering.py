"""The page on tampering: every class has its error and its test, as they stand in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import federation.ledger as ledger
from federation.statements import ReplayError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tampering.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| ") and "`: `test_" in line
]
CLASSES = (
    "payload", "stored hash", "tile", "deleted", "inserted", "reordered", "twice", "tail cut", "cut, and gone on", "replayed",
    "fork", "signed anew with the real key", "key substituted", "01 and 04", "origin swapped", "time rolled back",
    "signatures stripped", "outcome omitted", "old backup", "kill -9", "enospc", "ambiguous commit",
)  # fmt: skip
ERRORS = {name: getattr(ledger, name) for name in dir(ledger) if name.endswith("Error")} | {"ReplayError": ReplayError}


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_on_the_page(name: str) -> None:
    assert any(name in row[0].lower() for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[0])[:50])
def test_each_has_its_error_and_its_test(row: tuple[str, ...]) -> None:
    _, said, code, where = row
    path, function = re.findall(r"`([^`]+)`", where)
    source = (ROOT / path).read_text(encoding="utf-8")
    tests = {one.name for one in ast.walk(ast.parse(source)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in tests
    for name in re.findall(r"`(\w+Error)`", said):
        assert ERRORS[name].code == code.strip("`")


def test_every_error_of_a_ledger_that_does_not_hold_is_on_the_page() -> None:
    reading = {"LedgerError", "LedgerUnreadableError", "NoteFormatError", "ProofError", "EntryRefusedError"}
    """No tampering of its own: bytes that are no ledger, no note, no proof; a caller's mistake."""
    named = set(re.findall(r"`(\w+Error)`", PAGE))
    assert {name for name, kind in ERRORS.items() if issubclass(kind, ledger.LedgerError)} - reading <= named


def test_the_chinese_page_names_the_same_row_by_row() -> None:
    pages = (PAGE, (ROOT / "docs" / "zh" / "tampering.md").read_text(encoding="utf-8"))
    named = [[re.findall(r"`([^`]+)`", line) for line in page.splitlines() if line.startswith("| ")] for page in pages]
    assert named[0] == named[1]
