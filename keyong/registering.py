"""The owner's own data: registered, described without values, published. On record like everything else."""

from __future__ import annotations

import json
from datetime import timedelta

from enterprise_node.acceptance import Acceptances, Peer
from enterprise_node.datasets import SourceDescription, data_secret, data_version
from enterprise_node.reading import Reading
from enterprise_node.rules import Kept, Rules, after, check_fit, read_rules
from enterprise_node.store import NodeStore, RegisteredDataset
from federation.errors import UsageError
from federation.holdings import open_engine
from federation.home import Home, now
from federation.statements import DatasetDescription, Envelope, Member, row_bucket

DESCRIPTION_VALIDITY = timedelta(days=365)
NO_RULES = Rules({})


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
    unit_rows: int = 0,
    least_subjects: int = 0,
    rounding: int = 0,
    rules: Rules = NO_RULES,
) -> DatasetDescription:
    """The catalog entry of a source: columns as the rules leave them, row counts as a bucket.

    Raises:
        RulesError: a rule does not fit.
    """
    at = now()
    check_fit(source.columns, rules)
    shown = after(source.columns, rules)
    if privacy_unit and privacy_unit not in {column.name for column in shown}:
        raise UsageError(
            "the privacy unit {column} is no column of the dataset as its rules leave it",
            hint="name one of its columns, such as that of a customer or a machine",
            column=privacy_unit,
        )
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
        data_version=data_version(source.fingerprint, source.columns, source.reading, rules, secret=data_secret(home)),
        columns=shown,
        rows_at_least=low,
        rows_at_most=high,
        simulated=simulated,
        industry=industry,
        level=level,
        privacy_unit=privacy_unit,
        unit_rows=unit_rows,
        least_subjects=least_subjects,
        rounding=rounding,
        rules=rules.digest,
        live=source.reading.live,
        files=source.reading.kind == "files",
    )


def register(
    home: Home, source: SourceDescription, description: DatasetDescription, rules: Rules = NO_RULES
) -> RegisteredDataset:
    """Sign the description, put it on record, and register the source under it.

    Args:
        rules: those that the description was made with.
    """
    row = RegisteredDataset(
        id=description.dataset,
        path=source.place,
        reading=source.reading.to_json(),
        fingerprint=source.fingerprint,
        data_version=description.data_version,
        rows=source.rows,
        columns=json.dumps([column.model_dump(mode="json") for column in source.columns], ensure_ascii=False),
        rules=rules.canonical().decode() if rules else "",
        description=b"",
    )
    return _put(home, row, description)


def set_rules(home: Home, dataset: str, rules: Rules) -> RegisteredDataset:
    """Put a registered dataset under other rules: a new data version, signed, on record and published.

    Raises:
        RulesError: a rule does not fit; nothing was changed.
    """
    row = node_store(home).dataset(dataset)
    columns = row.source_columns
    check_fit(columns, rules)
    at, reading, secret = now(), Reading.from_json(row.reading), data_secret(home)
    description = read_description(row).model_copy(
        update={
            "issued": at,
            "expires": at + DESCRIPTION_VALIDITY,
            "data_version": data_version(row.fingerprint, columns, reading, rules, secret=secret),
            "columns": after(columns, rules),
            "rules": rules.digest,
        }
    )
    description = DatasetDescription.model_validate(description.model_dump())
    values = row.model_dump() | {
        "rules": rules.canonical().decode() if rules else "",
        "data_version": description.data_version,
    }
    return _put(home, RegisteredDataset(**values), description)


def _put(home: Home, row: RegisteredDataset, description: DatasetDescription) -> RegisteredDataset:
    rules = read_rules(row.rules)
    if rules.keyed:
        Kept(home.path, row.id).ensure_key()  # before anything rests on it
    envelope = description.seal(home.key("statement"))
    row.description = envelope.to_bytes()
    entry = {
        "dataset": row.id,
        "data_version": row.data_version,
        "fingerprint": row.fingerprint,
        "description": row.description,
    }
    with home.open_ledger() as ledger:
        ledger.append("dataset", entry | ({"rules": rules.digest} if rules else {}))
    node_store(home).put_dataset(row)
    return row


def sign_descriptions(home: Home) -> None:
    """Sign the catalog entries of all registered datasets with the statement key that is in force now; on record."""
    at = now()
    for row in node_store(home).datasets():
        renewed = read_description(row).model_copy(update={"issued": at, "expires": at + DESCRIPTION_VALIDITY})
        _put(home, row, DatasetDescription.model_validate(renewed.model_dump()))


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


def peers_of(home: Home) -> list[Peer]:
    """Every member of the roster as the owner of this home has it."""
    acceptances = Acceptances(home, store := node_store(home))
    if store.named():
        with home.open_ledger() as ledger:
            acceptances.bind(ledger)
    return acceptances.peers()


def accept_entities(home: Home, entities: list[str]) -> list[Member]:
    """Let the members of legal entities, as they are now, count toward this node's minimum; returns the new ones. On record."""
    acceptances = Acceptances(home, node_store(home))
    with home.open_ledger() as ledger:
        acceptances.bind(ledger)
        return acceptances.accept(entities, ledger)


def record_own_use(home: Home, dataset: str, what: str) -> None:
    """Put on record that the owner itself used own data: no permit is needed for that, an entry is."""
    row = node_store(home).dataset(dataset)
    with home.open_ledger() as ledger:
        ledger.append("owner", {"dataset": row.id, "data_version": row.data_version, "what": what})
