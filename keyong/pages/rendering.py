"""Pages out of templates: everything escaped, every sentence of the catalogue, in the language of who asks."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from keyong.pages import words
from keyong.pages.records import Signed
from keyong.text import language, mark, translate, translate_data

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "assets"

BROWSER_SENTENCES = {
    "running": mark("Checking entry {done} of {total} …"),
    "holds": mark("Your browser verified all {total} entries: hashes, order and the ledger's signature hold."),
    "holds-unsigned": mark(
        "Your browser verified the hashes and the order of all {total} entries. It cannot check Ed25519 signatures: "
        "use a newer browser, or keyong verify."
    ),
    "entry-holds": mark(
        "Your browser verified this entry, its fields, and that the signed tree of {total} entries has it."
    ),
    "entry-holds-unsigned": mark(
        "Your browser verified this entry, its fields, and that the tree of {total} entries has it. It cannot check Ed25519 "
        "signatures: use a newer browser, or keyong verify."
    ),
    "sealed-entry-holds": mark("Your browser verified that the signed tree of {total} entries has this entry."),
    "page-holds": mark(
        "Your browser verified all {count} entries of this page: the signed tree of {total} entries has each."
    ),
    "page-holds-unsigned": mark(
        "Your browser verified all {count} entries of this page: the tree of {total} entries has each. It cannot check Ed25519 "
        "signatures: use a newer browser, or keyong verify."
    ),
    "fails": mark("The ledger does not hold at entry {entry}: {why}"),
    "fails-somewhere": mark("The ledger does not hold: {why}"),
    "modified": mark("its bytes are not those that were recorded"),
    "field": mark("the field {field} is not the one that was recorded"),
    "order": mark("it does not follow the entry before it"),
    "missing": mark("an entry or a hash is missing"),
    "root": mark("the entries do not have the signed root"),
    "signature": mark("the checkpoint is not signed by this ledger's key"),
    "witness": mark("a cosignature under the checkpoint does not hold"),
    "checkpoint": mark("the checkpoint cannot be read"),
    "rolled-back": mark("this browser saw {size} entries before: the ledger is shorter now, or another one"),
    "extends": mark("It extends the {size} entries that this browser saw on {time}."),
    "cosigned": mark("Cosigned by {names}."),
    "unanchored": mark("No other company's cosignature is under it: the key's own holder could have rewritten it."),
    "stopped": mark("The check was stopped."),
    "no-crypto": mark("This browser offers no WebCrypto here: open the page by its loopback address or as a file."),
    "unreachable": mark("The ledger's files could not be fetched."),
}
"""What the scripts say; they get the sentences from the page, in its language."""


@cache
def environment() -> Environment:
    """The templates' environment."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    found.globals.update(
        _=translate,
        lang=language,
        words=words,
        sentences=browser_sentences,
        still=False,
        is_signed=lambda value: isinstance(value, Signed),
    )
    found.filters.update(
        short=words.short,
        moment=words.moment,
        amount=words.amount,
        number=words.number,
        pretty=pretty,
        compact=lambda value: json.dumps(value, separators=(",", ":")),
    )
    return found


def render(template: str, **values: Any) -> str:
    """A page, in the language that is spoken now."""
    return environment().get_template(template).render(**values)


def browser_sentences() -> str:
    """The scripts' sentences as JSON, in the language that is spoken now."""
    return json.dumps({name: translate_data(text) for name, text in BROWSER_SENTENCES.items()}, ensure_ascii=False)


def pretty(value: Any) -> str:
    """A value as people read it, whatever it is."""
    if isinstance(value, Signed):
        return shown(json.dumps(value.says, ensure_ascii=False, indent=1))
    if isinstance(value, bytes):
        return value.hex()
    return shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1))


def shown(text: Any) -> str:
    """A text whose control and direction characters cannot make it look like another."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for c in str(text)
    )
