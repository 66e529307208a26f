"""An agreement, or an audit, as one HTML file that opens from a disk: no server, no network, and it verifies itself.

Style and scripts are in the file, allowed by their hashes and nothing else. Each entry comes with its bytes, what opens its
fields, and its proof of inclusion under one signed checkpoint: the reader's browser checks them when the page opens.
"""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from federation.errors import UsageError
from federation.home import now
from federation.ledger import Checkpoint, parse_note
from federation.ledger.bundle import encode_fields
from federation.ledger.merkle import inclusion_proof
from federation.ledger.store import node_source, reading
from federation.policy import describe
from federation.statements import instant_text
from keyong.pages import gauges
from keyong.pages.course import gather, policy_of
from keyong.pages.judging import Judgement
from keyong.pages.records import Record, read_record
from keyong.pages.rendering import ASSETS, render
from keyong.pages.search import Wanted, search
from keyong.pages.source import Source
from keyong.pages.views import judged_of, pictures
from keyong.pages.way import way_of
from keyong.text import language

MOST = 2000
"""Entries in one file, the newest; what is left out is said."""
DRAWN = 100
"""Invocations that are drawn; the others are listed."""


@dataclass(frozen=True)
class Step:
    """An invocation on the page: its picture, what was judged."""

    index: int
    state: str
    pictures: tuple[Any, ...]
    judged: tuple[Mapping[str, Any], ...]


def agreement_page(source: Source, digest: str, judgement: Judgement) -> str:
    """One agreement as a file: its clauses, what is used of it, each invocation's way, every entry with its proof.

    Args:
        digest: of the agreement.
        judgement: what was found when the whole ledger was verified for this page.

    Raises:
        UsageError: the ledger has no such agreement.
    """
    with reading(source.database) as ledger, source.index.reader() as index:
        found = gauges.uses(index, ledger, now(), digest)
        if not found:
            raise UsageError("the ledger has no agreement {name}", name=digest[:90])
        matching = search(index, ledger, Wanted((("agreement", digest),)), page=MOST)
        records = [one for at in sorted(matching.indices) if (one := read_record(ledger, at)) is not None]
        agreed = read_record(ledger, found[0].contract.entry)
        policy = policy_of(agreed)
        entities = source.entities
        steps = list(_steps(ledger, index, records, source))
        note, bundles = _proved(ledger, records)
        return _page(
            "still_agreement.html",
            source,
            judgement,
            note=note,
            bundles=bundles,
            use=found[0],
            clauses=describe(policy, language()) if policy is not None else [],
            jobs=gauges.jobs(index, agreement=digest),
            steps=steps,
            records=records,
            total=matching.total,
            entities=entities,
        )


def _steps(
    ledger: sqlite3.Connection, index: sqlite3.Connection, records: Sequence[Record], source: Source
) -> Iterator[Step]:
    owner, entities = source.evidence.member.id, source.entities
    for first in [one for one in records if one.kind in ("intent", "denied")][-DRAWN:]:
        course = gather(ledger, index, first)
        yield Step(first.index, course.state, pictures(way_of(course, owner, entities)), tuple(judged_of(course)))


def _proved(ledger: sqlite3.Connection, records: Sequence[Record]) -> tuple[str, list[dict[str, Any]]]:
    """The newest checkpoint, and each entry with what a browser needs to check it under that."""
    row = ledger.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    note = bytes(row[0])
    size = Checkpoint.parse(parse_note(note).text).size
    node = node_source(ledger)
    bundles = [
        {
            "index": one.index,
            "data": base64.b64encode(one.data).decode(),
            "proof": [base64.b64encode(hashed).decode() for hashed in inclusion_proof(one.index, size, node)],
            "fields": [{"name": name, **opened} for name, opened in encode_fields(one.fields).items()],
        }
        for one in records
        if one.index < size
    ]
    return note.decode(), bundles


def _page(template: str, source: Source, judgement: Judgement, **values: Any) -> str:
    evidence = source.evidence
    frame = {
        "member": evidence.member,
        "consortium": evidence.history.latest.name,
        "origin": evidence.vkey.name,
        "vkey": str(evidence.vkey),
        "witnesses": [str(one) for one in evidence.quorum.keys],
        "fingerprint": evidence.rosters.chain[0].fingerprint,
        "judged": judgement,
        "fault": dict(judgement.sentences).get(language(), ""),
        "made": instant_text(now()),
    }
    return whole(template, frame=frame, **values)


def whole(template: str, **values: Any) -> str:
    """A page with its style and scripts inside, and a policy that allows these and no others."""
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in ("check.js", "still.js"))
    if "</" in script or "</" in style:
        raise AssertionError("an asset would end its own element")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    )
    # Ours, and in no way made of what others wrote.
    return render(template, still=True, policy=policy, style=Markup(style), script=Markup(script), **values)  # noqa: S704


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
