"""The trusted end of the sessions of bilateral actions (``keyong_job scoring``, ``intersection``): answers judged by form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import KeyongError
from federation.wire.body import Buffer
from federation.wire.session_channel import SessionChannel

SCORING = ("-m", "keyong_job", "scoring")
INTERSECTION = ("-m", "keyong_job", "intersection")
MEMORY_BYTES = 2 * 2**30
CODES = frozenset(
    {
        "parts-size",
        "psi-cheating",
        "psi-format",
        "psi-missing",
        "psi-order",
        "scoring-format",
        "scoring-key",
        "scoring-noise",
        "scoring-parameters",
        "scoring-size",
        "too-few-keys",
    }
)
Numbers = NDArray[np.float64]


class BilateralRefusedError(KeyongError):
    """A session refused what it was given, or sent something that is no answer."""

    code = "bilateral-format"


class _PartsSession:
    def __init__(self, channel: SessionChannel) -> None:
        self._channel = channel

    async def _ask(
        self, op: str, body: Sequence[Buffer] = (), *, parts: int = 0, **more: Any
    ) -> tuple[dict[str, Any], list[memoryview]]:
        await self._channel.send({"op": op, "sizes": [len(one) for one in body], **more}, body)
        header, view = await self._channel.receive()
        if header.get("op") != "done":
            code = header.get("code")
            known = code if isinstance(code, str) and code in CODES else "bilateral-format"
            if known == "psi-missing":
                raise BilateralRefusedError(
                    "set intersection is not installed here",
                    hint="pip install 'keyong[psi]', then build the runtime anew: keyong node runtime build",
                    code="psi-missing",
                )
            raise BilateralRefusedError("the session refused it: {reason}", code=known, reason=known)
        sizes = header.get("sizes", [])
        if not isinstance(sizes, list) or not all(isinstance(one, int) and one > 0 for one in sizes):
            raise BilateralRefusedError("a session sent something that is no answer")
        if sum(sizes) != len(view) or len(sizes) != parts:
            raise BilateralRefusedError("a session sent something that is no answer")
        return header, [view[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


class ScoringSession(_PartsSession):
    """Makes keys, encrypts coefficients, evaluates, opens; what is parsed, is parsed in the session."""

    async def keys(self) -> tuple[bytes, bytes, bytes]:
        """A fresh public context, its rotation keys, and the secret one."""
        _, (public, rotations, secret) = await self._ask("keys", parts=3)
        return bytes(public), bytes(rotations), bytes(secret)

    async def take(self, *context: Buffer, secret: bool = False) -> None:
        """Take a context, and rotation keys where they are given; raises unless it has the right parameters."""
        await self._ask("take", context, secret=secret)

    async def encrypt(self, coefficients: Numbers) -> bytes:
        """The coefficients' ciphertext."""
        _, (made,) = await self._ask("encrypt", (coefficients.astype("<f8").tobytes(),), parts=1)
        return bytes(made)

    async def evaluate(self, model: Buffer, moments: Numbers) -> list[memoryview]:
        """The ciphertexts of the sum, and of the first of the moments."""
        return (await self._ask("evaluate", (model, moments.astype("<f8").tobytes()), parts=2))[1]

    async def open(self, parts: Sequence[Buffer]) -> tuple[float, float]:
        """The two figures of a result, rounded."""
        _, (figures,) = await self._ask("open", parts, parts=1)
        if len(figures) != 16:
            raise BilateralRefusedError("a session sent something that is no answer")
        total, count = np.frombuffer(figures, dtype="<f8").tolist()
        return float(total), float(count)


class IntersectionSession(_PartsSession):
    """One side's keys and its secret."""

    async def blind(self, data: str, column: str) -> list[memoryview]:
        """A snapshot's keys, blinded twice."""
        return (await self._ask("blind", data=data, column=column, parts=2))[1]

    async def size(self, setup: Buffer, responses: Sequence[Buffer]) -> tuple[int, int, int]:
        """How many keys both sides have, how many this one, how many the asker."""
        header, _ = await self._ask("size", (setup, *responses))
        size, mine, theirs = (_count(header, name) for name in ("size", "mine", "theirs"))
        if size > min(mine, theirs):
            raise BilateralRefusedError("a session sent something that is no answer")
        return size, mine, theirs

    async def answer(self, blinded: Sequence[Buffer], keys: Sequence[str]) -> tuple[int, list[memoryview]]:
        """How many distinct keys there are; those keys under a fresh secret, and the two blinded lists under it, too."""
        header, made = await self._ask("answer", (*blinded, json.dumps(list(keys)).encode()), parts=3)
        return _count(header, "mine"), made


def _count(header: Mapping[str, Any], name: str) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BilateralRefusedError("a session sent something that is no answer")
    return value
