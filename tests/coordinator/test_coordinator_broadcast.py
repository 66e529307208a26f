"""A content goes to each node once: named by its digests, withheld from whoever holds its body."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from coordinator.broadcast import WITHHELD_FROM, Broadcast, Hashed, Sender
from federation.errors import UnavailableError
from federation.jobs.codec import content_digest, nested_digest
from federation.wire.body import Buffer, total_bytes
from federation.wire.messages import Invoke
from federation.wire.peer import Incoming

BODY = memoryview(b"w" * WITHHELD_FROM)


class Node:
    """The end of a link: a node that holds what it was sent, until it forgets."""

    def __init__(self, version: int = 2) -> None:
        self.speaks = version
        self.held = ""
        self.bytes: list[int] = []

    def version(self, node: str) -> int:
        return self.speaks

    async def call_again(self, node: str, method: str, header: bytes, body: Sequence[Buffer], **_: Any) -> Any:
        request = Invoke.from_bytes(header)
        self.bytes.append(total_bytes(body))
        if request.withheld and self.held != request.body:
            raise UnavailableError("not here", code="body-missing")
        self.held = request.body
        return Incoming(method, header, memoryview(b""))


def ask(node: Node, sender: Sender, body: memoryview = BODY) -> None:
    named = Broadcast(b"{}", body).named(node.version("mill"))
    asyncio.run(sender.send("mill", "", named, 1.0))


def test_the_same_body_is_sent_once_and_another_again() -> None:
    node = Node()
    sender = Sender(node)  # type: ignore[arg-type]
    for body in (BODY, BODY, memoryview(bytes(len(BODY))), BODY):
        ask(node, sender, body)
    assert node.bytes == [len(BODY), 0, len(BODY), len(BODY)]


def test_a_node_that_lost_the_body_gets_it_again() -> None:
    node = Node()
    sender = Sender(node)  # type: ignore[arg-type]
    ask(node, sender)
    node.held = ""
    ask(node, sender)
    ask(node, sender)
    assert node.bytes == [len(BODY), 0, len(BODY), 0]


def test_a_node_of_protocol_1_gets_every_body_and_the_digest_it_knows() -> None:
    node = Node(version=1)
    sender = Sender(node)  # type: ignore[arg-type]
    ask(node, sender)
    ask(node, sender)
    assert node.bytes == [len(BODY), len(BODY)] and node.held == ""
    assert Broadcast(b"{}", BODY).named(1).digest == content_digest(b"{}", [BODY])


@pytest.mark.parametrize("fields", [b"body", b"withheld"])
def test_protocol_1_finds_no_field_in_the_header_that_it_does_not_know(fields: bytes) -> None:
    assert fields not in Invoke(invocation="x", content="{}").to_bytes()


def test_the_two_digests_of_a_content_are_never_one() -> None:
    named = Broadcast(b"{}", BODY).named(2)
    assert named.digest == nested_digest(b"{}", named.body_digest) != Broadcast(b"{}", BODY).named(1).digest
    assert nested_digest(b"{} ", named.body_digest) != named.digest
    with pytest.raises(ValueError, match="digest"):
        nested_digest(b"{}", "sha256:00")


def test_a_body_is_hashed_once_and_only_the_very_same_one_is_believed() -> None:
    known = Hashed.of(BODY)
    forged = Hashed(BODY, "sha256:" + 64 * "0")
    assert Broadcast(b"{}", BODY, known).digest == Broadcast(b"{}", BODY).digest
    assert Broadcast(b"{}", BODY, forged).hashed is forged  # not hashed again
    assert Broadcast(b"{}", BODY[:], forged).digest == Broadcast(b"{}", BODY).digest  # another view: hashed
    writable = memoryview(bytearray(BODY))
    assert Broadcast(b"{}", writable, Hashed(writable, forged.digest)).digest == Broadcast(b"{}", BODY).digest
