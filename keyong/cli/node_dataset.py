"""``keyong node dataset``: the owner's data, registered and published without values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli import _output, node_dataset_preview, node_dataset_rules
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, line, narrate, say
from keyong.cli._words import TYPES, word
from keyong.text import explain, translate

if TYPE_CHECKING:
    from federation.statements import DatasetDescription

app = Commands("Register the company's own data, and choose what the catalog says of it.")
app.add_typer(node_dataset_rules.app, name="rules")
app.command("preview")(node_dataset_preview.preview)
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The dataset's name: a-z, 0-9, dot, hyphen, underscore.")
]


@app.command()
def add(
    name: NameArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A CSV, TSV or Parquet file, a folder of files, a SQLite or DuckDB database, or a postgresql:// address; "
            "it stays where it is.",
        ),
    ],
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title in the catalog.")],
    title_zh: Annotated[str, typer.Option(metavar="TEXT", help="Title in Chinese.")] = "",
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is, in a few sentences.")] = "",
    description_zh: Annotated[str, typer.Option(metavar="TEXT", help="The same in Chinese.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:TYPE",
            help="Declare a column's type: integer, number, text, boolean, timestamp, date; repeat it. The catalog says what "
            "you declare beside it: NAME:text=a|b|c its categories, NAME:number=LOW..HIGH its bounds.",
        ),
    ] = None,
    encoding: Annotated[
        str, typer.Option(metavar="NAME", help="Encoding of a CSV file, for example gb18030.", show_default=True)
    ] = "utf-8",
    delimiter: Annotated[str | None, typer.Option(metavar="CHAR", help="What separates fields of a CSV file.")] = None,
    null: Annotated[
        list[str] | None, typer.Option(metavar="MARK", help="A mark for missing values, such as NA; repeat it.")
    ] = None,
    table: Annotated[str, typer.Option("--table", metavar="NAME", help="The table that is read of a database.")] = "",
    select: Annotated[
        str, typer.Option("--select", metavar="SQL", help="A query of your own instead: one SELECT, nothing else.")
    ] = "",
    password_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with the database's password, readable to this account alone (0600)."),
    ] = None,
    password_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable with it; `node serve` needs it too.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Desensitisation rules (TOML); without it, those that are set stay."),
    ] = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Take away the rules that are set.")] = False,
    privacy_unit: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="The column that says whose a row is; cells of queries count its values."),
    ] = "",
    simulated: Annotated[bool, typer.Option("--simulated", help="Say that the records are simulated.")] = False,
    industry: Annotated[str, typer.Option(metavar="CODE", help="Industry code of GB/T 4754.")] = "",
    level: Annotated[str, typer.Option(metavar="L1..L5", help="Security level of the data.")] = "",
    unit_rows: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Declare a privacy unit of at most so many rows; answers without noise then need a clause of their own.",
        ),
    ] = 0,
    least_subjects: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Demand so many subjects in each cell of a query, where that is more than 10."
        ),
    ] = 0,
    rounding: Annotated[
        int, typer.Option(min=0, metavar="N", help="Have counts of rows in queries rounded to multiples of it.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published; register nothing.")] = False,
) -> None:
    """Register a source as a dataset, or its next version: it is read whole, described, signed and put on record.

    The catalog gets names and types of columns as the rules leave them, and the number of rows as a range. No value is
    published, nor a minimum, a maximum or a category that you did not declare. A file is fixed by its digest; a database is
    read anew for each job.

    $ keyong node dataset add passes rolling.csv --title "Plate rolling passes" --title-zh 中厚板轧制道次
    $ keyong node dataset add passes export.csv --title Passes --encoding gb18030 --column 轧制力:number
    $ keyong node dataset add passes rolling.csv --title Passes --column "alloy:text=mild|hard" --column force:number=0..60
    $ keyong node dataset add plates ./images --title "Plate surfaces"
    $ keyong node dataset add passes postgresql://reader@db.plant/mes --table rolling.passes --title Passes \\
        --password-file ~/.keyong-db --rules rules.toml
    """
    from enterprise_node.datasets import inspect_source, parse_column
    from enterprise_node.sources import credential_reference
    from keyong.cli._context import open_home
    from keyong.registering import describe_dataset, register

    home = open_home()
    wanted = _rules(home, name, rules, no_rules)
    found = inspect_source(
        source,
        table=table,
        select=select,
        credential=credential_reference(password_file, password_env),
        encoding=encoding,
        delimiter=delimiter,
        null_values=tuple(null or ()),
        declared=[parse_column(one) for one in column or ()],
        work=home.folder("spool"),
    )
    described = _described(
        lambda: describe_dataset(
            home,
            found,
            dataset=name,
            title=title,
            title_zh=title_zh,
            description=description,
            description_zh=description_zh,
            simulated=simulated,
            industry=industry,
            level=level,
            privacy_unit=privacy_unit,
            unit_rows=unit_rows,
            least_subjects=least_subjects,
            rounding=rounding,
            rules=wanted,
        )
    )
    if not dry_run:
        register(home, found, described, wanted)
    if as_json():
        problems = [{"code": problem.code, "message": problem.message} for problem in found.problems]
        emit(
            {
                "dataset": _public(described),
                "rows": found.rows,
                "path": found.place,
                "registered": not dry_run,
                "problems": problems,
            }
        )
        return
    narrate(
        "read {path}: {rows} rows, {columns} columns", path=found.place, rows=found.rows, columns=len(found.columns)
    )
    for problem in found.problems:
        narrate("note: {message}", message=explain(problem)[0])
    show_description(described)
    if dry_run:
        narrate("nothing was registered (--dry-run); this is what the catalog would show")
    else:
        narrate("registered; this is what the catalog shows, and no more")


def _rules(home: Any, name: str, file: Path | None, none: bool) -> Any:
    """The rules that a registration comes under: no rule that is set goes away unasked."""
    from enterprise_node.rules import Rules, read_rules
    from federation.errors import UsageError
    from keyong.registering import node_store

    if file is not None and none:
        raise UsageError("either name a file of rules, or take all away with --no-rules")
    if file is not None:
        return node_dataset_rules.read_file(file)
    before = [row.rules for row in node_store(home).datasets() if row.id == name]
    return Rules({}) if none or not before else read_rules(before[0])


def _described(make: Any) -> DatasetDescription:
    from pydantic import ValidationError

    from federation.errors import UsageError

    try:
        described: DatasetDescription = make()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("dataset",):
            raise UsageError(
                '"{value}" cannot stand as {standing}',
                hint="write lower-case letters, digits, dots, hyphens and underscores, such as passes-2026; 63 characters"
                " at most",
                value=str(first["input"])[:80],
                standing="dataset",
            ) from None
        raise UsageError(
            "{field} is not of the form it should be: {why}",
            field=".".join(str(part) for part in first["loc"]),
            why=first["msg"],
        ) from None
    return described


@app.command("list")
def list_() -> None:
    """List the datasets registered here.

    $ keyong node dataset list
    """
    from keyong.cli._context import open_home
    from keyong.registering import node_store, read_description

    rows = node_store(open_home()).datasets()
    if as_json():
        emit([{**_public(read_description(row)), "path": row.path, "rows": row.rows} for row in rows])
        return
    _output.table(
        ("name", "title", "rows", "source"), ((row.id, read_description(row).title, row.rows, row.path) for row in rows)
    )


@app.command()
def show(name: NameArgument) -> None:
    """Show a registered dataset as its owner sees it: source, exact number of rows, rules, and what is published.

    $ keyong node dataset show passes
    """
    from enterprise_node.reading import Reading
    from enterprise_node.rules import read_rules
    from keyong.cli._context import open_home
    from keyong.registering import node_store, read_description

    row = node_store(open_home()).dataset(name)
    described = read_description(row)
    if as_json():
        emit(
            {
                **_public(described),
                "path": row.path,
                "rows": row.rows,
                "fingerprint": row.fingerprint,
                "reading": json.loads(row.reading),
            }
        )
        return
    reading = Reading.from_json(row.reading)
    facts(
        (
            ("source", row.path),
            ("table", reading.table),
            ("query", reading.select),
            ("password in", reading.credential.partition(":")[2]),
            ("rows", row.rows),
            ("fingerprint", row.fingerprint),
        )
    )
    if row.rules:
        line()
        say("before any job sees it:")
        node_dataset_rules.print_rules(read_rules(row.rules))
    line()
    say("published:")
    show_description(described)


@app.command()
def remove(name: NameArgument) -> None:
    """Take a dataset out of the catalog; its source stays as it is. Jobs that use it are refused from now on.

    $ keyong node dataset remove passes
    """
    from keyong.cli._context import open_home
    from keyong.registering import unregister

    unregister(open_home(), name)
    if as_json():
        emit({"removed": name})
    else:
        narrate("{name} is no longer registered; its source is untouched", name=name)


def _public(described: DatasetDescription) -> dict[str, Any]:
    return described.model_dump(mode="json")


def _unit(described: DatasetDescription) -> str:
    if not described.unit_rows:
        return ""
    return translate(
        "{unit}, at most {count} rows of each",
        unit=described.privacy_unit or translate("a row"),
        count=described.unit_rows,
    )


def _floor(described: DatasetDescription) -> str:
    """What the owner demands of queries beyond the rules of all."""
    told = []
    if described.least_subjects:
        told.append(translate("at least {count} subjects in a cell", count=described.least_subjects))
    if described.rounding > 1:
        told.append(translate("counts rounded to {count}", count=described.rounding))
    return ", ".join(told)


def show_description(described: DatasetDescription) -> None:
    """Print a catalog entry: what everybody in the consortium may see."""
    from keyong.cli._context import policy_language

    chinese = policy_language() == "zh"
    facts(
        (
            ("dataset", f"{described.provider}/{described.dataset}"),
            ("title", (described.title_zh if chinese else "") or described.title),
            ("description", (described.description_zh if chinese else "") or described.description),
            ("rows", translate("{low} to {high}", low=described.rows_at_least, high=described.rows_at_most)),
            ("records", translate("simulated") if described.simulated else ""),
            ("industry", described.industry),
            ("level", described.level),
            ("data version", described.data_version),
            ("rules", described.rules),
            ("privacy unit", _unit(described)),
            ("queries", _floor(described)),
            ("source", translate("a database, read anew for each job") if described.live else ""),
            ("files", translate("each row stands for one") if described.files else ""),
        )
    )
    _output.table(
        ("column", "type", "missing values", "unit", "lowest", "highest", "description"),
        (
            (
                one.name,
                word(TYPES, one.type),
                translate("yes") if one.nullable else translate("no"),
                one.unit,
                one.minimum or "",
                one.maximum or "",
                one.description,
            )
            for one in described.columns
        ),
    )
