"""Does anything grow? Samples of processes at rest, their trend, and a verdict with its bounds."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.load.crowd import Gauge

WARM = 0.3
"""Share of the samples at the beginning that does not count: imports, caches and allocators fill."""


@dataclass(frozen=True)
class Bound:
    """How much a figure may rise over a hundred jobs, or, where there were few, in all."""

    unit: str
    per_hundred_jobs: float
    in_all: float


BOUNDS = {
    "memory": Bound("MB", 6.0, 10.0),
    "descriptors": Bound("", 1.0, 3.0),
    "threads": Bound("", 1.0, 3.0),
    "spool": Bound("files", 0.5, 1.0),
    "sessions": Bound("folders", 0.5, 1.0),
    "wal": Bound("MB", 2.0, 8.0),
}
"""Memory: a leak of 64 KB a job, one model or one stream forgotten, is seen; what allocators keep is not called one."""


@dataclass(frozen=True)
class Sample:
    """One process at rest; its memory is what it holds itself (anonymous), not its share of libraries."""

    party: str
    at: float
    jobs: int
    memory: float
    descriptors: int
    threads: int
    spool: int
    sessions: int
    wal: float
    cpu: float
    home: float
    files: Mapping[str, int]
    """Open files by what they are."""


def sample(party: str, pid: int, home: Path, at: float, jobs: int) -> Sample:
    """Look at a process and its home now."""
    gauge = Gauge(pid)

    def count(name: str) -> int:
        return len(list((home / name).iterdir())) if (home / name).is_dir() else 0

    return Sample(
        party=party,
        at=round(at, 1),
        jobs=jobs,
        memory=gauge.own / 2**20,
        descriptors=gauge.descriptors,
        threads=gauge.threads,
        spool=count("spool"),
        sessions=count("sessions"),
        wal=sum(path.stat().st_size for path in home.glob("*-wal")) / 2**20,
        cpu=gauge.cpu,
        home=sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 2**20,
        files=dict(gauge.files),
    )


def opened(samples: Sequence[Sample], party: str) -> dict[str, int]:
    """What a party has more open at the end than where the judging begins: the answer to "which descriptors?"."""
    own = [one for one in samples if one.party == party]
    more = Counter(own[-1].files)
    more.subtract(own[int(len(own) * WARM)].files)
    return {name: count for name, count in more.items() if count}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Median of the slopes between all pairs (Theil and Sen): single outliers do not move it."""
    pairs = itertools.combinations(points, 2)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x2 != x1]
    return statistics.median(slopes) if slopes else 0.0


def judge(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One verdict a party and figure: its rise over a hundred jobs and in all, against the bounds."""
    verdicts = []
    for party in sorted({one.party for one in samples}):
        own = [one for one in samples if one.party == party]
        own = own[int(len(own) * WARM) :]
        if len(own) < 4:
            raise ValueError(f"too few samples of {party} for a verdict")
        span = own[-1].jobs - own[0].jobs
        for figure, bound in BOUNDS.items():
            rise = slope([(one.jobs, getattr(one, figure)) for one in own])
            hundred, whole = rise * 100, rise * span
            verdicts.append(
                {
                    "party": party,
                    "figure": figure,
                    "unit": bound.unit,
                    "first": round(float(getattr(own[0], figure)), 2),
                    "last": round(float(getattr(own[-1], figure)), 2),
                    "most": round(float(max(getattr(one, figure) for one in own)), 2),
                    "rise_per_hundred_jobs": round(hundred, 3),
                    "rise_in_all": round(whole, 3),
                    "bound_per_hundred_jobs": bound.per_hundred_jobs,
                    "bound_in_all": bound.in_all,
                    # Few jobs tell little of a hundred: there the rise in all decides.
                    "holds": hundred <= bound.per_hundred_jobs or (span < 50 and whole <= bound.in_all),
                }
            )
    return verdicts


def plot(samples: Sequence[Sample]) -> str:
    """The samples as SVG: a panel a figure, a line a party."""
    colours = ("#1b6ca8", "#c0392b", "#27865a", "#8e44ad", "#b9770e")
    parties = sorted({one.party for one in samples})
    width, height, left = 860, 120, 70
    last = max(one.at for one in samples) or 1.0
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(BOUNDS) + 40}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, party in enumerate(parties):
        out.append(f'<text x="{left + 130 * number}" y="14" fill="{colours[number % 5]}">{party}</text>')
    for row, (figure, bound) in enumerate(BOUNDS.items()):
        top = 24 + row * height
        most = max(max(float(getattr(one, figure)) for one in samples), 1.0)
        out.append(
            f'<text x="4" y="{top + 14}">{figure} {bound.unit}</text><text x="4" y="{top + 28}">{most:.0f}</text>'
        )
        out.append(f'<rect x="{left}" y="{top}" width="{width - left - 10}" height="{height - 20}" fill="#f6f6f6"/>')
        for number, party in enumerate(parties):
            points = " ".join(
                f"{left + one.at / last * (width - left - 10):.1f},"
                f"{top + (height - 20) * (1 - float(getattr(one, figure)) / most):.1f}"
                for one in samples
                if one.party == party
            )
            out.append(f'<polyline points="{points}" fill="none" stroke="{colours[number % 5]}" stroke-width="1.5"/>')
    return "\n".join([*out, f'<text x="{left}" y="{height * len(BOUNDS) + 36}">0 to {last:.0f} s</text></svg>'])


def as_json(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Samples as plain objects."""
    return [asdict(one) for one in samples]
