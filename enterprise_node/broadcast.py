"""The content of an invocation as it arrives: whole, or its header alone with a body that the node holds already."""

from __future__ import annotations

from dataclasses import dataclass

from enterprise_node.job import Job
from federation.errors import UnavailableError
from federation.jobs.codec import body_digest, content_digest, nested_digest
from federation.wire.messages import Invoke
from federation.wire.offload import offload
from federation.wire.peer import Incoming


class BodyMissingError(UnavailableError):
    """A body that the coordinator did not send again is not held here; nothing was done, it is to be sent."""

    code = "body-missing"


@dataclass(frozen=True)
class Broadcast:
    """What an invocation came with.

    Attributes:
        digest: of header and body as they are here, never as the sender says they are.
    """

    header: bytes
    body: memoryview
    digest: str


async def broadcast_of(job: Job | None, request: Invoke, message: Incoming) -> Broadcast:
    """The content that a request names; its body becomes the one that the job holds.

    Raises:
        BodyMissingError: the body was withheld, and the job holds another, or none.
    """
    header = request.content.encode()
    if not request.body:
        return Broadcast(header, message.body, await offload(len(message.body), content_digest, header, [message.body]))
    if request.withheld:
        held = job.body if job is not None else None
        if held is None or held[0] != request.body:
            raise BodyMissingError("the body of the content is not held here any more")
        digest, body = held
    else:
        body = message.body
        digest = message.digest or await offload(len(body), body_digest, [body])
        if job is not None:
            job.body = (digest, body)
    return Broadcast(header, body, nested_digest(header, digest))
