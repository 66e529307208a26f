"""The owner's own data: registered, described without values, published. On record like everything else."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from enterprise_node.datasets import SourceDescription
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.holdings import open_engine
from federation.home import Home, now
from federation.statements import DatasetDescription, Envelope, row_bucket

DESCRIPTION_VALIDITY = timedelta(days=365)


def node_store(home: Home) -> NodeStore:
    """The node's registry in this home."""
    return NodeStore(open_engine(home.path / "store.db"))


def describe_dataset(
    home: Home,
    source: SourceDescription,
    *,
    dataset: str,
    title: str,
    title_zh: str = "",
    description: str = "",
    description_zh: str = "",
    simulated: bool = False,
    industry: str = "",
    level: str = "",
    privacy_unit: str = "",
) -> DatasetDescription:
    """The catalog entry of a source, with row counts as a bucket."""
    at = now()
    low, high = row_bucket(source.rows)
    return DatasetDescription(
        issued=at,
        expires=at + DESCRIPTION_VALIDITY,
        provider=home.identity.member,
        dataset=dataset,
        title=title,
        title_zh=title_zh,
        description=description,
        description_zh=description_zh,
        data_version=source.data_version,
        columns=source.columns,
        rows_at_least=low,
        rows_at_most=high,
        simulated=simulated,
        industry=industry,
        level=level,
        privacy_unit=privacy_unit,
    )


def register(home: Home, source: SourceDescription, description: DatasetDescription) -> RegisteredDataset:
    """Sign the description, put it on record, and register the source under it."""
    envelope = description.seal(home.key("statement"))
    row = RegisteredDataset(
        id=description.dataset,
        path=str(source.path),
        reading=source.reading.model_dump_json(),
        fingerprint=source.fingerprint,
        data_version=source.data_version,
        rows=source.rows,
        columns=json.dumps([column.model_dump(mode="json") for column in source.columns], ensure_ascii=False),
        description=envelope.to_bytes(),
    )
    with home.open_ledger() as ledger:
        ledger.append(
            "dataset",
            {
                "dataset": row.id,
                "data_version": row.data_version,
                "fingerprint": row.fingerprint,
                "description": envelope.to_bytes(),
            },
        )
    node_store(home).put_dataset(row)
    return row


def unregister(home: Home, dataset: str) -> None:
    """Take a dataset out of the catalog; the owner's file stays as it is."""
    store = node_store(home)
    row = store.dataset(dataset)
    with home.open_ledger() as ledger:
        ledger.append("dataset", {"dataset": row.id, "data_version": row.data_version, "event": "removed"})
    store.remove_dataset(dataset)


def read_description(row: RegisteredDataset) -> DatasetDescription:
    """The catalog entry of a registered dataset."""
    return DatasetDescription.read(Envelope.from_bytes(row.description))


def accept_entities(home: Home, entities: list[str]) -> list[str]:
    """Let legal entities count toward this node's minimum; returns those that are new. On record."""
    store = node_store(home)
    new = []
    with home.open_ledger() as ledger:
        for entity in entities:
            if entity not in store.accepted():
                ledger.append("peers", {"entity": entity, "event": "accepted"})
                store.accept(entity, now().isoformat())
                new.append(entity)
    return new


def dataset_path(text: str) -> Path:
    """The absolute path of a source."""
    return Path(text).expanduser().absolute()


def record_own_use(home: Home, dataset: str, what: str) -> None:
    """Put on record that the owner itself used own data: no permit is needed for that, an entry is."""
    row = node_store(home).dataset(dataset)
    with home.open_ledger() as ledger:
        ledger.append("owner", {"dataset": row.id, "data_version": row.data_version, "what": what})
