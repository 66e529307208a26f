"""The coordinator's part in the Dataspace Protocol: the gateway, and the endpoints of its own member."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from coordinator.links import Links
from federation.dataspace import Connector, DataspaceStore, HttpsCourier, Party, Reactions
from federation.errors import KeyongError
from federation.holdings import Holdings, open_engine
from federation.home import Home
from federation.ledger import Ledger

log = structlog.get_logger("keyong.coordinator")

REACT_SECONDS = 1.0


@dataclass(frozen=True)
class Dataspace:
    """Where the gateway listens.

    Attributes:
        url: the base address under which members reach it; empty for the coordinator's host in the roster and this port.
    """

    host: str
    port: int
    url: str = ""


@contextlib.asynccontextmanager
async def serving(dataspace: Dataspace | None, home: Home, ledger: Ledger, links: Links) -> AsyncIterator[str]:
    """Serve the gateway for the block; gives its base address, empty where there is none to serve."""
    if dataspace is None:
        yield ""
        return
    from coordinator.gateway import Gateway

    engine = open_engine(home.path / "store.db")
    courier = HttpsCourier(home, dataspace.url)
    party = Party(home, Holdings(engine), ledger, DataspaceStore(engine), courier)
    try:
        async with Gateway(home, links, Connector(party)).serving(dataspace.host, dataspace.port) as port:
            if not courier.gateway:
                courier.gateway = f"https://{_roster_host(home)}:{port}"
            reacting = asyncio.create_task(_react(Reactions(party)))
            try:
                yield courier.gateway
            finally:
                reacting.cancel()
                await asyncio.gather(reacting, return_exceptions=True)
    finally:
        engine.dispose()


def _roster_host(home: Home) -> str:
    return (home.history.latest.coordinator.address or home.identity.address).rpartition(":")[0]


async def _react(reactions: Reactions) -> None:
    while True:
        try:
            await asyncio.to_thread(reactions.run)
        except KeyongError as error:
            log.warning("dataspace-put-off", code=error.code)
        except Exception as error:
            log.error("dataspace-failed", error=type(error).__name__, exc_info=True)
        await asyncio.sleep(REACT_SECONDS)
