"""Every time that this software waits is on the page, with its value and a reason; none stands in the code unnamed."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "timeouts.md"
PACKAGES = ("federation", "sandbox", "enterprise_node", "coordinator", "keyong")
NOT_SERVED = ("keyong/bench/", "keyong/demo/", "sandbox/inside/", "federation/wire/_generated/")
"""What measures, shows or attacks, and waits for nobody else."""
WAITING = {"timeout", "wait_for", "settimeout"}
ROW = re.compile(r"^\| `([\w.]+)` \| ([^|]+) \| (.+) \|$", re.MULTILINE)


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages or PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(NOT_SERVED):
                yield name, ast.parse(path.read_text(encoding="utf-8"))


def in_words(value: Any) -> str:
    """A time as the page writes it."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    for unit, length in (("d", 86400), ("h", 3600)):
        if isinstance(value, timedelta) and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def constants() -> dict[str, str]:
    """Each named time and its value in words."""
    found = {}
    for name, tree in sources():
        for node in tree.body:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                timed = isinstance(target, ast.Name) and (
                    "SECONDS" in target.id or ast.unparse(node.value).startswith(("timedelta(", "datetime.timedelta("))
                )
                if timed and isinstance(target, ast.Name):
                    module = name.removesuffix(".py").replace("/", ".")
                    found[f"{module}.{target.id}"] = in_words(getattr(importlib.import_module(module), target.id))
    return found


def listed(page: Path = PAGE) -> dict[str, str]:
    return {name: value.strip() for name, value, _ in ROW.findall(page.read_text(encoding="utf-8"))}


def test_every_time_is_on_the_page_with_its_value() -> None:
    page, code = listed(), constants()
    missing = {name: value for name, value in code.items() if name not in page}
    assert not missing, f"add to docs/timeouts.md, each with its reason: {missing}"
    assert not set(page) - set(code), "the page lists what the code no longer has"
    assert page == code, {name: (page[name], code[name]) for name in code if page[name] != code[name]}


def test_the_chinese_page_has_the_same_values() -> None:
    assert listed(PAGE.parent / "zh" / PAGE.name) == listed()


def test_every_row_has_a_reason() -> None:
    for name, _, reason in ROW.findall(PAGE.read_text(encoding="utf-8")):
        assert len(reason.split()) >= 4, name


@pytest.mark.parametrize("package", ("federation", "enterprise_node", "coordinator"))
def test_no_time_stands_unnamed_in_what_serves(package: str) -> None:
    """A bare number is a decision that nobody finds."""
    found = []
    for name, tree in sources(package):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [word.value for word in node.keywords if word.arg == "timeout"]
            values += node.args if called in WAITING else []
            if any(isinstance(one, ast.Constant) and isinstance(one.value, (int, float)) for one in values):
                found.append(f"{name}:{node.lineno}")
    assert not found, f"name these times and give their reasons: {found}"
