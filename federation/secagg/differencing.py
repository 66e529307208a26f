"""Which sums may be opened beside those that were: rules R4 and R5, in one place, without I/O.

Sums over different sets of companies can be added and taken away: ``{a,b,c} + {a,d,e} - {b,c,d,e}`` is twice ``a``, although
no two of them are nearly the same. So without noise a node opens sums over **one** set alone for each version of its own data.
Then every honest company is in one set, whatever the others do: no combination of sums tells two companies of a set apart.

A company whose data changed counts as another one: two sums over the same companies would differ by the change. A source that
is read anew for each job has no version that changes; whoever holds one compares its readings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from federation.errors import DeniedError

DIFFERENCE_ENTITIES: Final = 2
"""Two sums, one of which carries noise, whose companies differ by so few say too much of those few."""


class DifferenceError(DeniedError):
    """A sum and those that were opened before would together say something of few companies."""

    code = "differencing"


@dataclass(frozen=True)
class Opened:
    """A set of survivors that was opened, or is about to be.

    Attributes:
        plan: digest of the plan.
        stage: of the plan; stages that release arrays alike go by one name.
        content: digest of the broadcast content; empty before there is one.
        members: legal entity of each node; none where a record was lost, so that nobody knows them.
        data: dataset and version of each node, as the plan names them; a record of before does not say.
        noised: every reply in it carries noise.
        readings: what this node read of a live source: for each column what its values hash to, and the number of rows under the
            empty name. None for a source whose versions say when it changes.
    """

    plan: str
    stage: str
    content: str
    members: Mapping[str, str]
    data: Mapping[str, str] = field(default_factory=dict)
    noised: bool = False
    readings: Sequence[Mapping[str, str]] = ()


def check_difference(wanted: Opened, earlier: Iterable[Opened]) -> None:
    """Rules 4 and 5: raise where a sum and earlier ones would together say something of few companies.

    Args:
        wanted: the set that is about to be opened, or the whole cohort of a plan.
        earlier: what was opened on the same version of this node's data, and no owner's word stands against counting it.

    Raises:
        DifferenceError: with the names of the companies in which the sets differ.
    """
    for one in earlier:
        if one.plan == wanted.plan:
            _within(wanted, one)
        elif one.noised or wanted.noised:
            _check_few(_apart(one.members, wanted.members))
        else:
            _across(wanted, one)


def _within(wanted: Opened, one: Opened) -> None:
    if not set(wanted.members) <= set(one.members):
        raise DifferenceError("a node that was left out of an opened round does not come back into the job")
    if not wanted.content or (one.stage, one.content) != (wanted.stage, wanted.content):
        return
    apart = _apart(one.members, wanted.members)
    if wanted.noised:
        _check_few(apart)
    elif apart:
        raise DifferenceError(
            "a sum of the same content was opened with {entities} in it; there is no second one without",
            entities=", ".join(sorted(apart)),
        )


def _across(wanted: Opened, one: Opened) -> None:
    if not one.members:
        raise DifferenceError(
            "which sums were opened on this data before is not known here: the ledger of that time was lost",
            hint="plan with noise (`--rho`), or have the data's owner allow it (`keyong node openings --allow`)",
        )
    apart = _apart(one.members, wanted.members) | {
        wanted.members[node]
        for node in set(one.data) & set(wanted.data) & set(wanted.members)
        if one.data[node] != wanted.data[node]
    }
    if apart:
        raise DifferenceError(
            "sums of other companies, or of other data of theirs, were opened beside this data ({entities} differ); together they"
            " can tell one company's part",
            hint="take the same companies and data as before, plan with noise (`--rho`), or have each owner allow it"
            " (`keyong node openings`)",
            entities=", ".join(sorted(apart)),
        )
    pairs = itertools.product(one.readings, wanted.readings)
    if any(before[name] != after[name] for before, after in pairs for name in set(before) & set(after)):
        raise DifferenceError(
            "the rows of this live source changed since a sum was opened; the two sums would differ by the change",
            hint="plan with noise (`--rho`), or have the source's owner allow it (`keyong node openings`)",
        )


def _check_few(apart: set[str]) -> None:
    if 1 <= len(apart) <= DIFFERENCE_ENTITIES:
        raise DifferenceError(
            "a sum without {entities}, or with, was opened before on this data: the two would differ by too few",
            hint="take the same companies as before, or have each owner say that it may (`keyong node openings`)",
            entities=", ".join(sorted(apart)),
        )


def _apart(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {entity for _, entity in set(one.items()) ^ set(other.items())}
