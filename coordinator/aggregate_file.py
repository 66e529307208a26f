"""An aggregate that is decoded straight into the file in which the server part is given it: there is no second copy."""

from __future__ import annotations

import numpy as np

from federation.jobs.frames import FILE_FROM
from federation.secagg import Accumulator, Aggregate, Array, Arrays, Layout, Segment
from federation.wire.memory_file import MemoryFile


class AggregateFile:
    """Takes decoded arrays as the body of a content that holds them.

    Args:
        layout: of the replies; it has at least one byte of arrays.
    """

    def __init__(self, layout: Layout) -> None:
        # Arrays of one record stand together in a content, whatever lies between them in the layout.
        records = dict.fromkeys(segment.record for segment in layout.segments)
        self._segments = [one for record in records for one in layout.segments if one.record == record]
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        at = 0
        for segment in self._segments:
            itemsize = np.dtype(segment.dtype).itemsize
            self._places[segment.record, segment.name] = (at, itemsize)
            at += segment.size * itemsize
        self._file = MemoryFile(at)
        self.body: memoryview | None = None
        """Every array's bytes, once they are all there."""

    def put(self, segment: Segment, start: int, values: Array) -> None:
        """Write them where they belong."""
        place, itemsize = self._places[segment.record, segment.name]
        self._file.write(values.view(np.uint8).data, place + start * itemsize)

    def arrays(self) -> dict[str, dict[str, Array]]:
        """Seal the file; the arrays are views of it."""
        self.body = self._file.sealed()
        found: dict[str, dict[str, Array]] = {}
        for segment in self._segments:
            place, itemsize = self._places[segment.record, segment.name]
            part = self.body[place : place + segment.size * itemsize]
            array: Array = np.frombuffer(part, dtype=segment.dtype) if part else np.empty(0, dtype=segment.dtype)
            found.setdefault(segment.record, {})[segment.name] = array.reshape(segment.shape)
        return found


def arrays_bytes(layout: Layout) -> int:
    """How many bytes the arrays of an aggregate have."""
    return sum(segment.size * np.dtype(segment.dtype).itemsize for segment in layout.segments)


def finish(accumulator: Accumulator, count: int, sent: Arrays) -> tuple[Aggregate, memoryview | None]:
    """Open a sum, in a file where it is large; the second is then the body of a content that holds its arrays.

    Raises:
        AggregateVoidError: see `Accumulator.finish`.
    """
    file = AggregateFile(accumulator.layout) if arrays_bytes(accumulator.layout) >= FILE_FROM else None
    aggregate = accumulator.finish(count, sent, file)
    return aggregate, file.body if file is not None else None
