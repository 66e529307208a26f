"""What each page shows: values for its template, read from the ledger and found by the index."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from federation.errors import UsageError
from federation.home import now
from federation.ledger.bundle import encode_fields
from federation.policy import describe
from keyong.pages import gauges, words
from keyong.pages.course import Course, first_of, gather, policy_of, steps_of
from keyong.pages.drawing import NARROW, WIDE, Picture, draw
from keyong.pages.facets import Facet
from keyong.pages.records import Record, read_glances, read_record
from keyong.pages.search import Wanted, choices, search
from keyong.pages.source import Source
from keyong.pages.way import Way, way_of, way_of_job
from keyong.text import language, translate

FORM: tuple[Facet, ...] = ("party", "dataset", "agreement", "job", "kind", "outcome")
"""Facets that the search form has a field for."""


class NotThereError(UsageError):
    """The ledger has no such entry, job or agreement."""

    code = "not-there"


class Views:
    """The pages of one ledger; the connections are read-only snapshots of one request."""

    def __init__(self, source: Source, ledger: sqlite3.Connection, index: sqlite3.Connection) -> None:
        self._source = source
        self._ledger = ledger
        self._index = index
        self._entities = source.entities

    def overview(self) -> dict[str, Any]:
        """The newest entries, what is used of the agreements, the privacy budgets."""
        at = now()
        found = search(self._index, self._ledger, Wanted(), page=12)
        return {
            "rows": self._rows(found.indices),
            "uses": gauges.uses(self._index, self._ledger, at)[:6],
            "budgets": gauges.budgets(self._index, self._entities, at),
            "jobs": gauges.jobs(self._index, limit=6),
            "entities": self._entities,
        }

    def search(self, asked: Mapping[str, str], before: int | None) -> dict[str, Any]:
        """A page of the entries that match a form."""
        wanted = self._wanted(asked)
        found = search(self._index, self._ledger, wanted, before, also=tuple(self._entities.items()))
        kept = {name: value for name, value in asked.items() if value}
        return {
            "rows": self._rows(found.indices),
            "found": found,
            "asked": kept,
            "choices": {name: self._choices(name) for name in FORM if name != "job"},
        }

    def entry(self, index: int) -> dict[str, Any]:
        """One entry with everything it holds."""
        record = self._record(index)
        first = first_of(self._ledger, record)
        named = first is not None and read_record(self._ledger, first) is not None
        refs = self._ledger.execute(
            "SELECT idx, kind FROM entry WHERE ref = ? ORDER BY idx LIMIT 20", (index,)
        ).fetchall()
        return {
            "record": record,
            "invocation": first if named else None,
            "settled_by": refs,
            "plan": self._plan(record),
            "opened": opened(record),
        }

    def invocation(self, index: int) -> dict[str, Any]:
        """The way of the invocation that an entry belongs to."""
        record = self._record(index)
        begun = first_of(self._ledger, record)
        first = self._record(begun) if begun is not None else record
        if first.kind not in ("intent", "denied"):
            raise NotThereError("entry {index} is not of an invocation", index=index)
        course = gather(self._ledger, self._index, first)
        way = way_of(course, self._source.evidence.member.id, self._entities)
        return {
            "course": course,
            "pictures": pictures(way),
            "judged": judged_of(course),
            "rows": self._rows(_entries(course)),
        }

    def job(self, plan: str, before: int | None) -> dict[str, Any]:
        """A job: what it is, how it went here, its entries."""
        found = gauges.jobs(self._index, plan=plan)
        if not found:
            raise NotThereError("this ledger has nothing of the job {plan}", plan=words.short(plan))
        indices, total, older = steps_of(self._ledger, self._index, plan, before)
        records = [one for index in sorted(indices)[:40] if (one := read_record(self._ledger, index)) is not None]
        shown = [one for one in records if one.kind not in ("intent", "outcome", "stage", "held", "review", "denied")]
        way = way_of_job(shown, self._source.evidence.member.id, self._entities)
        stated = next((one.statement("plan") for one in records if one.kind == "plan"), {})
        return {
            "job": found[0],
            "stated": stated,
            "pictures": pictures(way) if shown and before is None else (),
            "rows": self._rows(tuple(indices)),
            "total": total,
            "older": older,
            "entities": self._entities,
        }

    def agreements(self) -> dict[str, Any]:
        """All agreements with their gauges, and the privacy budgets."""
        at = now()
        return {
            "uses": gauges.uses(self._index, self._ledger, at),
            "budgets": gauges.budgets(self._index, self._entities, at),
            "entities": self._entities,
        }

    def agreement(self, digest: str) -> dict[str, Any]:
        """One agreement: its clauses in words, its gauges, its jobs."""
        found = gauges.uses(self._index, self._ledger, now(), digest)
        if not found:
            raise NotThereError("this ledger has no agreement {digest}", digest=words.short(digest))
        record = self._record(found[0].contract.entry)
        policy = policy_of(record)
        return {
            "use": found[0],
            "record": record,
            "clauses": describe(policy, language()) if policy is not None else [],
            "jobs": gauges.jobs(self._index, agreement=digest),
            "entities": self._entities,
        }

    def _record(self, index: int) -> Record:
        record = read_record(self._ledger, index) if 0 <= index < 2**53 else None
        if record is None:
            raise NotThereError("the ledger has no entry {index}", index=index)
        return record

    def _plan(self, record: Record) -> str:
        return record.text("digest") if record.kind == "plan" else record.text("plan")

    def _wanted(self, asked: Mapping[str, str]) -> Wanted:
        facets = tuple((name, value) for name in FORM if name != "job" and (value := asked.get(name, "").strip()[:300]))
        words_ = tuple(asked.get("q", "")[:300].split())
        words_ += tuple(asked.get("job", "")[:300].split())
        return Wanted(facets, words_, asked.get("since", "")[:24], asked.get("until", "")[:24])

    def _choices(self, facet: Facet) -> list[tuple[str, str]]:
        """Values of a facet with their names for people."""
        values = [value for value, _ in choices(self._index, facet)]
        if facet == "agreement":
            titled = dict(self._index.execute("SELECT digest, title FROM agreement").fetchall())
            return [(one, f"{titled.get(one, '')} {words.short(one)}".strip()) for one in values]
        naming = {"party": self._party, "kind": words.kind, "outcome": words.outcome}.get(facet, str)
        return sorted(((one, naming(one)) for one in values), key=lambda pair: pair[1].casefold())

    def _party(self, member: str) -> str:
        entity = self._entities.get(member, member)
        return f"{entity} ({member})" if entity != member else member

    def _rows(self, indices: tuple[int, ...]) -> list[dict[str, Any]]:
        """What a list shows of entries."""
        rows = []
        for one in read_glances(self._ledger, indices):
            outcome = one.text("outcome") or ("denied" if one.kind == "denied" else "")
            outcome = outcome or (one.text("event") or one.text("status") if one.kind in ("job", "result") else "")
            plain = one.kind in ("intent", "outcome", "denied")
            party = one.text("requester") or one.text("by") or one.text("consumer") or one.text("node")
            rows.append(
                {
                    "index": one.index,
                    "time": one.time,
                    "kind": one.kind,
                    "party": party,
                    "company": self._entities.get(party, party),
                    "dataset": one.text("dataset"),
                    "what": _about(one),
                    "outcome": outcome,
                    "tone": words.tone(outcome),
                    "href": f"/invocation/{one.index}" if plain else f"/entry/{one.index}",
                    "plan": one.plan,
                }
            )
        return rows


def opened(record: Record) -> str:
    """What opens an entry's fields, as JSON: a browser holds it against the commitments."""
    return json.dumps([{"name": name, **one} for name, one in encode_fields(record.fields).items()])


