"""``keyong ledger statement``: what was used under agreements, and what it cost, by month."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._output import as_json, emit, facts, line, narrate, table
from keyong.cli._reading import PathArgument, RootOption, verified_reading

if TYPE_CHECKING:
    from keyong.accounts import Account, Accounts
    from keyong.embedded import StatementCheck


def statement(
    path: PathArgument = None,
    agreement: Annotated[
        str | None, typer.Option("--agreement", metavar="ID", help="Only this agreement, by its id or digest.")
    ] = None,
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Only this month, in UTC.")] = None,
    receipts: Annotated[
        list[Path] | None,
        typer.Option("--receipts", metavar="DIR", help="Results that hold receipts (a consumer's own); repeat it."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Also write it as CSV.")] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write it as an HTML page to print.")
    ] = None,
    root: RootOption = None,
) -> None:
    """Say what was used under agreements, by whom, for what, how often, how long, and what it cost: from the ledger alone.

    The ledger is verified first. The provider's holds the receipts; a consumer gives the folders of its results, whose
    receipts it verifies and compares with those on record. Both then print the same figure for the same month.

    $ keyong ledger statement --month 2026-05
    $ keyong ledger statement --agreement 5f0c --receipts ./result --page may.html
    """
    from keyong.accounts import Accounts

    _check_month(month)
    found = Accounts()
    with verified_reading(path, root, found.on_entry) as check:
        for folder in receipts or ():
            _add_receipts(found, folder.expanduser(), check)
    accounts = _chosen(found, agreement, month)
    _write(accounts, csv, page, check.entities)
    _tell(found, accounts, check.entities)


def _add_receipts(found: Accounts, folder: Path, check: StatementCheck) -> None:
    """Take the receipts below a folder, each verified by its node's signature."""
    from federation.errors import UsageError
    from federation.statements import Envelope

    files = sorted(folder.rglob("*.receipt.json"))
    if not files:
        raise UsageError(
            "{folder} holds no receipts", hint="give the folder of `keyong job result`", folder=str(folder)
        )
    for file in files:
        envelope = Envelope.from_bytes(file.read_bytes())
        check.check(envelope)
        found.add(envelope)


def _chosen(found: Accounts, agreement: str | None, month: str | None) -> list[Account]:
    from federation.errors import UsageError

    named = found.named(agreement or "")
    if agreement and not named:
        raise UsageError(
            "no agreement that this ledger shows is called {text}",
            hint="see `keyong agreement list`; give the first characters of its id or digest",
            text=agreement[:80],
        )
    return [one for one in found.accounts(month=month) if one.agreement in named]


def _check_month(month: str | None) -> None:
    from federation.errors import UsageError

    if month is not None and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise UsageError("{month} is not a month", hint="write it as YYYY-MM, for example 2026-05", month=month[:80])


def _write(accounts: list[Account], csv: Path | None, page: Path | None, entities: Mapping[str, str]) -> None:
    from keyong.accounts import COLUMNS, csv_rows

    if csv is not None:
        import csv as writer

        with csv.expanduser().open("w", newline="", encoding="utf-8-sig") as file:  # so that Excel reads Chinese
            rows = writer.writer(file)
            rows.writerow(COLUMNS)
            rows.writerows([_inert(cell) for cell in row] for row in csv_rows(accounts))
        narrate("wrote {path}", path=csv)
    if page is not None:
        from keyong.account_page import page as render

        page.expanduser().write_text(render(accounts, entities), encoding="utf-8")
        narrate("wrote {path}", path=page)


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _tell(found: Accounts, accounts: list[Account], entities: Mapping[str, str]) -> None:
    if as_json():
        emit(
            {
                "statements": [one.document() for one in accounts],
                "missing": sorted(found.missing),
                "sealed": found.sealed,
            }
        )
        return
    from keyong.pages import words

    for one in accounts:
        facts(
            (
                ("month", one.month),
                ("agreement", f"{one.title} ({one.id.removeprefix('urn:uuid:')[:8]})"),
                ("provider", f"{entities.get(one.provider, '?')} ({one.provider})"),
                ("consumer", f"{entities.get(one.consumer, '?')} ({one.consumer})"),
                ("dataset", one.dataset),
                ("uses", one.uses),
                ("seconds", one.seconds),
                ("bytes", one.bytes),
                ("amount", f"{one.amount:f} {one.tariff.currency}".strip()),
                ("figure to compare", one.figure),
            )
        )
        table(
            ("job", "purpose", "uses", "steps", "seconds", "bytes", "rows", "amount"),
            (
                (job.plan[7:19], words.term(job.purpose), job.uses,
                 ", ".join(f"{words.outcome(name)} {count}" for name, count in job.steps),
                 job.seconds, job.bytes, job.rows or "-", f"{job.amount:f}")
                for job in one.jobs
            ),
        )  # fmt: skip
        line()
    if not accounts:
        narrate("nothing was used")
    if found.missing:
        narrate("{count} receipts are on record whose files were not given (--receipts)", count=len(found.missing))
    if found.sealed:
        narrate("{count} entries are erased or not disclosed; what they hold is not in it", count=len(found.sealed))
