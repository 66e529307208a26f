"""What people touch: the command, its texts, the demo and the benchmarks. Composition of the packages below; no rules.

>>> import keyong
>>> callable(keyong.connect)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyong.sdk import Connection, connect

__all__ = ["Connection", "connect"]


def __getattr__(name: str) -> Any:
    # what verifies a ledger offline needs none of it
    if name in __all__:
        from keyong import sdk

        return getattr(sdk, name)
    raise AttributeError(name)
