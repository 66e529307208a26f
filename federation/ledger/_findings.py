"""What is found in a part of a history: where it began, where it ended, and what the parts before it have to settle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INTENT = "intent"
CLOSING = frozenset({"outcome", "aborted"})
ERASURE = "erasure"
NO_LEAF = bytes(32)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next entry goes: the tree's right edge, the last leaf and time."""

    size: int = 0
    stack: tuple[bytes, ...] = ()
    leaf: bytes = NO_LEAF
    time: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a part of a history, beside that its entries follow one another."""

    signed: int
    """Size of the last checkpoint that was signed over one of its entries; 0 where there is none."""
    anchored: int
    anchors: tuple[str, ...]
    open_intents: tuple[int, ...]
    strays: tuple[tuple[int, int], ...]
    absent: Mapping[int, frozenset[str]]
    erasures: tuple[tuple[int, list[Any]], ...]
    erased: int
    withheld: int
    checked: int
