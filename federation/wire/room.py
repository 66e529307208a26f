"""How much the bodies of open exchanges may take together, over as many links as a member holds."""

from __future__ import annotations

from federation.wire.body import BodyError


class Room:
    """Bytes for message bodies, taken when a body is announced and given back when its exchange ends."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self, size: int) -> None:
        """Take room for a body; raises :class:`BodyError` (``busy``) where there is not so much left."""
        if self.taken + size > self.limit:
            raise BodyError("the exchanges that are open fill the room for message bodies", code="busy")
        self.taken += size

    def give(self, size: int) -> None:
        """Give it back."""
        self.taken -= size
