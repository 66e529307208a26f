"""What the longer suites measure, told at the end of the run."""

from __future__ import annotations

import pytest


class Figures:
    """Figures in the order they were measured."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, figure: str, value: float, unit: str) -> None:
        """Keep a figure."""
        self.lines.append(f"{figure}: {value:.4g} {unit}")


KEY = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Figures of this run."""
    return pytestconfig.stash.setdefault(KEY, Figures())


def tell(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print them, where there are any."""
    measured = config.stash.get(KEY, None)
    for line in measured.lines if measured else ():
        reporter.write_line(line)
