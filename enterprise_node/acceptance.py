"""Whom this node's owner accepted: members of a legal entity under the statement keys they had, not the entity's name.

Who holds the root key can enter any member under any entity's name, and other keys for one that is there. Neither counts toward
this node's minimum of companies, nor is asked to witness its ledger, until the owner says so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from enterprise_node.store import AcceptedMember, NodeStore
from federation.home import Home, now
from federation.ledger import Ledger
from federation.statements import Member

Waiting = Literal["", "new", "key", "entity"]
"""Why a member does not count: it came after its entity was accepted, it has another statement key, it is of another entity.
Empty where it counts, or nobody of its entity was ever accepted."""
BOUND: Final = "bound"
"""Event of a ledger entry: an entity that a release of before accepted by name now stands for these members."""


@dataclass(frozen=True)
class Peer:
    """A member of the roster as this node's owner has it.

    Attributes:
        accepted: it counts.
        waiting: why it does not, where its entity was accepted.
    """

    member: Member
    accepted: bool
    waiting: Waiting


def is_accepted(kept: AcceptedMember | None, member: Member) -> bool:
    """Whether an owner's word is for this member as the roster has it now.

    This is the one place that says what carries an acceptance over. An exchange of the statement key does not: that the old
    key's holder signed for it is known to the coordinator, and no roster shows it to others.
    """
    return kept is not None and (kept.entity, kept.key) == (member.entity, member.statement_key)


class Acceptances:
    """Reads whom the owner accepted, by the newest roster; never from memory, for an owner's command changes it elsewhere."""

    def __init__(self, home: Home, store: NodeStore) -> None:
        self._home = home
        self._store = store

    def peers(self) -> list[Peer]:
        """Every member of the newest roster, in its order."""
        known = self._store.accepted()
        entities = {one.entity for one in known.values()}
        return [self._judge(member, known.get(member.id), entities) for member in self._home.history.latest.members]

    def members(self) -> frozenset[str]:
        """The members that count."""
        return frozenset(peer.member.id for peer in self.peers() if peer.accepted)

    def entities(self, cohort: Mapping[str, str]) -> frozenset[str]:
        """The legal entities that count in a cohort: those all of whose nodes in it do.

        Args:
            cohort: legal entity of each node.
        """
        counting = self.members()
        return frozenset(cohort.values()) - {entity for node, entity in cohort.items() if node not in counting}

    def accept(self, entities: list[str], ledger: Ledger) -> list[Member]:
        """Accept all members of these entities as the newest roster has them; returns those that are new. On record."""
        new = [peer.member for peer in self.peers() if peer.member.entity in entities and not peer.accepted]
        for member in new:
            self._keep(member, "accepted", ledger)
        return new

    def bind(self, ledger: Ledger) -> None:
        """Let entities that a release of before accepted by name stand for the members that the newest roster has of them."""
        named = self._store.named()
        if not named:
            return
        for peer in self.peers():
            if peer.member.entity in named and not peer.accepted:
                self._keep(peer.member, BOUND, ledger)
        self._store.forget_named(named)

    def _keep(self, member: Member, event: str, ledger: Ledger) -> None:
        fields = {"entity": member.entity, "event": event, "member": member.id, "key": member.statement_key}
        ledger.append("peers", fields)
        self._store.accept(member, now().isoformat())

    def _judge(self, member: Member, kept: AcceptedMember | None, entities: set[str]) -> Peer:
        own = member.id == self._home.identity.member and kept is not None  # whatever its key is, it is this node's
        if own or is_accepted(kept, member):
            return Peer(member, accepted=True, waiting="")
        if kept is not None:
            return Peer(member, accepted=False, waiting="entity" if kept.entity != member.entity else "key")
        return Peer(member, accepted=False, waiting="new" if member.entity in entities else "")
