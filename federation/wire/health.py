"""The standard gRPC health check (grpc.health.v1) on a listener, for members alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

# Before grpc is imported: it reads its TLS suites once.
from federation.wire import credentials as credentials  # isort: skip

import grpc
from grpc_health.v1 import health_pb2

from federation.crypto import peer_fingerprint
from federation.errors import KeyongError
from federation.wire.frame import SERVICE

NAME = "grpc.health.v1.Health"
_KNOWN = ("", SERVICE)


def health_handler(who: Callable[[str], str], ready: Callable[[], Awaitable[bool]]) -> grpc.GenericRpcHandler:
    """Answers ``Check``: SERVING while the service is ready for work, NOT_SERVING otherwise.

    ``Watch`` is not offered: it would hold a stream for every caller, and clients fall back to ``Check``.

    Args:
        who: maps a certificate's fingerprint to a member, and raises for everybody else.
    """

    async def check(request: Any, context: Any) -> Any:
        try:
            who(peer_fingerprint(context.auth_context()))
        except KeyongError:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not in the roster")
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        status = health_pb2.HealthCheckResponse.SERVING if await ready() else health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(NAME, {"Check": method})
