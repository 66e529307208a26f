"""The way of an invocation as stations: who asked, under which clause, on which data, with which code, what left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from federation.policy import describe_clause
from federation.privacy import rho_text
from keyong.pages import words
from keyong.pages.course import Course
from keyong.pages.records import Record
from keyong.text import language, translate

Place = Literal["outside", "inside"]


@dataclass(frozen=True)
class Station:
    """One stop: a label, what it is, lines below it; ``entry`` is where it stands in the ledger."""

    label: str
    title: str
    lines: tuple[str, ...] = ()
    entry: int | None = None
    time: str = ""
    tone: str = "quiet"
    place: Place = "outside"
    link: str = ""


@dataclass(frozen=True)
class Way:
    """Stations in order; those inside stand within the company named here."""

    company: str
    stations: tuple[Station, ...]


def way_of(course: Course, owner: str, entities: Mapping[str, str]) -> Way:
    """The stations of an invocation at the node whose ledger it stands in."""

    def named(member: object) -> str:
        text = str(member or "")
        return f"{entities[text]} ({text})" if text in entities and entities[text] != text else text

    stations = [_asked(course, named), _sent(course), _decided(course)]
    if not course.refused:
        stations += [_data(course), _code(course), *map(_held, course.between), _gate(course)]
    stations += [_left(course), _receipt(course, named)]
    return Way(named(owner), tuple(one for one in stations if one is not None))


def _asked(course: Course, named: Any) -> Station | None:
    requester, purpose = course.says("requester"), course.says("purpose")
    lines = [translate("job {plan}", plan=words.short(course.plan))] if course.plan else []
    if purpose:
        lines.insert(0, translate("purpose: {purpose}", purpose=words.term(purpose)))
    if not requester and not course.plan:
        return None
    title = named(requester) if requester else translate("a requester that the entry does not name")
    return Station(translate("who asked"), title, tuple(lines), link=f"/job/{course.plan}" if course.plan else "")


def _sent(course: Course) -> Station | None:
    said = course.invocation
    if not said:
        return None
    title = translate(
        "round {round}, {stage}", round=said.get("round", ""), stage=words.term(f"fed:{said.get('stage')}")
    )
    lines = (translate("content {digest}", digest=words.short(said.get("content", ""))),)
    return Station(translate("the coordinator's request"), title, lines, time=str(said.get("issued", "")))


def _decided(course: Course) -> Station:
    decision, first = course.decision, course.first
    permit = decision.get("permit") is True
    judged = [one for one in decision.get("constraints", ()) if isinstance(one, Mapping)]
    held = sum(one.get("satisfied") is True for one in judged)
    rule = str(decision.get("rule", ""))
    title = translate("permitted") if permit else translate("turned down")
    if not permit and (code := first.text("code") or str(course.receipt.get("code", ""))):
        title = translate("refused: {reason}", reason=code)
    lines = []
    if course.agreement is not None:
        lines.append(
            translate("agreement: {title}", title=str(course.agreement.statement("agreement").get("title", "")))
        )
    lines += describe_clause(course.policy, rule, language())[:1] if course.policy is not None else []
    if rule:
        lines.append(translate("deciding clause: {rule}", rule=rule))
    if judged:
        lines.append(translate("{held} of {all} constraints hold", held=held, all=len(judged)))
    return Station(
        translate("the decision"), title, tuple(lines), first.index, first.time, "good" if permit else "bad", "inside",
        link="#clauses" if judged else "",
    )  # fmt: skip


def _data(course: Course) -> Station:
    version, snapshot = course.says("data_version"), course.receipt.get("snapshot")
    lines = [translate("version {digest}", digest=words.short(version))] if version else []
    if snapshot:
        lines.append(translate("snapshot {digest}", digest=words.short(snapshot)))
    if course.says("rules"):
        lines.append(translate("desensitised by the rules {digest}", digest=words.short(course.says("rules"))))
    if weight := course.receipt.get("weight"):
        lines.append(translate("{count} rows", count=words.number(weight)))
    return Station(translate("which data"), str(course.says("dataset")), tuple(lines), place="inside")


def _code(course: Course) -> Station:
    digest = course.says("code") or course.receipt.get("code_digest", "")
    isolation = course.receipt.get("isolation")
    tier = isolation.get("tier") if isinstance(isolation, Mapping) else ""
    lines = [translate("runtime {digest}", digest=words.short(course.says("runtime")))]
    if tier:
        lines.append(translate("in isolation of tier {tier}, without network", tier=tier))
    elif course.outcome is not None:
        lines.append(translate("no job code ran in this step"))
    title = translate("code {digest}", digest=words.short(digest))
    return Station(translate("which code"), title, tuple(lines), place="inside")


def _held(record: Record) -> Station:
    digest = record.digest("statement")
    lines = [translate("statement {digest}", digest=words.short(digest))] if digest else []
    if stage := record.text("stage"):
        lines.insert(0, stage)
    if decision := record.text("decision"):
        lines.append(decision)
    return Station(
        translate("on record meanwhile"),
        words.kind(record.kind),
        tuple(lines),
        record.index,
        record.time,
        place="inside",
    )


def _gate(course: Course) -> Station:
    state, receipt = course.state, course.receipt
    title = {
        "ok": translate("passed the output gate"),
        "open": translate("not ended: there is no outcome on record"),
    }.get(state) or translate("{outcome}: {code}", outcome=words.outcome(state), code=str(receipt.get("code", "")))
    lines = [words.protection(str(course.says("protection")))]
    if exception := receipt.get("exception"):
        lines.append(translate("exception: {clause}", clause=str(exception)))
    if rho := receipt.get("micro_rho"):
        lines.append(translate("privacy budget spent: rho {rho}", rho=rho_text(rho) if type(rho) is int else ""))
    if bits := receipt.get("leak_bits"):
        lines.append(translate("at most {bits} bits of information", bits=words.number(bits)))
    outcome = course.outcome
    tone = "good" if state == "ok" else "bad"
    index, time = (outcome.index, outcome.time) if outcome is not None else (None, "")
    return Station(translate("the output gate"), title, tuple(lines), index, time, tone, "inside")


def _left(course: Course) -> Station:
    receipt, state = course.receipt, course.state
    size, digest = receipt.get("output_bytes"), receipt.get("output")
    if state == "ok" and size:
        lines = (translate("content {digest}", digest=words.short(digest)),) if digest else ()
        return Station(
            translate("what left"), words.amount(size), lines, time=str(receipt.get("ended", "")), tone="good"
        )
    if state == "open":
        return Station(translate("what left"), translate("not known: the step has no outcome"), tone="bad")
    if course.outcome is not None and not receipt:
        return Station(translate("what left"), translate("sealed: the receipt is erased or not disclosed"))
    stages = tuple(words.kind(one.kind) for one in course.between if one.kind == "stage")
    return Station(translate("what left"), translate("nothing but this refusal or its receipt"), stages)


def _receipt(course: Course, named: Any) -> Station | None:
    record = course.outcome if course.outcome is not None else course.first if course.refused else None
    if record is None or not record.digest("receipt"):
        return None
    lines = [translate("receipt {digest}", digest=words.short(record.digest("receipt")))]
    for one in course.acknowledgements:
        by = one.text("requester") or one.statement("ack").get("requester", "")
        lines.append(translate("acknowledged by {member} in entry {entry}", member=named(by), entry=one.index))
    title = translate("signed by {member}", member=named(course.receipt.get("node", "")))
    return Station(translate("the receipt"), title, tuple(lines), record.index, record.time, "good")


def way_of_job(records: Sequence[Record], owner: str, entities: Mapping[str, str]) -> Way:
    """A job at a party that computes nothing itself: what it has on record of it, in order."""
    stations = []
    for record in records:
        lines = []
        if said := record.text("event") or record.text("status"):
            lines.append(words.outcome(said))
        if node := record.text("node"):
            lines.append(f"{entities.get(node, node)} ({node})")
        rows = record.values.get("receipts")
        if isinstance(rows, list | dict):
            lines.append(translate("{count} receipts", count=_count(rows)))
        if code := record.text("code"):
            lines.append(code)
        said_tone = words.tone(record.text("event") or record.text("status"))
        tone = "bad" if record.kind == "not-taken" else said_tone
        stations.append(
            Station(words.kind(record.kind), lines[0] if lines else words.kind(record.kind), tuple(lines[1:]),
                    record.index, record.time, tone, "inside", f"/entry/{record.index}")
        )  # fmt: skip
    return Way(f"{entities.get(owner, owner)} ({owner})", tuple(stations))


def _count(rows: Any) -> int:
    if isinstance(rows, list):
        return len(rows)
    return sum(one.get("count", 0) for one in rows.values() if isinstance(one, dict) and type(one.get("count")) is int)
