"""The trusted end of an encryption session (``keyong_job cipher``): operations on it, its answers judged by their form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import KeyongError
from federation.wire.body import Buffer
from federation.wire.session_channel import SessionChannel

ARGUMENTS = ("-m", "keyong_job", "cipher")
MEMORY_BYTES = 2 * 2**30
CODES = frozenset({"cipher-parameters", "cipher-key", "cipher-size", "cipher-noise", "cipher-element", "cipher-format"})
Elements = NDArray[np.uint64]


class CipherRefusedError(KeyongError):
    """An encryption session refused what it was given, or sent something that is no answer."""

    code = "cipher-format"


class CipherSession:
    """Encrypts, adds or decrypts; what is parsed, is parsed in the session."""

    def __init__(self, channel: SessionChannel) -> None:
        self._channel = channel

    async def keys(self) -> tuple[bytes, bytes]:
        """A fresh pair: the public context, and the secret one."""
        _, (public, secret) = await self._ask("keys")
        return bytes(public), bytes(secret)

    async def take(self, context: Buffer, *, secret: bool = False) -> None:
        """Take a context; raises CipherRefusedError unless it has the right parameters, and a secret key where that is said
        alone."""
        await self._ask("context", (context,), secret=secret)

    async def encrypt(self, elements: Elements) -> list[memoryview]:
        """The ciphertexts of a vector."""
        return (await self._ask("encrypt", (elements.astype("<u8", copy=False).tobytes(),)))[1]

    async def add(self, ciphertexts: Sequence[Buffer]) -> None:
        """Add a vector's ciphertexts to the session's sum."""
        await self._ask("add", ciphertexts, sizes=[len(one) for one in ciphertexts])

    async def finish(self, correction: Elements) -> list[memoryview]:
        """The sum, with elements added."""
        return (await self._ask("finish", (correction.astype("<u8", copy=False).tobytes(),)))[1]

    async def decrypt(self, ciphertexts: Sequence[Buffer]) -> Elements:
        """The elements of a sum; needs the secret key."""
        _, body = await self._exchange("decrypt", ciphertexts, sizes=[len(one) for one in ciphertexts])
        if len(body) % 8:
            raise CipherRefusedError("an encryption session sent something that is no answer")
        return np.frombuffer(body, dtype="<u8").astype(np.uint64)

    async def _ask(self, op: str, body: Sequence[Buffer] = (), **more: Any) -> tuple[dict[str, Any], list[memoryview]]:
        header, view = await self._exchange(op, body, **more)
        sizes = header.get("sizes", [])
        if not isinstance(sizes, list) or not all(isinstance(one, int) and one > 0 for one in sizes):
            raise CipherRefusedError("an encryption session sent something that is no answer")
        if sum(sizes) != len(view):
            raise CipherRefusedError("an encryption session sent something that is no answer")
        return header, [view[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]

    async def _exchange(self, op: str, body: Sequence[Buffer], **more: Any) -> tuple[dict[str, Any], memoryview]:
        await self._channel.send({"op": op, **more}, body)
        header, view = await self._channel.receive()
        if header.get("op") != "done":
            code = header.get("code")
            known = code if isinstance(code, str) and code in CODES else "cipher-format"
            raise CipherRefusedError("the encryption session refused it: {reason}", code=known, reason=known)
        return header, view
