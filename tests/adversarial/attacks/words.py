"""The words of the attacks' table in one language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """What the generated part of a page is made of; the attacks' own words by name, or their texts where none are given."""

    count: str
    columns: tuple[str, str, str, str, str]
    headings: dict[str, str]
    held: str
    conceded: dict[str, str]
    layers: dict[str, str]
    comma: str
    walls_above: str
    walls: dict[str, str]
    attacks: dict[str, str] | None = None
