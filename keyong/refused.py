"""What a node said against a plan, in words: for whoever asked, where one sentence must do for all nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from federation.policy import refusal
from federation.statements import DecisionRecord
from keyong.text import Said


def first_refusal(told: Sequence[Mapping[str, Any]]) -> tuple[str, Said, Said]:
    """The first node that refused with a reason that is known here, its reason, and what to do; empty where none is."""
    for one in told:
        reason, hint = _words(str(one.get("code", "")), one.get("clause"))
        if reason:
            return str(one.get("node", "")), reason, hint
    return "", Said({}), Said({})


def _words(code: str, clause: Any) -> tuple[Said, Said]:
    from keyong.cli._refusals import CODES

    if clause and code not in CODES:
        try:
            why = refusal(DecisionRecord.model_validate(dict(clause)))
        except ValueError:  # of an older or newer node
            return Said({}), Said({})
        said = {"reason": why.template, "hint": why.hint_template, "params": why.params}
        data = {"reason": why.message, "hint": why.hint, "said": said}
        return Said(data), Said(data, "hint")
    sentence, hint = CODES.get(code, ("", ""))
    return Said({"reason": sentence}), Said({"reason": hint})
