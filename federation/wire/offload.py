"""Work on bodies, in a thread or on the spot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

ON_THE_SPOT_BYTES = 64 * 1024
"""Of a body that is read, hashed or added in less than a millisecond."""
Given = TypeVarTuple("Given")
Result = TypeVar("Result")


async def offload(size: int, work: Callable[[*Given], Result], *given: *Given) -> Result:
    """Do work on so many bytes in a thread, or here where they are few: the way there and back would take longer."""
    return work(*given) if size <= ON_THE_SPOT_BYTES else await asyncio.to_thread(work, *given)
