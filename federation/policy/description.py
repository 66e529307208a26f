"""A policy as plain sentences, one a clause, in English and Chinese: what a person reads before signing."""

from __future__ import annotations

from typing import Literal

from federation.policy._sentences import ACTIONS, OPERATORS, PURPOSE_NAMES, SENTENCES, WORDS
from federation.policy.decision import speaks_of_protection
from federation.policy.model import AnyConstraint, Constraint, LogicalConstraint, Policy, terms_of
from federation.policy.values import DATASET_PREFIX, MEMBER_PREFIX

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
    for permission in policy.permission:
        sentences.append(say["may"].format(action=_action(permission.action, lang)))
        sentences.extend(_constraint(constraint, lang) for constraint in permission.constraint)
        if not speaks_of_protection(permission):
            sentences.append(say["masked"])
        sentences.extend(_duty(duty.action, lang) for duty in permission.duty)
    for prohibition in policy.prohibition:
        key = "may not where" if prohibition.constraint else "may not"
        sentences.append(say[key].format(action=_action(prohibition.action, lang)))
        sentences.extend(_constraint(constraint, lang) for constraint in prohibition.constraint)
    return sentences


def _action(action: str, lang: Language) -> str:
    return ACTIONS[lang].get(action, action)


def _duty(action: str, lang: Language) -> str:
    say = SENTENCES[lang]
    if action == "odrl:inform":
        return say["inform"]
    return say[action] if action in say else say["duty"].format(duty=action)


def _constraint(constraint: AnyConstraint, lang: Language) -> str:
    say = SENTENCES[lang]
    if isinstance(constraint, LogicalConstraint):
        parts = [_constraint(part, lang).rstrip(".。") for part in constraint.parts]
        return say[constraint.operator].format(parts=WORDS[lang]["separator"].join(parts))
    terms = terms_of(constraint)
    if constraint.left == "fed:protection":
        return _protection(constraint, terms, lang)
    key = f"{constraint.left} {constraint.operator}"
    values = WORDS[lang]["comma"].join(_term(constraint.left, term, lang) for term in terms)
    if key in say:
        return say[key].format(value=values)
    operator = OPERATORS[lang].get(constraint.operator, constraint.operator)
    return say["any"].format(operand=constraint.left, operator=operator, value=values)


def _protection(constraint: Constraint, terms: tuple[str, ...], lang: Language) -> str:
    """Unprotected updates are an exception to invariant 5, so they must stand there in words."""
    say = SENTENCES[lang]
    if "fed:none" not in terms:
        return say["masked"]
    return say["unprotected only"] if set(terms) == {"fed:none"} else say["unprotected"]


def _term(operand: str, term: str, lang: Language) -> str:
    if operand == "odrl:purpose":
        return PURPOSE_NAMES[lang].get(term, term)
    return term.removeprefix(MEMBER_PREFIX)
