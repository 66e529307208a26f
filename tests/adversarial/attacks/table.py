"""The table of attacks in docs/security.md, as the catalogue has it; the tests show that the catalogue is right."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.adversarial.attacks.ground import GROUPS, catalogue

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
BEGIN, END = "<!-- attacks: written by tests/adversarial/attacks -->", "<!-- end of attacks -->"

LAYERS = {
    "seccomp": "the system call filter",
    "landlock": "Landlock",
    "pid-namespace": "the process namespace",
    "empty-environment": "the empty environment",
    "close-descriptors": "closing what was inherited",
    "bounds": "the kernel's bounds of a process (rlimits)",
    "supervisor": "the supervisor that adds up a session",
    "clock": "the clock",
    "gate": "the output gate",
}
"""Layers that can be left out one at a time, each of which something rests on."""
SECOND_WALLS = {
    "network-namespace": "The filter refuses every socket but a local one, and Landlock the host's abstract ones; without "
    "those two, TCP, UDP and the host's abstract sockets open up.",
    "read-only": "Landlock grants no writing outside of scratch, and the files are another user's where root runs the "
    "node; where an ordinary user does, it alone holds off a change of their mode and times.",
    "own-uid": "Where root starts the node. Read-only `/proc/sys` and Landlock each hold off what root's uid would open "
    "(`core_pattern`).",
    "proc-sys": "The same wall from its other side.",
}
"""Layers that are a second wall: what gets past them meets another."""
HEADINGS = {
    "files": "Files and devices",
    "network": "Network",
    "processes": "Processes",
    "kernel": "Kernel",
    "resources": "Resources",
    "replies": "The way out",
}


TIERS = ("T3", "T2", "T1")
HELD = "held off"
CONCEDED = {"T3": "gVisor's own", "T2": "**succeeds**", "T1": "**succeeds**"}
"""How the page says that an attack is conceded at a tier: at T3 it reaches the session's own kernel, which is gVisor's."""


def table() -> str:
    """The generated part of the page."""
    by_group = defaultdict(list)
    for one in catalogue().values():
        by_group[one.name.partition(".")[0]].append(one)
    lines = [f"{len(catalogue())} attacks.", ""]
    for group in GROUPS:
        lines += [
            f"### {HEADINGS[group]}",
            "",
            "| the job | T3 | T2 | T1 | succeeds at T2 without |",
            "|---|---|---|---|---|",
        ]
        for one in by_group[group]:
            cells = [HELD if tier not in one.conceded else CONCEDED[tier] for tier in TIERS]
            alone = ", ".join(LAYERS[layer] for layer in LAYERS if layer in one.only) or "-"
            lines.append(f"| {one.text} | {cells[0]} | {cells[1]} | {cells[2]} | {alone} |")
        lines.append("")
    lines += ["Layers that are a second wall:", ""]
    lines += [f"- `{layer}`. {why}" for layer, why in SECOND_WALLS.items()]
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with its generated part as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"
