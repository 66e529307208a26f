"""grpc.health.v1 on the listener: as ready as the service is, and for members alone."""

from __future__ import annotations

from typing import Any

import pytest

from federation.wire.credentials import CHANNEL_OPTIONS, dialling  # isort: skip

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.crypto import TlsIdentity, server_name
from federation.wire.listen import Listener
from tests.federation.wire.conftest import Hub, echo

STATUS = health_pb2.HealthCheckResponse


async def check(listener: Listener, hub: TlsIdentity, member: TlsIdentity, service: str = "") -> Any:
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server_name("hub")))
    credentials = dialling(member.key_pem, member.certificate_pem, hub.certificate_pem.decode())
    async with grpc.aio.secure_channel(f"127.0.0.1:{listener.port}", credentials, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)).status


@pytest.fixture
async def served(hub: Hub, tmp_path: Any) -> Any:
    state = {"ready": True}

    async def ready() -> bool:
        return state["ready"]

    trusted = [hub.member("mill"), TlsIdentity.generate("removed")]
    listener = Listener(
        "127.0.0.1:0",
        hub.identity,
        trusted=lambda: tuple(one.certificate_pem.decode() for one in trusted),
        who=hub.who,
        handler=echo,
        on_link=hub.on_link,
        body_limit=2**20,
        spool=tmp_path,
        ready=ready,
    )
    await listener.start()
    yield listener, hub.identity, trusted, state
    await listener.stop(0.2)


async def test_a_member_s_check_follows_readiness(served: Any) -> None:
    listener, identity, (member, _), state = served
    assert await check(listener, identity, member) == STATUS.SERVING
    assert await check(listener, identity, member, "keyong.link.v1.Link") == STATUS.SERVING
    state["ready"] = False
    assert await check(listener, identity, member) == STATUS.NOT_SERVING


async def test_others_are_told_nothing(served: Any) -> None:
    listener, identity, (member, removed), _ = served
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(listener, identity, removed)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await check(listener, identity, member, "another")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
