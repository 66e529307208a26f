"""The owner looks at own data as a job will see it, and at what the rules keep. Each look is on record, no value is."""

from __future__ import annotations

from typing import Any

from enterprise_node.decision import granted_by
from enterprise_node.preview import Preview, preview
from enterprise_node.rules import Codes, Kept, Pseudonym, Shift, read_rules
from enterprise_node.rules.expressions import constant_shift
from enterprise_node.stages import grant_of
from enterprise_node.store import RegisteredDataset
from federation.errors import UsageError
from federation.holdings import Holding, Holdings, open_engine
from federation.home import Home
from federation.statements import Agreement, Envelope
from keyong.registering import node_store, record_own_use


def preview_dataset(home: Home, dataset: str, rows: int, agreement: str | None) -> Preview:
    """What a job under an agreement will see of a dataset at most; without an agreement, what the rules leave.

    Raises:
        UsageError: the agreement is not about this dataset of ours.
        KeyongError: the snapshot cannot be made, as for a job.
    """
    row = node_store(home).dataset(dataset)
    held = _agreement(home, row, agreement) if agreement else None
    names = set(row.shown_names)
    if held is not None:
        names = set(granted_by(Agreement.read(Envelope.from_bytes(held.envelope)), row.shown_names))
    record_own_use(home, dataset, "preview")
    grant = grant_of(home, row, names, held.digest if held else "")
    return preview(grant, row.source_columns, rows, home.folder("spool"))


def kept_of_rules(home: Home, dataset: str) -> dict[str, Any]:
    """The code maps, and the shifts that are one number of days, under the dataset and under each agreement about it."""
    row = node_store(home).dataset(dataset)
    rules, kept = read_rules(row.rules), Kept(home.path, dataset)
    coded = {name: rule for name, rule in rules.columns.items() if isinstance(rule, Codes)}
    codes = [
        {"column": column, "agreement": scope, "value": value, "code": coded[column].prefix + code}
        for column, scope, value, code in kept.maps.rows()
        if column in coded
    ]
    held = [one for one in _holdings(home).list() if _is_about(home, row, one)]
    shifts = []
    for name, rule in rules.columns.items():
        if isinstance(rule, Shift) and not rule.unit:
            for scope in ("",) if rule.scope == "dataset" else tuple(one.digest for one in held):
                days = constant_shift(rule, kept.secret(rule, scope))
                shifts.append({"column": name, "agreement": scope, "days": days})
    record_own_use(home, dataset, "rules-export")
    keyed = [name for name, rule in rules.columns.items() if isinstance(rule, Pseudonym)]
    return {"dataset": dataset, "rules": rules.digest, "codes": codes, "shifts": shifts, "pseudonyms": keyed}


def _agreement(home: Home, row: RegisteredDataset, name: str) -> Holding:
    held = _holdings(home).find(name)
    if not _is_about(home, row, held):
        raise UsageError(
            "{name} is no agreement about our dataset {dataset}",
            hint="see `keyong agreement list`",
            name=name[:80],
            dataset=row.id,
        )
    return held


def _is_about(home: Home, row: RegisteredDataset, held: Holding) -> bool:
    return held.type == Agreement.TYPE and held.provider == home.identity.member and held.dataset == row.id


def _holdings(home: Home) -> Holdings:
    return Holdings(open_engine(home.path / "store.db"))
