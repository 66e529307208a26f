"""A statement as a page to print: one HTML file without scripts or outside references, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from keyong.accounts import Account, JobLine
from keyong.pages import words
from keyong.text import language, mark, translate, translate_data

STYLE = """
@page { size: A4; margin: 18mm }
body { font: 11pt/1.45 "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #1b1f24;
       max-width: 180mm; margin: 12mm auto }
h1 { font-size: 17pt; margin: 0 0 1mm } h2 { font-size: 12pt; margin: 8mm 0 2mm; break-after: avoid }
p { margin: 1mm 0 } .quiet { color: #57606a; font-size: 9pt; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin-top: 3mm; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 1.2mm 2mm; border-bottom: .2mm solid #d0d7de; vertical-align: top }
th { font-size: 9pt; color: #57606a; font-weight: 600 } td.n, th.n { text-align: right; white-space: nowrap }
tfoot td { font-weight: 600; border-bottom: 0; border-top: .4mm solid #1b1f24 } section { break-inside: auto }
thead { display: table-header-group } tr { break-inside: avoid }
td { overflow-wrap: break-word } small { color: #57606a; font-size: 8.5pt; font-weight: 400 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .6mm 5mm; margin: 2mm 0 } dt { color: #57606a } dd { margin: 0 }
"""

_HEADS = (
    (mark("job"), ""),
    (mark("purpose"), ""),
    (mark("since"), ""),
    (mark("uses"), "n"),
    (mark("steps"), ""),
    (mark("seconds"), "n"),
    (mark("bytes"), "n"),
    (mark("rows"), "n"),
    (mark("amount"), "n"),
)

ACTION_OF = {
    "fed:flags": "fed:aggregateQuery",
    "fed:cells": "fed:aggregateQuery",
    "fed:blind": "fed:psi",
    "fed:size": "fed:psi",
}
"""The action that a stage of a query or of an intersection belongs to; other stages are actions by name."""


def page(accounts: Sequence[Account], entities: Mapping[str, str]) -> str:
    """The statements one after the other, in the language that is spoken now.

    Args:
        entities: the legal entity of each member, by its id.
    """
    title = translate("Statement of use")
    parts = [_section(one, entities) for one in accounts] or [f"<p>{escape(translate('Nothing was used.'))}</p>"]
    return (
        f'<!doctype html>\n<html lang="{language()}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{escape(translate("From the ledger alone; times are UTC. Both sides get the same figure."))}</p>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(one: Account, entities: Mapping[str, str]) -> str:
    said = (
        (mark("provider"), _named(entities.get(one.provider, ""), one.provider)),
        (mark("consumer"), _named(entities.get(one.consumer, ""), one.consumer)),
        (mark("agreement"), _named(one.title, one.id.removeprefix("urn:uuid:"))),
        (mark("dataset"), _named(one.dataset, "")),
        (mark("tariff"), _named(_tariff(one), "")),
    )
    facts = "".join(f"<dt>{escape(translate_data(name))}</dt><dd>{value}</dd>" for name, value in said)
    heads = "".join(f'<th class="{kind}">{escape(translate_data(name))}</th>' for name, kind in _HEADS)
    total = (
        f'<tr><td colspan="3">{escape(translate("total"))}</td><td class="n">{one.uses}</td><td></td>'
        f'<td class="n">{one.seconds:,}</td><td class="n">{one.bytes:,}</td><td></td>'
        f'<td class="n">{one.amount:f} {escape(one.tariff.currency)}</td></tr>'
    )
    return (
        f"<section><h2>{escape(one.month)}</h2>\n<dl>{facts}</dl>\n"
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{''.join(_row(job) for job in one.jobs)}</tbody>\n"
        f"<tfoot>{total}</tfoot></table>\n"
        f'<p class="quiet">{escape(translate("figure: {digest}", digest=one.figure))}</p></section>'
    )


def _named(name: str, ident: str) -> str:
    """A name, and small beside it what programs know it by."""
    shown = f"{escape(name)} <small>{escape(ident)}</small>" if ident else escape(name)
    return shown if name else escape(ident)


def _row(job: JobLine) -> str:
    steps = ", ".join(f"{words.outcome(name)} {count}" for name, count in job.steps)
    actions = ", ".join(dict.fromkeys(words.term(ACTION_OF.get(one, one)) for one in job.actions))
    cells = (
        (f"<small>{escape(job.plan[7:19])}</small>", ""),
        (f"{escape(words.term(job.purpose))}<br><small>{escape(actions)}</small>", ""),
        (escape(words.moment(job.first)), ""),
        (str(job.uses), "n"),
        (escape(steps), ""),
        (f"{job.seconds:,}", "n"),
        (f"{job.bytes:,}", "n"),
        (escape(job.rows.replace("-", "–") or "-"), "n"),
        (f"{job.amount:f}", "n"),
    )
    return "<tr>" + "".join(f'<td class="{kind}">{shown}</td>' for shown, kind in cells) + "</tr>"


def _tariff(one: Account) -> str:
    prices = one.tariff
    if not prices.currency:
        return translate("nothing is charged")
    return translate(
        "{use} {currency} a use, {second} a second, {megabyte} a megabyte",
        use=f"{prices.use:f}",
        currency=prices.currency,
        second=f"{prices.second:f}",
        megabyte=f"{prices.megabyte:f}",
    )
