"""The table of attacks in docs/security.md, in either language, as the catalogue has it; the tests show that it is right."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.adversarial.attacks.chinese import CHINESE
from tests.adversarial.attacks.ground import GROUPS, catalogue
from tests.adversarial.attacks.words import Words

DOCS = Path(__file__).parents[3] / "docs"
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
    "network-namespace": ". The filter refuses every socket but a local one, and Landlock the host's abstract ones; without "
    "those two, TCP, UDP and the host's abstract sockets open up.",
    "read-only": ". Landlock grants no writing outside of scratch, and the files are another user's where root runs the "
    "node; where an ordinary user does, it alone holds off a change of their mode and times.",
    "own-uid": ". Where root starts the node. Read-only `/proc/sys` and Landlock each hold off what root's uid would open "
    "(`core_pattern`).",
    "proc-sys": ". The same wall from its other side.",
}
"""Layers that are a second wall: what gets past them meets another."""

TIERS = ("T3", "T2", "T1")
ENGLISH = Words(
    count="{count} attacks.",
    columns=("the job", "T3", "T2", "T1", "succeeds at T2 without"),
    headings={
        "files": "Files and devices",
        "network": "Network",
        "processes": "Processes",
        "kernel": "Kernel",
        "resources": "Resources",
        "replies": "The way out",
    },
    held="held off",
    # What is conceded at T3 reaches the session's own kernel, which is gVisor's.
    conceded={"T3": "gVisor's own", "T2": "**succeeds**", "T1": "**succeeds**"},
    layers=LAYERS,
    comma=", ",
    walls_above="Layers that are a second wall:",
    walls=SECOND_WALLS,
)
"""What docs/security.md says."""
PAGES = {DOCS / "security.md": ENGLISH, DOCS / "zh" / "security.md": CHINESE}


def table(words: Words) -> str:
    """The generated part of the page.

    Raises:
        KeyError: The language has no words for an attack, a group or a layer.
    """
    by_group = defaultdict(list)
    for one in catalogue().values():
        by_group[one.name.partition(".")[0]].append(one)
    lines = [words.count.format(count=len(catalogue())), ""]
    for group in GROUPS:
        lines += [f"### {words.headings[group]}", "", f"| {' | '.join(words.columns)} |", "|---|---|---|---|---|"]
        for one in by_group[group]:
            cells = [words.held if tier not in one.conceded else words.conceded[tier] for tier in TIERS]
            alone = words.comma.join(words.layers[layer] for layer in LAYERS if layer in one.only) or "-"
            text = one.text if words.attacks is None else words.attacks[one.name]
            lines.append(f"| {text} | {cells[0]} | {cells[1]} | {cells[2]} | {alone} |")
        lines.append("")
    lines += [words.walls_above, ""]
    lines += [f"- `{layer}`{words.walls[layer]}" for layer in SECOND_WALLS]
    return "\n".join(lines) + "\n"


def written(page: str, words: Words) -> str:
    """The page with its generated part as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(words)}\n{END}{after}"
