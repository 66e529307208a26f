"""Who has masks in common, and who holds whose shares: all with all, or each with its neighbourhood on a circle.

After Bell et al. 2020 (eprint 2020/704, Harary graph over a random order). Nobody names a neighbour: the circle follows from the
cohort digest, and so from fresh keys of every participant; each node draws it itself. What it keeps up to `colluders`, wherever
they sit, is shown in ``docs/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from federation.crypto import canonical_json, digest
from federation.secagg import cohorts
from federation.secagg.mask_keys import PROTOCOL


@dataclass(frozen=True)
class MaskGraph:
    """The graph of one cohort.

    Attributes:
        participants: in order.
        cohort: see `cohort_digest`.
    """

    participants: tuple[str, ...]
    cohort: str

    @property
    def size(self) -> int:
        """How many are in a neighbourhood, its node among them."""
        return cohorts.neighbourhood(len(self.participants))

    @property
    def threshold(self) -> int:
        """How many of a neighbourhood it takes to put a secret of its node together."""
        return cohorts.threshold(self.size)

    @cached_property
    def circle(self) -> tuple[str, ...]:
        """The participants in the order in which they sit."""
        if self.size == len(self.participants):
            return self.participants
        return tuple(sorted(self.participants, key=self._place))

    def around(self, node: str) -> tuple[str, ...]:
        """A participant's neighbourhood in order, itself among them: who has masks in common with it and holds its shares."""
        count, reach = len(self.circle), self.size // 2
        if self.size == count:
            return self.participants
        at = self._seats[node]
        return tuple(sorted(self.circle[(at + step) % count] for step in range(-reach, reach + 1)))

    def thin(self, nodes: Collection[str]) -> list[str]:
        """The participants of whose neighbourhood too few are among these nodes to put a secret of theirs together."""
        count, reach = len(self.circle), self.size // 2
        if self.size == count:
            return [] if len(set(nodes) & set(self.participants)) >= self.threshold else list(self.participants)
        inside = [node in nodes for node in self.circle]
        sums = [0, *accumulate(inside[-reach:] + inside + inside[:reach])]
        return [node for at, node in enumerate(self.circle) if sums[at + self.size] - sums[at] < self.threshold]

    @cached_property
    def _seats(self) -> dict[str, int]:
        return {node: at for at, node in enumerate(self.circle)}

    def _place(self, node: str) -> str:
        return digest(canonical_json({"protocol": PROTOCOL, "use": "graph", "cohort": self.cohort, "node": node}))
