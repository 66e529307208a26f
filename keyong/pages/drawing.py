"""A way as an SVG picture: places of lines and texts, in numbers; the template only writes them down.

Two widths are drawn, for wide and for narrow windows: text in a picture does not flow. No style, no script, no outside
reference: colours come from the page's own style sheet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from keyong.pages.way import Station, Way

WIDE, NARROW = 760, 344
_RAIL, _TEXT, _RIGHT = 34, 66, 20
_LABEL, _TITLE, _LINE = 12.0, 17.6, 13.5
_GAP, _EDGE, _TAB = 26, 14, 30


@dataclass(frozen=True)
class Written:
    """A line of text at a place; ``style`` is its class."""

    x: float
    y: float
    text: str
    style: str
    anchor: str = "start"


@dataclass(frozen=True)
class Stop:
    """A station with its place: the circle on the rail, its texts, and where they link to."""

    y: float
    tone: str
    number: int
    texts: tuple[Written, ...]
    link: str
    entry: Written | None
    entry_index: int | None


@dataclass(frozen=True)
class Picture:
    """Everything of one drawing; ``box`` is the company's wall (top and height), None where no station is inside."""

    width: int
    height: int
    rail: tuple[float, float]
    stops: tuple[Stop, ...]
    box: tuple[float, float] | None
    company: Written | None
    door: float | None
    title: str


def draw(way: Way, width: int, entry: str, title: str) -> Picture:
    """Lay a way out at a width.

    Args:
        entry: the word for an entry, with ``{index}``.
        title: what the picture is, for those who cannot see it.
    """
    y, stops = 14.0, list[Stop]()
    top = bottom = None
    company, door = None, None
    for number, station in enumerate(way.stations, start=1):
        if station.place == "inside" and top is None:
            top = y - 2
            company = Written(_TEXT, y + 18, _cut(way.company, width - _TEXT - _RIGHT - 12, _LABEL + 1.5), "wall-name")
            y += _TAB + 8
        if station.place == "outside" and top is not None and bottom is None:
            bottom = y - _GAP + _EDGE
            door = bottom
            y += _GAP
        stop, y = _stop(station, number, y, width, entry)
        stops.append(stop)
        y += _GAP
    if top is not None and bottom is None:
        bottom = y - _GAP + _EDGE
        y += _EDGE
    first = stops[0].y if stops else 0.0
    last = stops[-1].y if stops else 0.0
    box = (top, bottom - top) if top is not None and bottom is not None else None
    return Picture(width, round(y - _GAP + 22), (first, last), tuple(stops), box, company, door, title)


def _stop(station: Station, number: int, y: float, width: int, entry: str) -> tuple[Stop, float]:
    room = width - _TEXT - _RIGHT - 8
    centre = y + 13
    texts = [Written(_TEXT, y + 9, station.label, "label")]
    aside = entry.format(index=station.entry) if station.entry is not None else ""
    time = station.time[:10] + " " + station.time[11:19] if len(station.time) >= 19 else ""
    named = None
    beside = width >= WIDE
    if aside:
        named = Written(width - _RIGHT - 8, y + 9, aside, "entry", "end")
    if time and beside:
        texts.append(Written(width - _RIGHT - 8, y + 28, time, "time", "end"))
    y += 9
    for text in _wrapped(station.title, room - (150 if beside else 0), _TITLE):
        y += 20
        texts.append(Written(_TEXT, y, text, "title"))
    lines = [*station.lines, *([time] if time and not beside else [])]
    for line in lines:
        for text in _wrapped(line, room, _LINE):
            y += 18
            texts.append(Written(_TEXT, y, text, "line"))
    return Stop(centre, station.tone, number, tuple(texts), station.link, named, station.entry), y + 4


def _em(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    return 0.32 if character in "iljt.,:;'|!()[] " else 0.86 if character in "mwMW@" else 0.58


def measured(text: str, size: float) -> float:
    """About how wide a text is; rather too wide than too narrow."""
    return sum(map(_em, text)) * size


def _wrapped(text: str, room: float, size: float, most: int = 6) -> Iterator[str]:
    """The text in lines that fit; cut off after ``most``."""
    line, count = "", 0
    for part in _parts(text):
        if line and measured(line + part, size) > room:
            count += 1
            if count == most:
                yield line.rstrip() + "…"
                return
            yield line.rstrip()
            line = part.lstrip()
        else:
            line += part
        while measured(line, size) > room:  # one word that is wider than the picture
            fits = max(1, next(n for n in range(1, len(line) + 1) if measured(line[:n], size) > room) - 1)
            yield line[:fits]
            line = line[fits:]
            count += 1
            if count >= most:
                return
    if line.strip():
        yield line.rstrip()


def _parts(text: str) -> Iterator[str]:
    """Where a line may be broken: after spaces, and between Chinese characters."""
    word = ""
    for character in text:
        if unicodedata.category(character)[0] == "C":
            character = "\N{REPLACEMENT CHARACTER}"
        word += character
        if character == " " or unicodedata.east_asian_width(character) in "WF":
            yield word
            word = ""
    yield word


def _cut(text: str, room: float, size: float) -> str:
    return next(iter(_wrapped(text, room, size, most=1)), "")
