"""A running consortium of forked processes: a coordinating institute and two mills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import forked, tiny_runtime
from tests.faults.forked import ForkedParty
from tests.integration.consortium import PURPOSE, Consortium

MILLS = ("mill-a", "mill-b")
ROUNDS = 3


class ForkedConsortium(Consortium):
    """As :class:`Consortium`, of forked processes, with the tiny runtime; every job has three rounds."""

    institute: ForkedParty
    mills: list[ForkedParty]  # type: ignore[assignment]

    def __init__(self, folder: Path, mills: tuple[str, ...] = MILLS) -> None:
        super().__init__(folder)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.env = {"KEYONG_RUNTIMES": str(tiny_runtime.build(folder / "runtimes")), "TMPDIR": str(self.temporary)}
        self.institute = ForkedParty(folder, "institute", self.env)
        self.mills = [ForkedParty(folder, name, self.env) for name in mills]

    @property
    def parties(self) -> list[ForkedParty]:  # type: ignore[override]
        """All parties."""
        return [self.institute, *self.mills]

    def request(self, *more: str, rounds: int = ROUNDS) -> list[str | Path]:
        """The arguments of a job for both mills, one of which is enough."""
        common = ["job", "run", self.app, "--purpose", PURPOSE, "--yes", "--min-participants", "1"]
        return [*common, "--rounds", str(rounds), *more]


@contextmanager
def running(folder: Path, mills: tuple[str, ...] = MILLS) -> Iterator[ForkedConsortium]:
    """A consortium that serves until the block ends."""
    forked.begin()
    consortium = ForkedConsortium(folder, mills)
    try:
        consortium.begin()
        yield consortium
    finally:
        consortium.stop()
