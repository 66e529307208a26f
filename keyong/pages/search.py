"""Entries found by who, what, under which agreement, in which job, when: newest first, with the exact count."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from keyong.pages.facets import FACETS, Facet, bare
from keyong.pages.index import BLOCK, covered, postings

PAGE = 50
WORDS, MATCHES = 8, 64
"""Words of a query that count, and terms that one word may stand for."""


@dataclass(frozen=True)
class Wanted:
    """A search: for each facet one value or none, words that each have to match something, and a time in UTC."""

    facets: tuple[tuple[Facet, str], ...] = ()
    words: tuple[str, ...] = ()
    since: str = ""
    until: str = ""


@dataclass(frozen=True)
class Found:
    """A page of it; ``older`` is the index to go on before, None where there is no more."""

    indices: tuple[int, ...]
    total: int
    older: int | None
    newer: int | None


def search(
    index: sqlite3.Connection,
    ledger: sqlite3.Connection,
    wanted: Wanted,
    before: int | None = None,
    page: int = PAGE,
    also: Sequence[tuple[str, str]] = (),
) -> Found:
    """The newest entries that match, from before an index on.

    Args:
        also: members by the name of their legal entity, so that this may be typed as well.
    """
    low, high = _range(ledger, covered(index), wanted)
    groups = [list(_keys(index, f"facet = ? AND value = ?", one)) for one in wanted.facets]  # noqa: F541
    groups += [list(_meant(index, word, also)) for word in wanted.words[:WORDS]]
    if low >= high or not all(groups):
        return Found((), 0, None, None)
    if not groups:
        top = high if before is None else min(before, high)
        indices = tuple(range(top - 1, max(low, top - page) - 1, -1))
        newer = None if top >= high else min(top + page, high)
        return Found(indices, high - low, indices[-1] if indices and indices[-1] > low else None, newer)
    return _intersect(index, groups, (low, high), before, page)


def _intersect(
    index: sqlite3.Connection, groups: list[list[int]], bounds: tuple[int, int], before: int | None, page: int
) -> Found:
    low, high = bounds
    taken: list[int] = []
    above: list[int] = []
    total, more = 0, False
    top = high if before is None else min(before, high)
    for block in range((high - 1) // BLOCK, low // BLOCK - 1, -1):
        base = block * BLOCK
        bits = _within((1 << BLOCK) - 1, base, low, high)
        for keys in groups:
            bits &= postings(index, keys, block)
            if not bits:
                break
        total += bits.bit_count()
        newer, older = bits >> max(0, top - base) << max(0, top - base), _within(bits, base, low, top)
        above += list(_lowest(newer, base, page))[::-1] if newer else []
        above = above[-page:]
        for one in _highest(older, base, page - len(taken) + 1):
            if len(taken) == page:
                more = True
                break
            taken.append(one)
    return Found(tuple(taken), total, taken[-1] if more else None, above[0] + 1 if above else None)


def _within(bits: int, base: int, low: int, high: int) -> int:
    """Of a block's bits those of the indices ``low`` to before ``high``."""
    first, last = max(0, low - base), min(BLOCK, max(0, high - base))
    return bits >> first << first & ((1 << last) - 1)


def _highest(bits: int, base: int, count: int) -> Iterator[int]:
    while bits and count:
        place = bits.bit_length() - 1
        yield base + place
        bits ^= 1 << place
        count -= 1


def _lowest(bits: int, base: int, count: int) -> Iterator[int]:
    while bits and count:
        place = (bits & -bits).bit_length() - 1
        yield base + place
        bits ^= 1 << place
        count -= 1


def _range(ledger: sqlite3.Connection, size: int, wanted: Wanted) -> tuple[int, int]:
    """The indices of a time; entries stand in the order of time."""
    low = _first_at(ledger, size, wanted.since) if wanted.since else 0
    return low, _first_at(ledger, size, wanted.until + "\uffff") if wanted.until else size


def _first_at(ledger: sqlite3.Connection, size: int, moment: str) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        row = ledger.execute("SELECT time FROM entry WHERE idx = ?", (middle,)).fetchone()
        if row is not None and str(row[0]) < moment:
            low = middle + 1
        else:
            high = middle
    return low


def _keys(index: sqlite3.Connection, where: str, values: Iterable[object]) -> Iterator[int]:
    for (key,) in index.execute(f"SELECT id FROM term WHERE {where} LIMIT {MATCHES}", tuple(values)):  # noqa: S608
        yield key


def _meant(index: sqlite3.Connection, word: str, also: Sequence[tuple[str, str]]) -> Iterator[int]:
    """The terms that a word stands for: values that begin with it, agreements by their title, members by their company."""
    start = bare(word)
    yield from _keys(index, "bare >= ? AND bare < ?", (start, start + "\U0010ffff"))
    held = word.casefold()
    for member in [member for member, entity in also if held in entity.casefold()][:MATCHES]:
        yield from _keys(index, "facet = 'party' AND value = ?", (member,))
    titled = index.execute(
        f"SELECT digest FROM agreement WHERE instr(lower(title), lower(?)) LIMIT {MATCHES}",  # noqa: S608
        (word,),
    ).fetchall()
    for row in titled:
        yield from _keys(index, "facet = 'agreement' AND value = ?", row)


def choices(index: sqlite3.Connection, facet: Facet, limit: int = 100) -> list[tuple[str, int]]:
    """The values of a facet with how many entries have them, most first."""
    assert facet in FACETS
    rows = index.execute(
        "SELECT value, count FROM term WHERE facet = ? ORDER BY count DESC, value LIMIT ?", (facet, limit)
    )
    return [(str(value), int(count)) for value, count in rows]
