"""When a node releases its shares, and when it does not: the rules, in one place, without I/O.

A round opens to the sum of its survivors. Each rule keeps a coordinator, with the requester and fewer than ``2t - n`` nodes
on its side, from opening a sum that says something of one company, or two sums whose difference does:

1. the survivors are participants, this node among them, at least ``t``, in each neighbourhood at least its own ``t``, and at
   least as many as the plan demands;
2. each of them signed for its vector, in the same cohort and round and for the same content;
3. their distinct accepted legal entities, without the requester's and the coordinator's, are as many as the agreement
   and this release demand, and in this node's own neighbourhood as many as this release demands;
4. nobody in the plan who was left out of an opened round is back in a later one;
5. no other set was opened before, for the same content or under another plan on the same data version (both in
   `federation.secagg.differencing`);
6. nobody of the cohort has withdrawn;
7. at least ``t`` participants acknowledged this very set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from federation.errors import DeniedError
from federation.secagg.announcements import MaskingError, Public, Scope
from federation.secagg.cohorts import MINIMUM_ENTITIES
from federation.secagg.graph import MaskGraph
from federation.secagg.mask_keys import MaskContext
from federation.statements import Envelope
from federation.statements.masking import Acknowledgement, MaskedInput, SurvivorSet, Withdrawal


class SurvivorsError(DeniedError):
    """The survivors are not ones for whom this node releases shares."""

    code = "survivors"


class WithdrawnError(DeniedError):
    """A node has taken its vector back."""

    code = "withdrawn"


def check_entities(members: Mapping[str, str], accepted: Collection[str], outside: Collection[str], least: int) -> None:
    """Rule 3.

    Args:
        members: legal entity of each node.
        accepted: those that this node's owner accepted.
        outside: the requester's and the coordinator's.
        least: what the agreement demands; never fewer than this release's own minimum.

    Raises:
        SurvivorsError: too few.
    """
    count = len((set(members.values()) & set(accepted)) - set(outside))
    if count < max(least, MINIMUM_ENTITIES):
        raise SurvivorsError(
            "{count} accepted companies are in it, without the requester's and the coordinator's; it takes {least}",
            hint="accept the companies you know (`keyong peers accept`), or plan with more",
            code="min-participants",
            count=count,
            least=max(least, MINIMUM_ENTITIES),
        )


def check_inputs(
    survivors: SurvivorSet,
    inputs: Sequence[Envelope],
    context: MaskContext,
    scope: Scope,
    public: Public,
    now: datetime,
) -> None:
    """Rules 1 (without the plan's own number) and 2.

    Raises:
        MaskingError: a survivor is no participant, or has signed for nothing, or for something else.
        SurvivorsError: too few are left.
        VerificationError subclasses: a signature does not hold.
    """
    said = (survivors.plan, survivors.cohort, survivors.round, survivors.attempt)
    if said != (context.plan, context.cohort, context.round, context.attempt):
        raise MaskingError("the survivor set is for another cohort or round")
    if not set(survivors.survivors) <= set(scope.participants):
        raise MaskingError("a survivor is none of the participants")
    if len(survivors.survivors) < scope.threshold:
        raise SurvivorsError(
            "{count} of {all} nodes are left; it takes {need} to open the round",
            count=len(survivors.survivors),
            all=len(scope.participants),
            need=scope.threshold,
        )
    graph = MaskGraph(scope.participants, context.cohort)
    if thin := graph.thin(survivors.survivors):
        raise SurvivorsError(
            "around {node} fewer nodes are left than the {need} of {size} that it takes to open the round",
            node=thin[0],
            need=graph.threshold,
            size=graph.size,
        )
    signed: set[str] = set()
    for envelope in inputs:
        claimed = MaskedInput.read(envelope)
        if claimed.node not in survivors.survivors or claimed.node in signed:
            raise MaskingError("a masked input comes twice or from no survivor")
        one = MaskedInput.open(envelope, [public(claimed.node)], now)
        if (one.plan, one.cohort, one.round, one.attempt, one.stage, one.content) != (
            context.plan,
            context.cohort,
            context.round,
            context.attempt,
            context.stage,
            context.content,
        ):
            raise MaskingError("{node} masked for another cohort, round or content", node=one.node)
        signed.add(one.node)
    if signed != set(survivors.survivors):
        raise MaskingError("a survivor signed for no masked input")


def check_withdrawals(
    withdrawals: Sequence[Envelope], context: MaskContext, scope: Scope, public: Public, now: datetime
) -> None:
    """Rule 6: raise where one of these is a participant's own word for this attempt; others are passed over.

    Raises:
        WithdrawnError: a participant has withdrawn.
        VerificationError subclasses: a signature does not hold.
    """
    for envelope in withdrawals:
        claimed = Withdrawal.read(envelope)
        if claimed.node not in scope.participants:
            continue
        one = Withdrawal.open(envelope, [public(claimed.node)], now)
        if (one.plan, one.round, one.attempt) == (context.plan, context.round, context.attempt):
            raise WithdrawnError("{node} has taken its masked vector back", node=one.node)


def check_acknowledgements(
    survivors: Envelope,
    acknowledgements: Sequence[Envelope],
    scope: Scope,
    public: Public,
    now: datetime,
    least: int | None = None,
) -> None:
    """Rule 7.

    Args:
        survivors: the survivor set as this node acknowledged it.
        least: how many it takes, ``t`` by default; a node never asks for fewer.

    Raises:
        MaskingError: too few acknowledgements, one twice, or one of another set.
        VerificationError subclasses: a signature does not hold.
    """
    wanted = SurvivorSet.read(survivors)
    signed: set[str] = set()
    for envelope in acknowledgements:
        claimed = Acknowledgement.read(envelope)
        if claimed.node not in wanted.survivors or claimed.node in signed:
            raise MaskingError("an acknowledgement comes twice or from no survivor")
        one = Acknowledgement.open(envelope, [public(claimed.node)], now)
        said = (one.plan, one.cohort, one.round, one.attempt, one.survivors)
        if said != (wanted.plan, wanted.cohort, wanted.round, wanted.attempt, survivors.digest):
            raise MaskingError("{node} acknowledged another set of survivors", node=one.node)
        signed.add(one.node)
    need = scope.threshold if least is None else least
    if len(signed) < need:
        raise MaskingError(
            "{count} acknowledgements of the survivors are fewer than the {need} it takes",
            count=len(signed),
            need=need,
        )
