"""A consortium whose parties live in network namespaces of their own, joined by lines that tests make bad."""

from __future__ import annotations

from pathlib import Path

from tests.integration.consortium import MILLS, Consortium
from tests.integration.parties import Party
from tests.network.cable import Line, Net, Place

COORDINATOR = "10.77.0.1"
PORT = 7443


class PlacedParty(Party):
    """A party all of whose commands run at its place."""

    def __init__(self, folder: Path, name: str, place: Place) -> None:
        super().__init__(folder, name)
        self.place = place

    def command(self, *arguments: str | Path, form: str = "text") -> list[str]:
        return self.place.enter(super().command(*arguments, form=form))


class SpreadConsortium(Consortium):
    """The institute and three mills, each at its place."""

    def __init__(self, folder: Path, net: Net) -> None:
        super().__init__(folder)
        self.net = net
        self.address = f"{COORDINATOR}:{PORT}"
        self.institute = PlacedParty(folder, "institute", net.place(COORDINATOR))
        self.mills = [
            PlacedParty(folder, name, net.place(f"10.77.0.{number}")) for number, name in enumerate(MILLS, start=11)
        ]

    def line(self, letter: str) -> Line:
        """The line of a mill."""
        mill = self.mill(letter)
        assert isinstance(mill, PlacedParty)
        return mill.place.line

    @property
    def lines(self) -> list[Line]:
        """The lines of all mills."""
        return [self.line(name[-1]) for name in MILLS]

    def heal(self) -> None:
        """All lines are good."""
        for line in self.lines:
            line.heal()
