"""What the server itself makes of the ledger: verified in a process of its own, so that pages stay quick meanwhile.

A page says it as the server's word. The reader's browser can find out by itself (``assets/check.js``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from federation.errors import VerificationError
from federation.home import now
from federation.ledger import verify_ledger
from federation.statements import instant_text
from keyong.embedded import StatementCheck
from keyong.evidence import open_evidence
from keyong.text import LANGUAGES, explain, speaking


@dataclass(frozen=True)
class Judgement:
    """A verdict, or the fault.

    Attributes:
        size: entries judged, or how many there were.
        state: ``unanchored``, ``partly witnessed``, ``witnessed`` or ``final``; empty where it does not hold.
        fault: code of the error; empty where it holds.
        entry: where it does not hold, if an entry can be named.
        sentences: the fault in each language.
    """

    at: str
    size: int = 0
    state: str = ""
    anchored: int = 0
    witnesses: tuple[str, ...] = ()
    completeness: str = ""
    open_steps: tuple[int, ...] = ()
    erased: int = 0
    withheld: int = 0
    statements: int = 0
    fault: str = ""
    entry: int | None = None
    sentences: tuple[tuple[str, str], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the history's integrity holds."""
        return not self.fault


def judge(path: Path, fingerprint: str, progress: Callable[[int, int], None] | None = None) -> Judgement:
    """Verify the ledger at ``path`` by every rule, its statements too; a fault is a verdict here, not an error."""
    try:
        with open_evidence(path, fingerprint) as evidence:
            check = StatementCheck(evidence.rosters, evidence.continues)
            verdict = verify_ledger(
                evidence.ledger,
                evidence.vkey,
                witnesses=evidence.quorum.keys,
                checkpoints=evidence.checkpoints,
                on_entry=check.on_entry,
                progress=progress,
            )
            final = verdict.anchoring == "witnessed" and evidence.quorum.final(verdict.checkpoint, evidence.vkey)
            return Judgement(
                at=instant_text(now()),
                size=verdict.entries,
                state="final" if final else verdict.anchoring,
                anchored=verdict.anchored_size,
                witnesses=evidence.quorum.members(verdict.witnesses),
                completeness=verdict.completeness,
                open_steps=verdict.open_intents[:20],
                erased=verdict.erased,
                withheld=verdict.withheld,
                statements=verdict.checked,
            )
    except VerificationError as error:
        return fault(error)


def fault(error: VerificationError) -> Judgement:
    """The verdict that an error is."""
    told = []
    for lang in LANGUAGES:
        with speaking(lang):
            told.append((lang, explain(error)[0]))
    index = getattr(error, "index", None)
    return Judgement(instant_text(now()), fault=error.code, entry=index, sentences=tuple(told))
