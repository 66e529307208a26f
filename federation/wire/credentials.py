"""Mutual TLS 1.3 with the roster as the only root: each party's self-signed certificate is its own trust anchor."""

from __future__ import annotations

from collections.abc import Callable

# Before grpc is imported: it reads its TLS suites once.
from federation.wire._suites import TOO_LATE  # isort: skip

import grpc

from federation.crypto import TlsIdentity
from federation.errors import UnavailableError

PING_SECONDS = 20
"""A link that carries nothing is pinged as often: boxes in the middle cut what is idle for 60 s, and a ping may be
lost."""
PONG_SECONDS = 20
"""What a ping may take: on a slow line its answer waits behind seconds of a model. Silence is noticed within both."""

WINDOW_BYTES = 4 * 1024 * 1024
"""What a stream may have on its way to a member that does not read yet: enough for 300 Mbit/s over 100 ms. gRPC's own measure
of the line takes a busy machine for a long line, and piles up 90 MB a stream."""
HUB_WINDOW_BYTES = 2 * 1024 * 1024
"""The same towards a coordinator, to whom all nodes of a cohort answer at once: its memory would grow with their number."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.max_send_message_length", 8 * 1024 * 1024),
    ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", PONG_SECONDS * 1000),  # TCP's own: what it sent and nobody acknowledged
    ("grpc.http2.ping_timeout_ms", PONG_SECONDS * 1000),  # a minute by default, whatever the keepalive's says
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", PING_SECONDS * 1000 // 2),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.so_reuseport", 0),
)
MEMBER_WINDOW = ("grpc.http2.lookahead_bytes", WINDOW_BYTES)
HUB_WINDOW = ("grpc.http2.lookahead_bytes", HUB_WINDOW_BYTES)


class LateSuitesError(UnavailableError):
    """gRPC was imported before its TLS suites were set: it would take TLS 1.2."""

    code = "tls-suites"


def listening(identity: TlsIdentity, trusted: Callable[[], tuple[str, ...]]) -> grpc.ServerCredentials:
    """Credentials of a listener that asks ``trusted`` at every handshake which client certificates (PEM) it takes.

    Raises:
        LateSuitesError: TLS 1.3 alone cannot be had in this process.
    """
    if TOO_LATE:
        raise LateSuitesError(
            "gRPC was imported before its TLS suites were set, so that TLS 1.3 alone cannot be had here",
            hint="import federation.wire.credentials before anything that imports grpc",
        )
    taken = trusted()

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem, identity.certificate_pem)], "\n".join(taken).encode()
        )

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal taken
        if (now := trusted()) == taken:
            return None  # as before: a hundred certificates are not read anew for each of a hundred handshakes
        taken = now
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        renewed,  # type: ignore[arg-type]  # gRPC takes None for "unchanged"; its stubs do not say so
        require_client_authentication=True,
    )


def dialling(key_pem: bytes, certificate_pem: bytes, server_certificate: str) -> grpc.ChannelCredentials:
    """Credentials of a dialler that takes exactly one server certificate."""
    return grpc.ssl_channel_credentials(server_certificate.encode(), key_pem, certificate_pem)
