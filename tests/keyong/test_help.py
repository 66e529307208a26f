"""Each command's help page, in both languages, as golden files; ``KEYONG_GOLDEN=write`` writes them anew."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import click
import pytest

from keyong.cli._commands import build
from keyong.cli._root import GROUPS
from tests.keyong.conftest import Run

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("KEYONG_GOLDEN") == "write"
OURS = [name for name, (module, _) in GROUPS.items() if module.startswith("keyong.cli.")]


def _paths(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", {})
    return [path, *(found for name, child in below.items() for found in _paths(child, (*path, name)))]


COMMANDS = [(), *(found for name in OURS for found in _paths(build(import_module(GROUPS[name][0]).app), (name,)))]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: "-".join(path) or "keyong")
def test_help_is_the_golden_one(keyong: Run, path: tuple[str, ...], language: str) -> None:
    ran = keyong(*path, "--help", "--lang", language)
    assert ran.code == 0 and ran.err == ""
    golden = GOLDEN / language / f"{'-'.join(path) or 'keyong'}.txt"
    if WRITE:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(ran.out, encoding="utf-8")
    assert ran.out == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in COMMANDS if len(path)], ids="-".join)
def test_help_says_what_and_gives_an_example(keyong: Run, path: tuple[str, ...]) -> None:
    page = keyong(*path, "--help").out
    assert page.startswith(f"Usage: keyong {' '.join(path)}")
    assert "$ keyong" in page or "Commands:" in page


def test_no_golden_page_is_left_over() -> None:
    names = {f"{'-'.join(path) or 'keyong'}.txt" for path in COMMANDS}
    assert {path.name for path in GOLDEN.rglob("*.txt")} == names


def test_no_line_of_help_is_wider_than_the_terminal(keyong: Run) -> None:
    from keyong.cli._output import width

    for language in ("en", "zh"):
        page = keyong("node", "serve", "--help", "--lang", language).out
        assert max(width(row) for row in page.splitlines()) <= 100


def test_an_unknown_command_names_the_nearest(keyong: Run) -> None:
    ran = keyong("consortum")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == "error: there is no command consortum; did you mean consortium?"


def test_a_group_without_a_command_shows_its_help_and_is_a_usage_error(keyong: Run) -> None:
    ran = keyong("agreement")
    assert ran.code == 2
    assert "Commands:" in ran.out + ran.err
