"""A statement as a page to print: one HTML file without scripts or outside references, in English or Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from keyong.accounts import Account, JobLine
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


def page(accounts: Sequence[Account]) -> str:
    """The statements on one page each after the other, in the language that is spoken now."""
    title = translate("Statement of use")
    parts = [_section(one) for one in accounts] or [f"<p>{escape(translate('Nothing was used.'))}</p>"]
    return (
        f'<!doctype html>\n<html lang="{language()}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{escape(translate("From the ledger alone; times are UTC. Both sides get the same figure."))}</p>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(one: Account) -> str:
    facts = translate(
        "{provider} let {consumer} use the dataset {dataset}: {title}",
        provider=one.provider,
        consumer=one.consumer,
        dataset=one.dataset,
        title=one.title,
    )
    heads = "".join(f'<th class="{kind}">{escape(translate_data(name))}</th>' for name, kind in _HEADS)
    total = (
        f'<tr><td colspan="3">{escape(translate("total"))}</td><td class="n">{one.uses}</td><td></td>'
        f'<td class="n">{one.seconds:,}</td><td class="n">{one.bytes:,}</td><td></td>'
        f'<td class="n">{one.amount:f} {escape(one.tariff.currency)}</td></tr>'
    )
    return (
        f"<section><h2>{escape(one.month)}</h2>\n<p>{escape(facts)}</p>\n"
        f'<p class="quiet">{escape(one.id)}<br>{escape(translate("tariff: {tariff}", tariff=_tariff(one)))}</p>\n'
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{''.join(_row(job) for job in one.jobs)}</tbody>\n"
        f"<tfoot>{total}</tfoot></table>\n"
        f'<p class="quiet">{escape(translate("figure: {digest}", digest=one.figure))}</p></section>'
    )


def _row(job: JobLine) -> str:
    steps = ", ".join(f"{name} {count}" for name, count in job.steps)
    cells = (
        (job.plan[7:19], ""),
        (job.purpose, ""),
        (job.first, ""),
        (str(job.uses), "n"),
        (steps, ""),
        (f"{job.seconds:,}", "n"),
        (f"{job.bytes:,}", "n"),
        (job.rows or "-", "n"),
        (f"{job.amount:f}", "n"),
    )
    return "<tr>" + "".join(f'<td class="{kind}">{escape(text)}</td>' for text, kind in cells) + "</tr>"


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
