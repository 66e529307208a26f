"""The roster chain in pages: it grows with every change for ever, a header does not.

A page is as many rosters as fit, in order, and at least one: a roster is far smaller than a header. Whoever got some asks
for more until none come. That needs no field that protocol version 1 does not know: a member of that version takes the
first page at its greeting, and one more whenever it asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.statements import Envelope
from federation.wire.messages import pack
from federation.wire.peer import HEADER_BYTES

PAGE_BYTES = HEADER_BYTES - 64 * 1024
"""Of one page in a header; the rest is for what stands beside it."""


def first_page(envelopes: Sequence[Envelope]) -> tuple[str, ...]:
    """As many of the rosters, packed, as fit into one header."""
    packed: list[str] = []
    size = 0
    for envelope in envelopes:
        text = pack(envelope)
        size += len(text) + 3  # quotes and comma
        if packed and size > PAGE_BYTES:
            break
        packed.append(text)
    return tuple(packed)


def pages(envelopes: Sequence[Envelope]) -> list[tuple[str, ...]]:
    """All of the rosters, page by page."""
    found: list[tuple[str, ...]] = []
    at = 0
    while at < len(envelopes):
        found.append(first_page(envelopes[at:]))
        at += len(found[-1])
    return found