def pictures(way: Way) -> tuple[Picture, Picture]:
    """A way drawn for wide and for narrow windows."""
    entry, title = translate("entry {index}"), translate("The way of this invocation, from the request to the receipt")
    return draw(way, WIDE, entry, title), draw(way, NARROW, entry, title)


def _about(one: Any) -> str:
    """A list's words on an entry."""
    if one.kind == "intent":
        return str(words.term(one.text("purpose")))
    if one.kind in ("denied", "outcome", "not-taken"):
        return str(one.text("code"))
    if one.kind == "agreement":
        held = one.statements.get("agreement")
        return str(held.says.get("title", ""))[:80] if held is not None else ""
    if one.kind in ("plan", "job", "result"):
        return str(words.term(one.text("purpose"))) if one.text("purpose") else str(words.short(one.plan))
    return str(one.text("event"))


def _entries(course: Course) -> tuple[int, ...]:
    found = [course.first, *course.between, *([course.outcome] if course.outcome else ()), *course.acknowledgements]
    return tuple(one.index for one in found)


def judged_of(course: Course) -> list[dict[str, Any]]:
    """Each constraint in words with the value it was judged by."""
    rows = course.decision.get("constraints", ())
    return [
        {
            "operand": words.term(one.get("operand", "")),
            "operator": words.term(one.get("operator", "")),
            "right": str(words.term(one.get("right", ""))),
            "left": str(words.term(one.get("left", ""))),
            "holds": one.get("satisfied") is True,
            "clause": str(one.get("note", "")),
        }
        for one in rows
        if isinstance(one, Mapping)
    ]
