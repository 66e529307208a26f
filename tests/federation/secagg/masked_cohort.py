"""A cohort of nodes and a coordinator that run masked rounds with each other, without wire, data or disk."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np

from federation.crypto import SigningKey
from federation.secagg import (
    Accumulator,
    Aggregate,
    Announcements,
    EncodedReply,
    Layout,
    MaskContext,
    NodeMasks,
    Scope,
    check_acknowledgements,
    check_inputs,
    encode,
    residual_masks,
)
from federation.statements import (
    Acknowledgement,
    Encoding,
    Envelope,
    MaskedInput,
    MetricSpec,
    ReleasedShares,
    StageOutput,
    SurvivorSet,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
PLAN, ROSTER, CONTENT = ("sha256:" + digit * 64 for digit in "123")
SENT = {"arrays": {"w": np.linspace(-1, 1, 37, dtype=np.float32), "k": np.array([3, 4], dtype=np.int64)}}
OUTPUT = StageOutput(sent=True, metrics=(MetricSpec(name="loss"),))


@dataclass
class MaskedCohort:
    """Nodes ``n00``, ``n01``, ... that have announced and shared; each method is one stage."""

    n: int
    rounds: int = 3
    first: int = 1
    attempt: int = 1
    keys: dict[str, SigningKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(f"n{at:0{2 if self.n <= 100 else 3}}" for at in range(self.n))
        self.keys = self.keys or {name: SigningKey.generate() for name in names}
        self.coordinator = SigningKey.generate()
        self.scope = Scope(PLAN, ROSTER, names, self.first, self.attempt, self.rounds)
        self.nodes = {name: NodeMasks(self.scope, name, secrets.randbelow) for name in names}
        self.announced = [node.announce(NOW, LATER).seal(self.keys[name]) for name, node in self.nodes.items()]
        self.announcements = Announcements.open(self.announced, self.scope, self.public, NOW)
        sealed = {name: node.share(self.announcements) for name, node in self.nodes.items()}
        for name, node in self.nodes.items():
            node.receive({sender: boxes[name] for sender, boxes in sealed.items() if name in boxes})

    def public(self, name: str) -> Any:
        """The statement key of a node."""
        return self.keys[name].public

    def context(self, number: int = 1, stage: str = "train", content: str = CONTENT) -> MaskContext:
        """What a round's masks are bound to."""
        attempt = self.attempt if number == self.first else 1
        return self.announcements.context(number, attempt, stage, content)

    def mask(self, name: str, reply: EncodedReply, context: MaskContext) -> Envelope:
        """A node masks its reply in place and signs for it."""
        reply.mask(self.nodes[name].masks(context.round, context.attempt, context.stage, context.content))
        return MaskedInput(
            issued=NOW, expires=LATER, plan=PLAN, invocation=PLAN, cohort=context.cohort, node=name, round=context.round,
            attempt=context.attempt, stage=context.stage, content=context.content, output=reply.digest(), output_bytes=1,
        ).seal(self.keys[name])  # fmt: skip

    def survivor_set(self, names: Sequence[str], context: MaskContext) -> Envelope:
        """The coordinator's word on who is in."""
        return SurvivorSet(
            issued=NOW, expires=LATER, plan=PLAN, cohort=context.cohort, round=context.round, attempt=context.attempt,
            survivors=tuple(sorted(names)),
        ).seal(self.coordinator)  # fmt: skip

    def acknowledge(self, name: str, survivors: Envelope, inputs: Sequence[Envelope], context: MaskContext) -> Envelope:
        """A node checks the survivors and acknowledges them."""
        one = SurvivorSet.read(survivors)
        check_inputs(one, inputs, context, self.scope, self.public, NOW)
        return Acknowledgement(
            issued=NOW, expires=LATER, plan=PLAN, cohort=context.cohort, node=name, round=context.round,
            attempt=context.attempt, survivors=survivors.digest,
        ).seal(self.keys[name])  # fmt: skip

    def release(
        self, name: str, survivors: Envelope, acknowledgements: Sequence[Envelope], context: MaskContext
    ) -> ReleasedShares:
        """A node checks the acknowledgements and releases its shares."""
        check_acknowledgements(survivors, acknowledgements, self.scope, self.public, NOW)
        names = frozenset(SurvivorSet.read(survivors).survivors)
        seeds, keys = self.nodes[name].release(context.round, context.attempt, names)
        return ReleasedShares(
            issued=NOW, expires=LATER, plan=PLAN, cohort=context.cohort, node=name, round=context.round,
            attempt=context.attempt, seeds=seeds, keys=keys,
        )  # fmt: skip

    def run(
        self,
        replies: Mapping[str, EncodedReply],
        layout: Layout,
        encoding: Encoding,
        sent: Any,
        *,
        number: int = 1,
        silent: Sequence[str] = (),
        mute: Sequence[str] = (),
    ) -> Aggregate:
        """A whole round: who has no reply vanished before, ``silent`` after its masked vector, ``mute`` after acknowledging."""
        context = self.context(number)
        total = Accumulator(layout, encoding, self.n)
        inputs = []
        for name, reply in replies.items():
            inputs.append(self.mask(name, reply, context))
            total.add(reply)
        survivors = self.survivor_set(list(replies), context)
        left = [name for name in replies if name not in silent]
        acknowledgements = [self.acknowledge(name, survivors, inputs, context) for name in left]
        released = {name: self.release(name, survivors, acknowledgements, context) for name in left if name not in mute}
        total.add_masks(residual_masks(self.announcements, context, frozenset(replies), released))
        return total.finish(len(replies), sent)


def reply_of(seed: int, layout: Layout, encoding: Encoding, n: int, weight: int, sent: Any = None) -> EncodedReply:
    """A node's encoded reply to ``sent``, made up."""
    sent = SENT if sent is None else sent
    random = np.random.default_rng(seed)
    arrays = {
        record: {
            name: (array + random.normal(size=array.shape) * 3).astype(array.dtype) for name, array in entries.items()
        }
        for record, entries in sent.items()
    }
    metrics = {"metrics": {metric.name: float(random.normal()) for metric in layout.metrics}}
    return encode(SimpleNamespace(arrays=arrays, metrics=metrics), sent, layout, encoding, weight, n)
