"""What is left of the masks in a sum, found from released shares: every survivor's own, and the vanished ones' halves.

The masks that two survivors have in common cancel by themselves. Runs on the coordinator, which learns no more by it than the
sum: of each node either the seed or the key can be put together, never both (see `survivors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, islice

from federation.secagg.announcements import Announcements
from federation.secagg.keystream import MaskKey
from federation.secagg.mask_keys import MaskContext, commitment_to, decode_key, pair_key, public_of, self_key
from federation.secagg.shamir import ShareError, combine, from_bytes
from federation.statements.masking import ReleasedShares

_TRIES = 64
"""How many choices of shares are tried before a secret counts as lost: with one liar among few, one of the first fits."""


def residual_masks(
    announcements: Announcements,
    context: MaskContext,
    survivors: frozenset[str],
    released: Mapping[str, ReleasedShares],
) -> list[MaskKey]:
    """The keys of all masks that the sum of the survivors' vectors still holds, signed so that adding them removes it.

    Args:
        announcements: of the cohort.
        context: of the round.
        survivors: whose vectors were added.
        released: the checked shares of each node that released some.

    Raises:
        ShareError: too few shares, or none that fit what was announced.
    """
    scope, graph = announcements.scope, announcements.graph
    place = scope.place(context.round, context.attempt)
    keys: list[MaskKey] = []
    for node in scope.participants:
        around = graph.around(node)
        holders = [(at, released[by]) for at, by in enumerate(around, start=1) if by in released]
        if node in survivors:
            wanted = announcements.commitment(node, place)
            shares = {at: _read(one.seeds, node) for at, one in holders}
            seed = _recover(shares, graph.threshold, lambda secret, w=wanted: commitment_to(secret) == w)  # type: ignore[misc]
            keys.append(MaskKey(self_key(seed, context, node), -1))
            continue
        wanted = announcements.public(node, place)
        shares = {at: _read(one.keys, node) for at, one in holders}
        private = _recover(shares, graph.threshold, lambda secret, w=wanted: public_of(secret) == w)  # type: ignore[misc]
        for survivor in sorted(survivors.intersection(around)):
            key = pair_key(private, announcements.public(survivor, place), context, node, survivor)
            keys.append(MaskKey(key, -scope.sign(survivor, node)))
    return keys


def _read(shares: Mapping[str, str], node: str) -> int:
    if node not in shares:
        raise ShareError("a node released no share of {node}", node=node)
    return from_bytes(decode_key(shares[node]))


def _recover(shares: Mapping[int, int], threshold: int, fits: Callable[[int], bool]) -> int:
    if len(shares) < threshold:
        raise ShareError("{have} shares are fewer than the {need} it takes", have=len(shares), need=threshold)
    for chosen in islice(combinations(shares.items(), threshold), _TRIES):
        secret = combine(dict(chosen), threshold)
        if fits(secret):
            return secret
    raise ShareError("the released shares do not fit what was announced")
