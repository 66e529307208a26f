"""Calling other members over HTTPS: to the consortium's gateway alone, whose certificate the roster binds.

Nothing that a message says chooses where a connection goes: the host is the coordinator's in the roster, and the
certificate there must be its own. So no answer of ours, and no redirect, can be led into a company's network.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from federation.crypto import certificate_fingerprint, server_name
from federation.dataspace.calls import check_answer, sign_call
from federation.dataspace.party import Answered
from federation.dataspace.terms import BODY_BYTES, base_path
from federation.errors import UnavailableError, UsageError
from federation.home import Home
from federation.home import now as this_moment
from federation.statements import Envelope

ANSWER_HEADER = "Keyong-Answer"
REPLY_SECONDS = 30.0
"""What a member may take to answer; it writes its own store and ledger meanwhile."""


class GatewayUnreachableError(UnavailableError):
    """The gateway, or the member behind it, did not answer."""

    code = "gateway-unreachable"


class GatewayAddressError(UsageError):
    """An address is not the gateway of this consortium."""

    code = "gateway-address"


def check_gateway(address: str, home: Home) -> str:
    """The gateway's base address, if it is ``https://`` on the host that the roster gives the coordinator.

    Raises:
        GatewayAddressError: it is something else.
    """
    found = urlsplit(address)
    host = (home.history.latest.coordinator.address or home.identity.address).rpartition(":")[0].strip("[]")
    try:
        port = found.port
    except ValueError:
        port = None
    if found.scheme != "https" or found.hostname != host.lower() or not port or found.path not in ("", "/"):
        raise GatewayAddressError(
            "{address} is not on the coordinator's host ({host})",
            hint="the gateway is served where the roster says that the coordinator is: https://{host}:PORT",
            address=address[:200],
            host=host,
        )
    shown = f"[{found.hostname}]" if ":" in found.hostname else found.hostname
    return f"https://{shown}:{port}"


class HttpsCourier:
    """Calls members through the gateway.

    Args:
        gateway: its base address; may be learned later.
    """

    def __init__(self, home: Home, gateway: str = "", clock: Callable[[], datetime] = this_moment) -> None:
        self._home = home
        self._clock = clock
        self.gateway = check_gateway(gateway, home) if gateway else ""

    def learn(self, gateway: str) -> None:
        """Take the coordinator's word for where its gateway is, within what the roster allows."""
        self.gateway = check_gateway(gateway, self._home)

    def base(self, member: str) -> str:
        """See :class:`federation.dataspace.party.Courier`."""
        if not self.gateway:
            raise GatewayUnreachableError(
                "the coordinator serves no gateway for the Dataspace Protocol",
                hint="it does with `keyong coordinator serve --dataspace HOST:PORT`",
            )
        return self.gateway + base_path(member)

    def ask(self, member: str, method: str, path: str, body: bytes) -> Answered:
        """See :class:`federation.dataspace.party.Courier`."""
        self._home.roster.member(member)
        verb: Literal["GET", "POST"] = "GET" if method == "GET" else "POST"
        envelope, token = sign_call(
            self._home.key("statement"), self._home.identity.member, member, verb, path, body, self._clock()
        )
        target = urlsplit(self.base(member) + path)
        headers = {"Authorization": token, "Content-Type": "application/json", "Accept": "application/json"}
        connection = _Connection(self._home, target.hostname or "", target.port or 443)
        try:
            connection.request(verb, target.path, body or None, headers)
            response = connection.getresponse()
            data = response.read(BODY_BYTES + 1)
            return self._checked(member, envelope, response.status, data, response.getheader(ANSWER_HEADER, ""))
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachableError(
                "the gateway at {address} cannot be reached: {reason}",
                hint="is `keyong coordinator serve --dataspace …` running there?",
                address=self.gateway,
                reason=getattr(error, "strerror", None) or type(error).__name__,
            ) from None
        finally:
            connection.close()

    def _checked(self, member: str, call: Envelope, status: int, data: bytes, token: str) -> Answered:
        if not token or len(data) > BODY_BYTES:
            raise GatewayUnreachableError(
                "{member} gave no signed answer; the gateway said {status}",
                hint="is its node, or `keyong dataspace serve`, running there?",
                member=member,
                status=status,
            )
        check_answer(token, member, call, status, data, self._home.public_key, self._clock())
        if status == 503:
            raise GatewayUnreachableError("{member} cannot answer now", hint="try again", member=member)
        return Answered(status, data)


class _Connection(http.client.HTTPSConnection):
    """To one certificate, and with our own."""

    def __init__(self, home: Home, host: str, port: int) -> None:
        coordinator = home.history.latest.coordinator
        self._name = server_name(coordinator.id)
        self._wanted = certificate_fingerprint(coordinator.tls_certificate.encode())
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.load_verify_locations(cadata=coordinator.tls_certificate)
        load_identity(self._tls, home)
        super().__init__(host, port, timeout=REPLY_SECONDS, context=self._tls)

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), REPLY_SECONDS)
        sock = self._tls.wrap_socket(raw, server_hostname=self._name)
        shown = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True) or b"")
        if certificate_fingerprint(shown.encode()) != self._wanted:
            sock.close()
            raise ConnectionError("another certificate")
        self.sock = sock


def load_identity(context: ssl.SSLContext, home: Home) -> None:
    """Give a TLS context this home's certificate and key; the key stands in no file but the home's own."""
    folder = home.path / "keys"
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


def server_context(home: Home) -> ssl.SSLContext:
    """What a gateway listens with: TLS 1.3, our certificate, and callers that show one of the roster."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_identity(context, home)
    context.verify_mode = ssl.CERT_REQUIRED
    trust(context, home)
    return context


def trust(context: ssl.SSLContext, home: Home) -> None:
    """Let the members of the newest roster in, too."""
    for member in home.history.latest.members:
        context.load_verify_locations(cadata=member.tls_certificate)
