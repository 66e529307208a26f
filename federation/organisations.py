"""Which members are one organisation, by all rosters of a chain: what counts as one voice, whatever it is called now.

A roster names each member's legal entity in words, and words change: a company takes another name, or its second member is
entered under another spelling. A name alone would let one company count twice (once under each), so two members are one
organisation where they were ever entered under one name, and a name is the same organisation as another where one member
bore both. A member that was removed, and whose id was entered again later, is not held to be who it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.statements import Roster


def organisations(rosters: Sequence[Roster]) -> Mapping[str, str]:
    """For each member, by its id, the organisation that it belongs to: members of one have the same value, no others have.

    Args:
        rosters: of one chain, oldest first. Of an id that was given twice the later holder counts.
    """
    above: dict[tuple[str, ...], tuple[str, ...]] = {}

    def top(one: tuple[str, ...]) -> tuple[str, ...]:
        while above.setdefault(one, one) != one:
            one = above[one]
        return one

    runs: dict[str, int] = {}
    present: set[str] = set()
    for roster in rosters:
        here = {member.id for member in roster.members}
        for member in roster.members:
            if member.id not in present:
                runs[member.id] = runs.get(member.id, 0) + 1
            above[top((member.id, str(runs[member.id])))] = top((member.entity,))
        present = here
    labels: dict[tuple[str, ...], str] = {}
    for run in sorted((member, str(number)) for member, number in runs.items()):
        labels.setdefault(top(run), run[0])
    return {member: labels[top((member, str(number)))] for member, number in runs.items()}
