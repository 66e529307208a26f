"""Real gRPC links between our TLS identities; run as a process, because gRPC reads its cipher suites once.

Prints one JSON object: what each attempt to use the link came to.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.crypto import TlsIdentity, peer_fingerprint, server_name

SERVICE = "keyong.test.Link"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class TrustedPeers:
    """The certificates that the server trusts at this moment; gRPC asks `fetch` before each handshake."""

    def __init__(self, identity: TlsIdentity, *trusted: TlsIdentity) -> None:
        self.identity = identity
        self.trusted = list(trusted)
        self.broken = False
        self._given: tuple[bytes, ...] = ()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        self._given = tuple(one.certificate_pem for one in self.trusted)
        return grpc.ssl_server_certificate_configuration(
            [(self.identity.key_pem, self.identity.certificate_pem)], root_certificates=b"".join(self._given)
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        if self.broken:
            raise RuntimeError("the roster cannot be read")
        unchanged = self._given == tuple(one.certificate_pem for one in self.trusted)
        return None if unchanged else self.configuration()


async def answer_with_fingerprint(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answers each message with the fingerprint of the peer's certificate."""
    async for _ in requests:
        yield peer_fingerprint(context.auth_context()).encode()


async def call(port: int, client: TlsIdentity | None, *roots: TlsIdentity, name: str = "coordinator") -> str:
    """The fingerprint the server saw, or the status it refused with."""
    pair = (client.key_pem, client.certificate_pem) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(b"".join(root.certificate_pem for root in roots), *pair)
    options = (("grpc.ssl_target_name_override", server_name(name)),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/Open")()
        try:
            await stream.write(b"who am I?")
            answer = await asyncio.wait_for(stream.read(), 20)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return str(answer, "ascii")


class PlainClient:
    """OpenSSL instead of gRPC: chooses its TLS version and resumes sessions, as an attacker would."""

    def __init__(self, client: TlsIdentity, root: TlsIdentity, version: ssl.TLSVersion) -> None:
        self.session: ssl.SSLSession | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = self._context.maximum_version = version
        self._context.set_alpn_protocols(["h2"])
        with tempfile.TemporaryDirectory() as directory:
            pair, trusted = Path(directory, "pair"), Path(directory, "trusted")
            pair.write_bytes(client.key_pem + client.certificate_pem)
            trusted.write_bytes(root.certificate_pem)
            self._context.load_cert_chain(pair)
            self._context.load_verify_locations(trusted)

    def open(self, port: int) -> str:
        """The TLS version, with '+resumed' if so, once the server has answered in HTTP/2; 'refused' otherwise."""
        try:
            with self._context.wrap_socket(
                socket.create_connection(("127.0.0.1", port), 20),
                server_hostname=server_name("coordinator"),
                session=self.session,
            ) as link:
                link.sendall(HTTP2)
                if not link.recv(9):
                    return "refused"
                self.session = link.session
                return f"{link.version()}{'+resumed' if link.session_reused else ''}"
        except (ssl.SSLError, ConnectionError):
            return "refused"


def delegated(owner: TlsIdentity) -> TlsIdentity:
    """A second key with a certificate that a member issued with its own: what CA:FALSE must make worthless."""
    issuer = x509.load_pem_x509_certificate(owner.certificate_pem)
    issuer_key = serialization.load_pem_private_key(owner.key_pem, None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    second = TlsIdentity.generate("lent")
    template = x509.load_pem_x509_certificate(second.certificate_pem)
    builder = (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(issuer.subject)
        .public_key(template.public_key())
        .serial_number(2)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
    )
    for extension in template.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    pem = builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return TlsIdentity(second.key_pem, pem + owner.certificate_pem)


async def attempts() -> dict[str, str]:
    coordinator, steel, copper, stranger = (
        TlsIdentity.generate(name) for name in ("coordinator", "steel", "copper", "stranger")
    )
    steel_next, coordinator_next = TlsIdentity.generate("steel"), TlsIdentity.generate("coordinator")
    names = {
        one.fingerprint: name for name, one in (("steel", steel), ("copper", copper), ("steel's next", steel_next))
    }
    peers = TrustedPeers(coordinator, steel)
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(answer_with_fingerprint)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Open": handler}),))
    credentials = grpc.dynamic_ssl_server_credentials(
        peers.configuration(), peers.fetch, require_client_authentication=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()

    async def plain(client: PlainClient) -> str:
        return await asyncio.to_thread(client.open, port)

    seen = {
        "known": await call(port, steel, coordinator),
        "unknown": await call(port, stranger, coordinator),
        "no certificate": await call(port, None, coordinator),
        "lent by known": await call(port, delegated(steel), coordinator),
        "another server trusted": await call(port, steel, stranger),
        "another server named": await call(port, steel, coordinator, name="steel"),
        "TLS 1.3": await plain(PlainClient(steel, coordinator, ssl.TLSVersion.TLSv1_3)),
        "TLS 1.2": await plain(PlainClient(steel, coordinator, ssl.TLSVersion.TLSv1_2)),
        "TLS 1.3 unknown": await plain(PlainClient(stranger, coordinator, ssl.TLSVersion.TLSv1_3)),
    }
    resuming = PlainClient(steel, coordinator, ssl.TLSVersion.TLSv1_3)
    seen["first session"] = await plain(resuming)
    seen["resumed session"] = await plain(resuming)
    seen["not yet added"] = await call(port, copper, coordinator)
    peers.trusted.append(copper)
    seen["added"] = await call(port, copper, coordinator)
    peers.trusted.append(steel_next)
    seen["rollover, old"] = await call(port, steel, coordinator)
    seen["rollover, new"] = await call(port, steel_next, coordinator)
    peers.trusted.remove(steel)
    seen["removed"] = await call(port, steel, coordinator)
    seen["removed, resumed"] = await plain(resuming)
    seen["beside removed"] = await call(port, steel_next, coordinator)
    seen["server rollover, ahead"] = await call(port, copper, coordinator_next, coordinator)
    peers.identity = coordinator_next
    peers.trusted.append(stranger)
    seen["server rollover, done"] = await call(port, copper, coordinator, coordinator_next)
    seen["server rollover, behind"] = await call(port, copper, coordinator)
    peers.broken = True
    seen["fetch fails, known"] = await call(port, copper, coordinator_next)
    peers.broken = False
    peers.trusted.clear()
    seen["nobody trusted"] = await call(port, copper, coordinator_next)
    await server.stop(None)
    return {what: names.get(result, result) for what, result in seen.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(attempts())))
