"""A policy as plain sentences, one a clause, in English and Chinese: what a person reads before signing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from federation.policy._sentences import ACTIONS, OPERANDS, OPERATORS, PURPOSE_NAMES, SENTENCES, UNITS, WORDS
from federation.policy.decision import speaks_of_protection
from federation.policy.duties import amount_due, tracked_duties
from federation.policy.model import (
    AnyConstraint,
    Constraint,
    Duty,
    LogicalConstraint,
    Permission,
    Policy,
    demanded,
    terms_of,
)
from federation.policy.values import DATASET_PREFIX, MEMBER_PREFIX, UnreadableValueError, parse_duration
from federation.policy.vocabulary import BILATERAL, TRACKED_DUTIES, UNBOUNDED
from federation.policy.vocabulary import OPERANDS as KNOWN

Language = Literal["en", "zh"]


def describe(policy: Policy, lang: Language) -> list[str]:
    """What the policy says, one sentence a clause, in the order of the policy; no clause is left out.

    Args:
        policy: the policy.
        lang: ``en`` or ``zh``.
    """
    say = SENTENCES[lang]
    head = "agreement" if policy.type == "Agreement" else "offer"
    sentences = [
        say[head].format(
            provider=policy.assigner.removeprefix(MEMBER_PREFIX),
            consumer=policy.assignee.removeprefix(MEMBER_PREFIX),
            dataset=policy.target.removeprefix(DATASET_PREFIX).split(":", 1)[-1],
        )
    ]
    for actions, permission in _alike(policy.permission):
        named = WORDS[lang]["comma"].join(_action(action, lang) for action in actions)
        sentences.append(say["may"].format(action=named))
        sentences.extend(_constraint(constraint, lang) for constraint in permission.constraint)
        if not speaks_of_protection(permission):
            sentences.append(say["masked"])
        sentences.extend(_duty(duty, lang) for duty in permission.duty)
    for prohibition in policy.prohibition:
        key = "may not where" if prohibition.constraint else "may not"
        sentences.append(say[key].format(action=_action(prohibition.action, lang)))
        sentences.extend(_constraint(constraint, lang) for constraint in prohibition.constraint)
    if tracked_duties(policy):
        sentences.append(say["overdue"])
    return sentences


def describe_clause(policy: Policy, rule: str, lang: Language) -> list[str]:
    """What one clause of a policy says, as ``permission/0`` or ``prohibition/1`` names it; nothing where it has no such."""
    kind, _, number = rule.partition("/")
    if kind not in ("permission", "prohibition") or not number.isdecimal():
        return []
    chosen = getattr(policy, kind)[int(number) : int(number) + 1]
    alone = {"permission": (), "prohibition": (), kind: chosen}
    return describe(policy.model_copy(update=alone), lang)[1:] if chosen else []


def name_of(term: str, lang: Language) -> str:
    """An action, a purpose, an operand or an operator in words; the term itself where it has none."""
    for table in (ACTIONS, PURPOSE_NAMES, OPERANDS, OPERATORS):
        if term in table[lang]:
            return table[lang][term]
    return term


def _alike(permissions: Sequence[Permission]) -> list[tuple[list[str], Permission]]:
    """Permissions one after the other that differ in nothing but their action are read as one: uses count together anyway."""
    found: list[tuple[list[str], Permission]] = []
    for one in permissions:
        if found and one.model_copy(update={"action": found[-1][1].action}) == found[-1][1]:
            found[-1][0].append(one.action)
        else:
            found.append(([one.action], one))
    return found


def _action(action: str, lang: Language) -> str:
    return ACTIONS[lang].get(action, action)


def _duty(duty: Duty, lang: Language) -> str:
    say, action = SENTENCES[lang], duty.action
    if action == "odrl:inform":
        return say["inform"]
    if action not in say:
        return say["duty"].format(duty=action)
    if action not in TRACKED_DUTIES:
        return say[action]
    bounds = [
        say["within" if one.left == "odrl:elapsedTime" else "until"].format(
            value=_term(one.left, terms_of(one)[0], lang)
        )
        for one in demanded(duty.constraint)
        if one.left != "odrl:payAmount"
    ]
    amount = amount_due(duty)
    due = say["by the tariff"] if amount is None else f"{amount:f}"
    return say[action].format(amount=due, bounds=WORDS[lang]["comma"].join(bounds))


def _constraint(constraint: AnyConstraint, lang: Language) -> str:
    say = SENTENCES[lang]
    if isinstance(constraint, LogicalConstraint):
        parts = [_constraint(part, lang).rstrip(".。") for part in constraint.parts]
        return say[constraint.operator].format(parts=WORDS[lang]["separator"].join(parts))
    terms = terms_of(constraint)
    if constraint.left == "fed:protection":
        return _protection(constraint, terms, lang)
    if constraint.left == "fed:rho" and UNBOUNDED in terms:
        return say["unbounded"]
    operator = "eq" if constraint.operator == "isAnyOf" and len(terms) == 1 else constraint.operator
    key = f"{constraint.left} {operator}"
    values = WORDS[lang]["comma"].join(_term(constraint.left, term, lang) for term in terms)
    if key in say:
        return say[key].format(value=values)
    operand = OPERANDS[lang].get(constraint.left, constraint.left)
    return say["any"].format(operand=operand, operator=OPERATORS[lang].get(operator, operator), value=values)


def _protection(constraint: Constraint, terms: tuple[str, ...], lang: Language) -> str:
    """Unprotected updates are an exception to invariant 5, so they must stand there in words."""
    say = SENTENCES[lang]
    others = set(terms) - {BILATERAL}
    also = [say["bilateral"]] if BILATERAL in terms else []
    if "fed:none" in others:
        return " ".join([say["unprotected only"] if others == {"fed:none"} else say["unprotected"], *also])
    return " ".join([say["masked"]] * bool(others or not also) + also)


def _term(operand: str, term: str, lang: Language) -> str:
    if operand == "odrl:purpose":
        return PURPOSE_NAMES[lang].get(term, term)
    if operand in KNOWN and KNOWN[operand].kind == "duration":
        return _duration(term, lang)
    return term.removeprefix(MEMBER_PREFIX).removeprefix("event:")


def _duration(term: str, lang: Language) -> str:
    try:
        seconds = int(parse_duration(term).total_seconds())
    except UnreadableValueError:
        return term
    parts = (seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60, seconds % 60)
    said = [f"{number} {unit}" for number, unit in zip(parts, UNITS[lang], strict=True) if number]
    return " ".join(said) or f"0 {UNITS[lang][-1]}"
