"""What came of an audit as one HTML file without scripts: verdicts, findings, and the entries that show them."""

from __future__ import annotations

from collections.abc import Sequence

from federation.home import now
from federation.statements import instant_text
from keyong.auditing import Audit
from keyong.pages.still import whole
from keyong.text import explain

Finding = tuple[str, str, str, str]
"""Code, against whom, what, entries."""


def audit_page(found: Audit, fingerprint: str, forks: Sequence[str], findings: Sequence[Finding]) -> str:
    """The audit on one page, in the language that is spoken now.

    Args:
        forks, findings: in the words of the command.
    """
    return whole(
        "still_audit.html",
        found=found,
        fingerprint=fingerprint,
        made=instant_text(now()),
        forks=forks,
        findings=findings,
        faults={one.member.id: explain(one.error)[0] for one in found.ledgers if one.error is not None},
    )
