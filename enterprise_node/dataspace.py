"""What this company's catalog may list, for the Dataspace Protocol."""

from __future__ import annotations

from collections.abc import Sequence

from enterprise_node.store import NodeStore
from federation.statements import DatasetDescription, Envelope


def descriptions(store: NodeStore) -> Sequence[DatasetDescription]:
    """What this company's datasets say of themselves: schemas and ranges of row counts."""
    return [DatasetDescription.read(Envelope.from_bytes(row.description)) for row in store.datasets()]
